//! Rules about reaching caches: answers, logins, clocks.

use super::facts::{Cache, Down, Facts, Login, NetrcFile, Reach};
use super::{Severity, Sheet};
use crate::process::quote;
use crate::report::number::duration;

/// Seconds by which clocks may differ.
const SKEW: u64 = 60;

/// All caches.
pub(super) fn caches(facts: &Facts, sheet: &mut Sheet) {
    let names: Vec<String> = facts.caches.iter().map(summary).collect();
    let summary = match (facts.offline, names.is_empty()) {
        (true, _) => "not asked (--offline)".to_owned(),
        (false, true) => "none".to_owned(),
        (false, false) => names.join(" · "),
    };
    sheet.area("caches", summary);
    if facts.nix.found().is_some_and(|nix| !nix.substitute) {
        let why = "nothing is fetched from Nix's caches, so everything is built";
        sheet.warning("caches", "substitute is false", why, facts.conf("substitute", "true"));
    }
    for cache in &facts.caches {
        reach(facts, cache, sheet);
    }
    netrc(facts, sheet);
}

fn summary(cache: &Cache) -> String {
    match cache.reach {
        Reach::Ok if cache.host.is_some() => format!("{} {} ms", cache.name, cache.millis),
        Reach::Ok => cache.name.clone(),
        Reach::New => format!("{} (made by the first push)", cache.name),
        _ => format!("{}: no", cache.name),
    }
}

/// A cache that is pushed to has to work; one that is only read from is left out if it does not.
fn weight(cache: &Cache) -> (Severity, &'static str) {
    match (cache.push, cache.optional) {
        (true, false) => (Severity::Error, "a run that pushes there ends before anything is built"),
        (true, true) => (Severity::Warning, "nothing is pushed there"),
        (false, _) => (Severity::Warning, "what only this cache has is built again"),
    }
}

fn reach(facts: &Facts, cache: &Cache, sheet: &mut Sheet) {
    let (name, url) = (&cache.name, &cache.url);
    let info = quote(&format!("{url}/nix-cache-info"));
    let (message, fix) = match &cache.reach {
        Reach::Ok | Reach::New | Reach::NotAsked => return,
        Reach::Down(down) => {
            (format!("cache {name} gives no answer: {}", why_down(cache, down)), mend_down(cache, down))
        }
        Reach::Status(code) => (format!("cache {name} answers with HTTP status {code}"), format!("curl -v {info}")),
        Reach::Denied(status) => denied(facts, cache, *status),
        Reach::NotACache => {
            let message = format!("{url} is no binary cache: it has no nix-cache-info");
            let fix = match cache.host {
                Some(_) => format!("curl -v {info}    check the URL"),
                None => format!("ls -l {}    check the path", quote(url.trim_start_matches("file://"))),
            };
            (message, fix)
        }
        Reach::OtherStore { theirs, ours } => {
            (format!("cache {name} is for the store {theirs}, this store is {ours}"), leave_out(facts, cache))
        }
        Reach::Unusable(trouble) => (trouble.message.clone(), leave_out(facts, cache)),
    };
    let (severity, why) = weight(cache);
    sheet.add(severity, "caches", [message, why.to_owned(), fix]);
}

fn why_down(cache: &Cache, down: &Down) -> String {
    match down {
        Down::NoSuchHost => format!("there is no host {}", cache.host.as_deref().unwrap_or_default()),
        Down::Refused => "connection refused".to_owned(),
        Down::TimedOut(seconds) => format!("nothing within {seconds} s"),
        Down::Tls(why) => format!("no safe connection: {why}"),
        Down::Other(why) => why.clone(),
    }
}

fn mend_down(cache: &Cache, down: &Down) -> String {
    let host = quote(cache.host.as_deref().unwrap_or_default());
    let curl = format!("curl -v {}", quote(&format!("{}/nix-cache-info", cache.url)));
    match down {
        Down::NoSuchHost => format!("getent hosts {host}    check the name, and the DNS of this machine"),
        Down::Tls(_) => format!("{curl}    own certificates: export NIX_SSL_CERT_FILE=FILE"),
        Down::Other(_) if cache.host.is_none() => format!("ls -ld {}", quote(cache.url.trim_start_matches("file://"))),
        Down::Refused | Down::TimedOut(_) | Down::Other(_) => curl,
    }
}

/// How to do without a cache.
fn leave_out(facts: &Facts, cache: &Cache) -> String {
    match &cache.table {
        Some(table) => format!("${{EDITOR:-vi}} drover.toml    take out [cache.{table}]"),
        None if cache.push => "drover run --no-push".to_owned(),
        None => format!("${{EDITOR:-vi}} {}    take {} out of substituters", quote(&facts.nix_conf), cache.url),
    }
}

