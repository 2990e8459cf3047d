//! What is wrong with a flake as a whole that Nix does not refuse. Where it is looked for: `lockfile`, `own_config`.

use crate::event::Text;

/// Something wrong that is about no attr.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is about: `flake.lock`, `nixConfig`.
    pub about: Text,
    /// What is wrong.
    pub message: Text,
    /// `file:line:column`, where it has a place.
    pub position: Option<Text>,
    /// What to type.
    pub hint: Option<Text>,
}
