//! Which attrs differ from the base only because they embed where they come from: the commit, its time, or the source
//! tree. Told by the derivations of both sides, in lock-step, with what names the two sources masked. Where a .drv is
//! not at hand, or the base cannot be located any more, an attr is not said to be such a one.

use std::sync::Arc;

use crate::diff::lockstep::{Lockstep, Masks};
use crate::eval::{Locked, git};
use crate::id::{AttrId, StorePath};
use crate::store::local::LocalStore;

use super::base::{Base, Search};
use super::changed;

/// How short people make a commit: Nix itself 7, others up to 12.
const SHORT: std::ops::RangeInclusive<usize> = 7..=12;

/// Shorter texts stand in many places by chance.
const LEAST: usize = 5;

/// Two derivations of one attr.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) attr: AttrId,
    pub(super) base: StorePath,
    pub(super) head: StorePath,
}

/// The attrs of these pairs that differ only by the revision. `store` is that of the evaluators.
pub(super) async fn only(search: Arc<Search>, base: Arc<Base>, store: LocalStore, pairs: Vec<Pair>) -> Vec<AttrId> {
    let Some(masks) = masks_of(&search, &base).await else { return Vec::new() };
    let mut lockstep = Lockstep::new(masks);
    for pair in &pairs {
        lockstep.compare(&pair.base, &pair.head);
    }
    changed::walk(&store, &mut lockstep).await;
    let mut same = |pair: &Pair| lockstep.is_equal_but_for_masks(&pair.base, &pair.head) == Some(true);
    pairs.into_iter().filter(|pair| same(pair)).map(|pair| pair.attr).collect()
}

/// What names the two sources; `None` if the base cannot be located.
async fn masks_of(search: &Search, base: &Base) -> Option<Masks> {
    let source = search.locked(base).await?;
    let head = &search.head;
    let dirty = match (&head.rev, head.work_tree()) {
        (None, Some(dir)) if head.kind == "git" => git::commit_of(&search.options.nix, &dir, "HEAD").await,
        _ => None,
    };
    Some(masks(&source, head, dirty.as_deref()))
}

/// What two sources may differ in without meaning anything. `dirty`: the commit that a head with changes is based on.
pub(super) fn masks(base: &Locked, head: &Locked, dirty: Option<&str>) -> Masks {
    let pairs = texts(base, None).into_iter().zip(texts(head, dirty));
    let told = |(base, head): (Option<String>, Option<String>)| {
        let (base, head) = (base?, head?);
        (base != head && base.len().min(head.len()) >= LEAST).then_some((base, head))
    };
    let sources = vec![(base.store_path.clone(), head.store_path.clone())];
    Masks {
        texts: pairs.filter_map(told).collect(),
        sources: sources.into_iter().filter(|(base, head)| base != head).collect(),
    }
}

/// What a derivation may embed of a source, always in the same order. `dirty`: the commit of a tree with changes.
fn texts(source: &Locked, dirty: Option<&str>) -> Vec<Option<String>> {
    let rev = source.rev.as_deref();
    let long = rev.map(str::to_owned).or_else(|| Some(format!("{}-dirty", dirty?)));
    let date = source.last_modified.and_then(date);
    let mut texts = vec![
        long,
        Some(source.nar_hash.clone()),
        source.rev_count.map(|count| count.to_string()),
        source.last_modified.map(|time| time.to_string()),
        date.as_ref().and_then(|date| date.get(..8)).map(str::to_owned),
        date,
    ];
    texts.extend(SHORT.map(|length| match (rev, dirty) {
        (Some(rev), _) => rev.get(..length).map(str::to_owned),
        (None, Some(dirty)) if length == *SHORT.start() => Some(format!("{}-dirty", dirty.get(..length)?)),
        (None, _) => None,
    }));
    texts
}

/// `lastModifiedDate`: `20260101000000`, in UTC.
fn date(seconds: u64) -> Option<String> {
    let time = jiff::Timestamp::from_second(i64::try_from(seconds).ok()?).ok()?;
    Some(time.strftime("%Y%m%d%H%M%S").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_nix_does() {
        assert_eq!(date(1_767_225_600).as_deref(), Some("20260101000000"));
        assert_eq!(date(u64::MAX), None);
    }
}