/// Where the URL with the login is.
fn other_login(facts: &Facts, cache: &Cache) -> String {
    match &cache.table {
        Some(table) => format!("${{EDITOR:-vi}} drover.toml    another login in the url of [cache.{table}]"),
        None if cache.push => "drover run --push-to URL    with another login".to_owned(),
        None => format!("${{EDITOR:-vi}} {}    another login in its URL", quote(&facts.nix_conf)),
    }
}

/// A refused login: which one was sent, or why there was none.
fn denied(facts: &Facts, cache: &Cache, status: u16) -> (String, String) {
    let host = cache.host.as_deref().unwrap_or_default();
    let file = quote(&facts.netrc.file.to_string_lossy());
    let entry = format!("machine {host} login USER password TOKEN");
    let (what, fix) = match (&cache.login, &facts.netrc.state) {
        (Login::Url, _) => ("the login in its URL".to_owned(), other_login(facts, cache)),
        (Login::TokenFile(file), _) => (
            format!("the token in {}", file.display()),
            format!("${{EDITOR:-vi}} {}    a token that may", quote(&file.to_string_lossy())),
        ),
        (Login::Tools(place), _) => {
            (format!("this: {place}"), format!("another login there, or one that may read {}", quote(&cache.url)))
        }
        (Login::Netrc, _) => (
            format!("the login for {host} in {}", facts.netrc.file.display()),
            format!("${{EDITOR:-vi}} {file}    a new password in the line of {host}"),
        ),
        (Login::None, NetrcFile::Missing) => (
            format!("a request without a login ({} does not exist)", facts.netrc.file.display()),
            format!("(umask 077; echo '{entry}' > {file})"),
        ),
        (Login::None, NetrcFile::Unreadable(why)) => (
            format!("a request without a login: cannot read {}: {why}", facts.netrc.file.display()),
            format!("sudo chown \"$USER\" {file}"),
        ),
        (Login::None, NetrcFile::Found { .. }) => (
            format!("a request without a login ({} has none for {host})", facts.netrc.file.display()),
            format!("echo '{entry}' >> {file}"),
        ),
    };
    (format!("cache {} refuses {what} (HTTP status {status})", cache.name), fix)
}

/// The netrc file by itself.
fn netrc(facts: &Facts, sheet: &mut Sheet) {
    let (shown, file) = (facts.netrc.file.display(), quote(&facts.netrc.file.to_string_lossy()));
    match &facts.netrc.state {
        NetrcFile::Found { world_readable: true } => {
            let why = "every user of this machine can read the logins in it";
            sheet.warning("caches", format!("everybody may read {shown}"), why, format!("chmod o-rwx {file}"));
        }
        NetrcFile::Missing if facts.netrc.asked_for => {
            let message = format!("netrc-file names {shown}, which does not exist");
            let why = "caches that want a login get none";
            let fix = format!("(umask 077; echo 'machine HOST login USER password TOKEN' > {file})");
            sheet.warning("caches", message, why, fix);
        }
        NetrcFile::Unreadable(why) if facts.netrc.asked_for => {
            let message = format!("cannot read {shown}: {why}");
            let why = "drover asks caches without the logins in it";
            sheet.warning("caches", message, why, format!("sudo chown \"$USER\" {file}"));
        }
        _ => {}
    }
}

/// The clock here, as the caches see it. Where one of them agrees with it, the others are wrong and not we.
pub(super) fn clock(facts: &Facts, sheet: &mut Sheet) {
    let skews = facts.caches.iter().filter_map(|cache| Some((cache.skew?, &cache.name)));
    let Some((skew, name)) = skews.min_by_key(|(skew, _)| skew.unsigned_abs()) else { return };
    if skew.unsigned_abs() <= SKEW {
        return sheet.area("clock", format!("in step with {name}"));
    }
    let off = duration(skew.unsigned_abs() as f64);
    let side = if skew > 0 { "behind" } else { "ahead of" };
    sheet.area("clock", "off");
    let message = format!("the clock here is {off} {side} that of {name}");
    let why = "logins and certificates look expired or not yet valid, and times in records are wrong";
    let fix = match facts.linux {
        true => "sudo timedatectl set-ntp true    compare: date -u",
        false => "sudo sntp -sS time.apple.com    compare: date -u",
    };
    sheet.warning("clock", message, why, fix);
}
