//! Why there was more to build, or something else.

use crate::event::Status;
use crate::id::Kind as AttrKind;
use crate::record::history::{AttrTimes, Entry, Origin};
use crate::report::number::{count, duration, plural, pname};
use crate::report::text::listed;

use super::Kind;
use super::usual::{Usual, built};

/// Columns for names in a text.
const NAMES: usize = 40;

/// The attrs that no run before had.
pub(super) fn new_attrs<'a>(now: &'a Entry, usual: &Usual<'_>) -> Vec<&'a AttrTimes> {
    now.attrs.iter().filter(|attr| !usual.has_attr(&attr.attr)).collect()
}

/// Which cause it is, and what it says.
pub(super) fn cause(now: &Entry, usual: &Usual<'_>) -> (Kind, String) {
    let attrs = new_attrs(now, usual);
    if is_colder(now, usual) {
        (Kind::ColderCache, colder_text(now, usual))
    } else if let Some(input) = changed_input(now, usual) {
        let hosts = now.attrs.iter().filter(|attr| attr.status == Some(Status::Built)).count();
        let built = || if hosts > 0 { format!(", {} built", attrs_noun(now, hosts)) } else { String::new() };
        let changed = origin(now, usual).map(|origin| format!(" changed {origin}"));
        let changed = changed.unwrap_or_else(built);
        (Kind::Drvs, format!("{}: input {input} (flake.lock){changed}", more(now, usual)))
    } else if !attrs.is_empty() {
        (Kind::Attrs, attrs_text(now, usual, &attrs))
    } else {
        let from = origin(now, usual).map(|origin| format!(": {origin}"));
        (Kind::Drvs, more(now, usual) + &from.unwrap_or_else(|| longest(now)))
    }
}

/// Where what was built began, if the run before did not begin there: `stdenv-linux under 38 hosts`. What lies under less
/// than half of what was built more is not why.
fn origin(now: &Entry, usual: &Usual<'_>) -> Option<String> {
    let known: Vec<&str> = usual.last()?.origins.iter().map(|origin| pname(&origin.name)).collect();
    let new: Vec<&Origin> = now.origins.iter().filter(|origin| !known.contains(&pname(&origin.name))).collect();
    let first = new.first()?;
    let more = now.counters.built as f64 - usual.median(|run| run.counters.built as f64).unwrap_or_default();
    let alike = new.iter().filter(|origin| origin.attrs == first.attrs);
    if alike.map(|origin| f64::from(origin.drvs) + 1.0).sum::<f64>() < more / 2.0 {
        return None;
    }
    Some(format!("{} under {}", first.name, attrs_noun(now, first.attrs as usize)))
}

/// `4 more hosts: web1 web2 web3 web4, 88 more drvs`.
pub(super) fn attrs_text(now: &Entry, usual: &Usual<'_>, attrs: &[&AttrTimes]) -> String {
    let hosts = attrs.iter().all(|attr| attr.kind == AttrKind::NixosConfigurations);
    let (one, many) = if hosts { ("more host", "more hosts") } else { ("more attr", "more attrs") };
    let names: Vec<&str> = attrs.iter().map(|attr| attr.name.as_str()).collect();
    format!("{}: {}, {}", plural(attrs.len(), one, many), listed(&names, " ", NAMES), more(now, usual))
}

/// Whether most of what was built more than usual is the same as before, and had only to be built because it was not found.
fn is_colder(now: &Entry, usual: &Usual<'_>) -> bool {
    let of = built(now).count() as f64;
    let more = of - usual.median(|run| built(run).count() as f64).unwrap_or_default();
    if of > 0.0 && (2.0 * usual.built_again(now) > more.max(1.0) || unasked(now, usual).is_some()) {
        return true;
    }
    // An attr with the same drv needs what it needed before, all the way down.
    let Some(last) = usual.last() else { return false };
    let built: Vec<&AttrTimes> = now.attrs.iter().filter(|attr| attr.status == Some(Status::Built)).collect();
    let same = |attr: &&&AttrTimes| {
        let known = last.attrs.iter().find(|known| known.attr == attr.attr);
        attr.drv.is_some() && known.is_some_and(|known| known.drv == attr.drv)
    };
    2 * built.iter().filter(same).count() > built.len()
}

