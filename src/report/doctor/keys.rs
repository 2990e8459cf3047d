//! Rules about keys: those that signatures are held against, and those that sign what is pushed.

use super::facts::{Cache, Facts, KeyFile, KeyFileState, Reach, Signed, Write};
use super::{Severity, Sheet};
use crate::process::quote;
use crate::report::number::plural;

/// The key of Nix's own cache, as <https://nixos.org> says it.
const NIXOS: &str = "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=";

/// Keys that signatures are held against.
pub(super) fn keys(facts: &Facts, sheet: &mut Sheet) {
    if facts.keys.is_empty() && facts.caches.is_empty() {
        return;
    }
    let good: Vec<&str> = facts.keys.iter().filter(|key| key.bad.is_none()).map(|key| key.key.as_str()).collect();
    let tried: Vec<&str> =
        facts.caches.iter().filter(|cache| cache.signed == Signed::Trusted).map(|cache| cache.name.as_str()).collect();
    let tried = if tried.is_empty() { String::new() } else { format!(", tried on {}", tried.join(", ")) };
    sheet.area("keys", format!("{} trusted{tried}", plural(good.len(), "key", "keys")));
    for key in &facts.keys {
        let Some(bad) = &key.bad else { continue };
        let shown = key.key.split(':').next().unwrap_or_default();
        let (place, fix) = match &key.table {
            Some(table) => (
                format!("[cache.{table}] of drover.toml"),
                format!("public-keys = [\"NAME:BASE64\"]    below [cache.{table}] in drover.toml"),
            ),
            None => (
                "trusted-public-keys".to_owned(),
                format!("${{EDITOR:-vi}} {}    a key reads NAME:BASE64", quote(&facts.nix_conf)),
            ),
        };
        let message = format!("the public key '{shown}' in {place} is none: {bad}");
        sheet.error("keys", message, "no cache can be opened as long as it is there", fix);
    }
    let strict = facts.nix.found().is_none_or(|nix| nix.require_sigs);
    for cache in facts.caches.iter().filter(|cache| cache.pull && !cache.trusted && strict) {
        untrusted(facts, cache, &good, sheet);
    }
}

/// A cache of which nothing, or not all, can be taken.
fn untrusted(facts: &Facts, cache: &Cache, good: &[&str], sheet: &mut Sheet) {
    let name = &cache.name;
    let why = "what it has is not taken and built again";
    if cache.host.as_deref() == Some("cache.nixos.org") && !good.contains(&NIXOS) {
        let message = format!("no key for {name} is trusted");
        return sheet.warning("keys", message, why, facts.conf("extra-trusted-public-keys", NIXOS));
    }
    match &cache.signed {
        Signed::Untrusted { example, keys } if keys.is_empty() => {
            let message = format!("{name} has {example} without a signature");
            let file = quote("FILE");
            let fix = format!("nix store sign --store {} -k {file} --all    by who owns the cache", quote(&cache.url));
            sheet.warning("keys", message, why, fix);
        }
        Signed::Untrusted { example, keys } => {
            let by = keys.join(", ");
            let message = format!("{name} has {example}, signed by {by}: no such key is trusted");
            sheet.warning("keys", message, why, trust(facts, cache, &keys[0]));
        }
        Signed::Trusted => {}
        Signed::Unknown if good.is_empty() && cache.public_keys.is_empty() && cache.reach == Reach::Ok => {
            let message = format!("no key at all is trusted, so nothing of {name} can be taken");
            sheet.warning("keys", message, why, trust(facts, cache, "NAME"));
        }
        Signed::Unknown => {}
    }
}

/// What makes a key trusted. Where the daemon does not trust us, drover.toml is the wrong place for it.
fn trust(facts: &Facts, cache: &Cache, name: &str) -> String {
    let known = cache.public_keys.iter().find(|key| key.split(':').next() == Some(name));
    let key = known.cloned().unwrap_or_else(|| format!("{name}:BASE64"));
    let untrusted = facts.store.found().is_some_and(|store| store.untrusted.is_some());
    match &cache.table {
        Some(table) if !untrusted && known.is_none() => {
            format!("public-keys = [\"{key}\"]    below [cache.{table}] in drover.toml")
        }
        _ => facts.conf("extra-trusted-public-keys", &key),
    }
}

