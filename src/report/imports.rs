//! What attrs imported from derivations, in words.

use super::number::plural;
use super::summary::Summary;
use super::text::listed;

/// `3 imports from derivations: gen-nix, lock2nix, cabal2nix`, cut to so many columns; `None` if there was none.
#[must_use]
pub fn imports(summary: &Summary, width: usize) -> Option<String> {
    let names: Vec<&str> = summary.imports().into_iter().map(|name| &**name).collect();
    if names.is_empty() {
        return None;
    }
    let head = plural(names.len(), "import from a derivation: ", "imports from derivations: ");
    let room = width.saturating_sub(head.len());
    Some(format!("{head}{}", listed(&names, ", ", room)))
}
