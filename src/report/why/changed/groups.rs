//! Causes that say the same, in however many derivations, with the attrs that they are the cause of.

use std::collections::BTreeMap;

use crate::event::{CauseKind, Text};
use crate::report::number::name_version;

use super::{Answer, Attr, Cause, textdiff};

/// Attrs with one cause.
#[derive(Debug)]
pub(super) struct Group<'a> {
    /// The nearest.
    pub(super) cause: &'a Cause,
    /// All derivations that say the same, the nearest first.
    pub(super) drvs: Vec<&'a (Text, Text)>,
    pub(super) attrs: Vec<&'a Attr>,
}

/// Those of the most attrs first, those of the same attrs together.
pub(super) fn groups<'a>(answer: &'a Answer, attrs: &[&'a Attr]) -> Vec<Group<'a>> {
    let mut by_text: BTreeMap<String, (Group<'a>, Vec<usize>)> = BTreeMap::new();
    let keys: BTreeMap<usize, Option<&str>> =
        answer.folds.iter().map(|(fold, drvs)| (*fold, one_package(drvs.iter()))).collect();
    for attr in attrs {
        for reached in &attr.causes {
            let Some(cause) = answer.causes.get(reached.cause) else { continue };
            // Where an attr has a cause of its own, its revision is none to speak of.
            if cause.kind == CauseKind::Revision {
                continue;
            }
            let key = match keys.get(&reached.fold) {
                Some(Some(package)) => signature(cause, package),
                _ => format!("/{}", reached.fold),
            };
            let empty = || (Group { cause, drvs: Vec::new(), attrs: Vec::new() }, Vec::new());
            let (group, folds) = by_text.entry(key).or_insert_with(empty);
            if !folds.contains(&reached.fold) {
                folds.push(reached.fold);
                group.drvs.extend(answer.folds.get(&reached.fold).into_iter().flatten());
            }
            if group.attrs.last().is_none_or(|known| known.attr != attr.attr) {
                group.attrs.push(attr);
            }
        }
    }
    let mut groups: Vec<Group> = by_text.into_values().map(|(group, _)| group).collect();
    groups.sort_by_cached_key(|group| {
        let names: Vec<&str> = group.attrs.iter().map(|attr| attr.attr.as_str()).collect();
        (std::cmp::Reverse(group.attrs.len()), group.attrs.first().map(|attr| attr.name.as_str()), names)
    });
    groups
}

/// The package that all of these are.
pub(super) fn one_package<'a>(drvs: impl Iterator<Item = &'a (Text, Text)>) -> Option<&'a str> {
    let mut packages = drvs.map(|(_, name)| crate::id::split_name(name_version(name)).0);
    let first = packages.next()?;
    packages.all(|other| other == first).then_some(first)
}

/// What two causes of one package share that say the same.
fn signature(cause: &Cause, package: &str) -> String {
    let own = cause.details.iter().filter(|detail| !detail.revision);
    let texts = own.map(|detail| {
        let sides = (detail.base.as_deref(), detail.head.as_deref());
        format!("{:?} {} {:?}", detail.kind, detail.name, textdiff::lines(sides.0, sides.1))
    });
    let place = if cause.kind == CauseKind::Unreadable { &*cause.head_drv } else { package };
    format!("{place} {}", texts.collect::<Vec<_>>().join("\n"))
}