/// Caches that are pushed to: writing and signing.
pub(super) fn push(facts: &Facts, sheet: &mut Sheet) {
    let pushed: Vec<&Cache> = facts.caches.iter().filter(|cache| cache.push).collect();
    if pushed.is_empty() {
        return;
    }
    sheet.area("push", pushed.iter().map(|cache| summary(cache)).collect::<Vec<_>>().join(" · "));
    for cache in pushed {
        if let Write::No(trouble) = &cache.write {
            let (severity, why) = match cache.optional {
                true => (Severity::Warning, "nothing is pushed there"),
                false => (Severity::Error, "a run that pushes there ends before anything is built"),
            };
            sheet.add(severity, "push", [trouble.message.clone(), why.to_owned(), trouble.fix.clone()]);
        }
        for file in &cache.key_files {
            key_file(facts, cache, file, sheet);
        }
        if cache.key_files.is_empty() && !matches!(cache.reach, Reach::Unusable(_)) {
            let message = format!("what is pushed to {} is not signed", cache.name);
            let why = "nobody takes it from there who does not switch signatures off";
            sheet.warning("push", message, why, make_key(cache));
        }
    }
}

fn summary(cache: &Cache) -> String {
    let signs = cache.key_files.iter().find_map(|file| match &file.state {
        KeyFileState::Ok { public } => Some(format!(", signed by {}", public.split(':').next().unwrap_or_default())),
        _ => None,
    });
    let write = match cache.write {
        Write::Ok => "can be written",
        Write::No(_) => "cannot be written",
        Write::Unknown => "writing not tried",
    };
    format!("{} {write}{}", cache.name, signs.unwrap_or_default())
}

/// A new key, and where to name it.
fn make_key(cache: &Cache) -> String {
    let make = format!("(umask 077; nix key generate-secret --key-name {}-1 > FILE)", quote(&cache.name));
    match &cache.table {
        Some(table) => format!("{make}    then secret-key = \"FILE\" below [cache.{table}] in drover.toml"),
        None => format!("{make}    then --push-to '{}?secret-key=FILE'", cache.url),
    }
}

fn key_file(facts: &Facts, cache: &Cache, file: &KeyFile, sheet: &mut Sheet) {
    let (shown, path) = (file.file.display(), quote(&file.file.to_string_lossy()));
    let public = match &file.state {
        KeyFileState::Ok { public } => public,
        other => {
            // A key that is there must not be overwritten.
            let (why, fix) = match other {
                KeyFileState::Missing => ("there is no such file", make_key(cache).replace("FILE", &path)),
                KeyFileState::Unreadable(why) => (why.as_str(), format!("sudo chown \"$USER\" {path}")),
                KeyFileState::Bad(why) => (why.as_str(), make_key(cache)),
                KeyFileState::Ok { .. } => return,
            };
            let message = format!("cannot sign for {} with the key {shown}: {why}", cache.name);
            let effect = "a run that pushes there ends before anything is built";
            return sheet.error("push", message, effect, fix);
        }
    };
    if file.world_readable {
        let why = "every user of this machine can sign in your name";
        sheet.warning(
            "push",
            format!("everybody may read the secret key {shown}"),
            why,
            format!("chmod go-rwx {path}"),
        );
    }
    let name = public.split(':').next().unwrap_or_default();
    let same_name = |key: &str| key.split(':').next() == Some(name);
    let claims = &cache.public_keys;
    let trusted = facts.keys.iter().filter(|key| key.table.is_none()).map(|key| key.key.as_str());
    let trusted: Vec<&str> = trusted.chain(claims.iter().map(String::as_str)).collect();
    let line = match &cache.table {
        Some(table) => format!("public-keys = [\"{public}\"]    below [cache.{table}] in drover.toml"),
        None => facts.conf("extra-trusted-public-keys", public),
    };
    if trusted.contains(&public.as_str()) {
        return;
    }
    if let Some(other) = trusted.iter().find(|key| same_name(key)) {
        let place = if claims.iter().any(|key| key == other) { "public-keys" } else { "trusted-public-keys" };
        let message = format!("{shown} is not the key {name} that {place} names: its public half is another one");
        let why = "all that is pushed is refused as forged by who trusts that key";
        sheet.error("push", message, why, line);
    } else if !claims.is_empty() {
        let message = format!("{} is signed by {name}, which its public-keys do not name", cache.name);
        sheet.warning("push", message, "who trusts only those keys takes nothing from there", line);
    } else {
        let message = format!("this machine does not trust {name}, the key that signs for {}", cache.name);
        sheet.warning("push", message, "it pushes what it would not fetch again itself", line);
    }
}
