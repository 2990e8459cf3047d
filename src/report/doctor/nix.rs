//! Rules about Nix, its store and what builds.

use super::Sheet;
use super::facts::{Checked, Facts, Untrusted};

/// Nothing goes without these.
const NEEDED: &str = "without it nothing is evaluated or built";

/// The nix commands.
pub(super) fn nix(facts: &Facts, sheet: &mut Sheet) {
    let nix = match &facts.nix {
        Checked::Skipped => return,
        Checked::Silent(seconds) => {
            sheet.area("nix", "no answer");
            let message = format!("nix gave no answer within {seconds} s");
            return sheet.error("nix", message, NEEDED, "nix --version    shows whether it answers");
        }
        Checked::Failed(trouble) => {
            sheet.area("nix", "not usable");
            return sheet.error("nix", &trouble.message, NEEDED, &trouble.fix);
        }
        Checked::Found(nix) => nix,
    };
    let tested = if nix.untested.is_some() { "untested" } else { "tested with" };
    sheet.area("nix", format!("{}, {tested}", nix.version));
    if let Some(untested) = &nix.untested {
        let why = "it may say or do something that drover does not expect";
        sheet.warning("nix", untested, why, "nix upgrade-nix    or put a tested one first on PATH");
    }
    let missing: Vec<&str> =
        ["nix-command", "flakes"].into_iter().filter(|name| !nix.features.iter().any(|on| on == name)).collect();
    if !missing.is_empty() {
        let noun = if missing.len() == 1 { "experimental feature is" } else { "experimental features are" };
        let message = format!("the {noun} off: {}", missing.join(", "));
        let why = "drover turns them on for itself; the nix commands that it gives you to type fail";
        sheet.warning("nix", message, why, facts.conf("extra-experimental-features", &missing.join(" ")));
    }
}

/// The store in force.
pub(super) fn store(facts: &Facts, sheet: &mut Sheet) {
    let store = match &facts.store {
        Checked::Skipped => return,
        Checked::Silent(seconds) => {
            sheet.area("store", "no answer");
            let message = format!("the store gave no answer within {seconds} s");
            return sheet.error("store", message, NEEDED, "nix store info    shows whether Nix itself can use it");
        }
        Checked::Failed(trouble) => {
            sheet.area("store", "not usable");
            if let Some(user) = &facts.hung_up_on {
                let message = format!("the daemon hangs up on {user}: {}", trouble.message);
                return sheet.error("store", message, NEEDED, facts.conf("extra-allowed-users", user));
            }
            return sheet.error("store", &trouble.message, NEEDED, &trouble.fix);
        }
        Checked::Found(store) => store,
    };
    let how = match (store.daemon, &store.untrusted) {
        (_, Some(untrusted)) => format!("of a daemon that does not trust {}", untrusted.user),
        (true, None) => "of a daemon that trusts this user".to_owned(),
        (false, None) => "written by this user".to_owned(),
    };
    let at = if matches!(store.uri.as_str(), "auto" | "daemon" | "local") { &store.dir } else { &store.uri };
    sheet.area("store", format!("{at}, {how}"));
    if let Some(untrusted) = &store.untrusted {
        not_trusted(facts, untrusted, sheet);
    }
}

/// What a daemon does not take from a user whom it does not trust. Being that user is no fault by itself.
fn not_trusted(facts: &Facts, untrusted: &Untrusted, sheet: &mut Sheet) {
    let trust = facts.conf("extra-trusted-users", &untrusted.user);
    for cache in &untrusted.caches {
        let message = format!("the daemon ignores the cache {cache}: it does not trust {}", untrusted.user);
        let why = "drover downloads itself what a key of the daemon has signed there, and the rest is built again";
        sheet.warning("store", message, why, facts.conf("extra-trusted-substituters", cache));
    }
    for key in &untrusted.keys {
        let name = key.split(':').next().unwrap_or_default();
        let message = format!("the daemon ignores the public key {name}: it does not trust {}", untrusted.user);
        let why = "what that key has signed is refused and built again";
        sheet.warning("store", message, why, facts.conf("extra-trusted-public-keys", key));
    }
    let message = format!("{} is no trusted user of the daemon", untrusted.user);
    let why = "results of other builders are taken only if signed by a key that the daemon trusts. A trusted user is as \
               good as root";
    sheet.note("store", message, why, trust);
}
