//! What `drover why` answers: what [`changed`] against a base, or why no cache has it ([`missing`]).

pub mod changed;
pub mod missing;
mod textdiff;

use super::number::name_version;

/// Drvs that a chain shows at either end.
const ENDS: usize = 3;

/// `web1 → unit-nginx.service → nginx-1.29.4`; a long one shows its ends.
#[must_use]
pub fn chain<S: AsRef<str>>(names: &[S]) -> String {
    let names: Vec<&str> = names.iter().map(|name| name_version(name.as_ref())).collect();
    if names.len() <= 2 * ENDS {
        return names.join(" → ");
    }
    let (first, last) = (&names[..ENDS - 1], &names[names.len() - ENDS..]);
    format!("{} → … {} more … → {}", first.join(" → "), names.len() - first.len() - last.len(), last.join(" → "))
}