/// A cache that the run before had and this one had not, or that answered next to nothing.
fn unasked(now: &Entry, usual: &Usual<'_>) -> Option<String> {
    let before = &usual.last()?.caches;
    let gone = before.iter().find(|cache| cache.present > 0 && now.caches.iter().all(|known| known.url != cache.url));
    let silent = now.caches.iter().find(|cache| cache.no_answer > cache.present + cache.absent);
    let gone = gone.map(|cache| format!("cache {} was not asked", cache.name));
    gone.or_else(|| silent.map(|cache| format!("cache {} did not answer", cache.name)))
}

/// `caches had 80.0% of 3,000 paths, usually 99.0%: 120 more drvs`.
fn colder_text(now: &Entry, usual: &Usual<'_>) -> String {
    let rate = |run: &Entry| run.counters.paths_hit as f64 / (run.counters.paths_asked.max(1)) as f64;
    let before = usual.median(rate).unwrap_or_default();
    let gone = unasked(now, usual).map(|gone| format!("{gone}; "));
    let paths = plural(now.counters.paths_asked as usize, "path", "paths");
    let (now_rate, before) = (100.0 * rate(now), 100.0 * before);
    let rates = format!("caches had {now_rate:.1}% of {paths}, usually {before:.1}%; ");
    gone.unwrap_or_default() + &rates + &more(now, usual) + ", the same as were there before"
}

/// An input that is not what it was in the run before: `nixpkgs 5f2a1c → 9c1d07`.
fn changed_input(now: &Entry, usual: &Usual<'_>) -> Option<String> {
    let last = usual.last()?;
    let changed = |(name, rev): (&String, &String)| {
        let before = last.inputs.get(name)?;
        (before != rev).then(|| format!("{name} {} → {}", short(before), short(rev)))
    };
    let all: Vec<String> = now.inputs.iter().filter_map(changed).collect();
    match all.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        [first, rest @ ..] => Some(format!("{first} and {} more", rest.len())),
    }
}

fn short(rev: &str) -> &str {
    rev.get(..6).unwrap_or(rev)
}

/// `1,204 more drvs`, `12 other drvs`.
fn more(now: &Entry, usual: &Usual<'_>) -> String {
    let built = |run: &Entry| run.counters.built as f64;
    let before = usual.median(built).unwrap_or_default();
    let by = (built(now) - before).round();
    match by {
        by if by >= 1.0 => format!("{} more {}", count(by as usize), if by < 2.0 { "drv" } else { "drvs" }),
        by if by <= -1.0 => format!("{} fewer {}", count(-by as usize), if by > -2.0 { "drv" } else { "drvs" }),
        _ => format!("{} as usual, but others", plural(now.counters.built as usize, "drv", "drvs")),
    }
}

/// The packages that took most: `: linux 4m20s, nginx 1m31s`.
fn longest(now: &Entry) -> String {
    let mut builds: Vec<_> = built(now).collect();
    builds.sort_by(|a, b| b.seconds().total_cmp(&a.seconds()));
    let named = builds.iter().take(2).map(|build| format!("{} {}", pname(&build.name), duration(build.seconds())));
    let named: Vec<String> = named.collect();
    if named.is_empty() { String::new() } else { format!(": {}", named.join(", ")) }
}

fn attrs_noun(now: &Entry, n: usize) -> String {
    let hosts = now.attrs.iter().filter(|attr| attr.status == Some(Status::Built));
    let hosts = hosts.into_iter().all(|attr| attr.kind == AttrKind::NixosConfigurations);
    if hosts { plural(n, "host", "hosts") } else { plural(n, "attr", "attrs") }
}
