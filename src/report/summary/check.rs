//! What only checks say.

use crate::event::{Evaluated, Fact, Failure, Text};

use super::{Attr, Summary};

/// Something wrong that is about no attr.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields of Fact::FlakeFinding")]
pub struct Finding {
    pub about: Text,
    pub message: Text,
    pub position: Option<Text>,
    pub hint: Option<Text>,
    pub fails: bool,
}

/// Why an attr may fail.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields of Fact::AttrQuarantined")]
pub struct Quarantined {
    pub name: Text,
    pub reason: Text,
    pub ticket: Option<Text>,
    pub expires: Text,
}

/// What `nix flake check` said.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the fields of Fact::NixChecked")]
pub struct OfNix {
    pub ok: bool,
    pub error: Option<Text>,
    pub seconds: f64,
}

impl Attr {
    /// What is wrong with it that Nix does not refuse.
    #[must_use]
    pub fn finding(&self) -> Option<&Failure> {
        match &self.evaluated {
            Some((_, Evaluated::Finding(failure))) => Some(failure),
            _ => None,
        }
    }
}

/// Takes a fact in.
pub(super) fn add(s: &mut Summary, fact: &Fact) {
    match fact {
        Fact::FlakeFinding { about, message, position, hint, fails } => s.findings.push(Finding {
            about: about.clone(),
            message: message.clone(),
            position: position.clone(),
            hint: hint.clone(),
            fails: *fails,
        }),
        Fact::AttrQuarantined { attr, name, reason, ticket, expires } => {
            if let Some(attr) = s.attrs.get_mut(attr) {
                attr.quarantined = Some(Quarantined {
                    name: name.clone(),
                    reason: reason.clone(),
                    ticket: ticket.clone(),
                    expires: expires.clone(),
                });
            }
        }
        Fact::NixChecked { ok, error, seconds } => {
            s.of_nix = Some(OfNix { ok: *ok, error: error.clone(), seconds: *seconds });
        }
        _ => {}
    }
}
