//! Which attrs differ from the base only because they embed where they come from: the commit, its time, or the source
//! tree. Told by the derivations of both sides, in lock-step, with what names the two sources masked. Where a .drv is
//! not at hand, or the base cannot be located any more, an attr is not said to be such a one.
//!
//! That misses what is computed from the revision: a part of it, its hash, the day. Where somebody asks for it, attrs
//! that are left are evaluated once more on both sides with the same commit and time, and told by those derivations.
//! What does not evaluate so is not said to be such a one either.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::diff::lockstep::{Lockstep, Masks};
use crate::eval::what::Name;
use crate::eval::{Answer, EvalMsg, EvalOptions, Evaluator, FlakeOptions, Locked, Selection, git};
use crate::id::{AttrId, AttrPath, StorePath};
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
    match masks_of(&search, &base).await {
        Some(masks) => equal(masks, &store, pairs).await,
        None => Vec::new(),
    }
}

/// Whether the head can be evaluated with its commit and time masked.
pub(super) fn is_maskable(search: &Search) -> bool {
    search.head.is_maskable(&search.options.flake)
}

/// The attrs among these, of both sides, that differ no more when both are evaluated with the same commit and time.
pub(super) async fn only_masked(
    search: Arc<Search>,
    base: Arc<Base>,
    store: LocalStore,
    attrs: Vec<(AttrId, AttrPath)>,
) -> Vec<AttrId> {
    let Some(source) = search.locked(&base).await.filter(|source| source.is_maskable(&search.options.flake)) else {
        return Vec::new();
    };
    // One after the other, so that both keep to the memory.
    let mut before = masked(&search, &source, attrs.iter().map(|(_, path)| path)).await;
    let asked = attrs.iter().map(|(_, path)| path).filter(|path| before.contains_key(path));
    let mut after = masked(&search, &search.head, asked).await;
    let both = |(attr, path)| Some(Pair { attr, base: before.remove(&path)?, head: after.remove(&path)? });
    let pairs = attrs.into_iter().filter_map(both).collect();
    equal(masks(&source, &search.head, None), &store, pairs).await
}

/// The derivations of attrs of a masked source, as far as they have one.
async fn masked<'a>(
    search: &Search,
    source: &Locked,
    paths: impl Iterator<Item = &'a AttrPath>,
) -> BTreeMap<AttrPath, StorePath> {
    let name = |path: &AttrPath| Name { text: path.to_string(), path: path.clone(), outputs: None };
    let selection = Selection { names: paths.map(name).collect(), ..Selection::default() };
    let mut drvs = BTreeMap::new();
    if selection.names.is_empty() {
        return drvs;
    }
    let flake = FlakeOptions { reference: source.locked_ref.clone(), masked: true, ..search.options.flake.clone() };
    let options = EvalOptions { flake, selection, ..search.options.clone() };
    let mut evaluator = Evaluator::start(options, source.clone(), None);
    let mut listed = Vec::new();
    while let Some(message) = evaluator.next().await {
        match message {
            EvalMsg::Listed(attrs) => listed = attrs,
            // Nothing is built of what nobody wants: the attr fails here.
            EvalMsg::Import(import) => drop(import),
            EvalMsg::Ended { attr, answer: Answer::Drv(drv), ack, .. } => {
                // What cannot be held may be gone when it is read: then nothing is said of it.
                let _ = search.roots.lock().await.hold(std::slice::from_ref(&drv.drv)).await;
                drop(ack);
                if let Some(listed) = listed.get(attr.index()) {
                    drvs.insert(listed.path.clone(), drv.drv);
                }
            }
            EvalMsg::Fatal(error) => tracing::debug!(%error, "cannot evaluate with a masked revision"),
            _ => {}
        }
    }
    drvs
}

/// The attrs of these pairs that are equal under masks.
async fn equal(masks: Masks, store: &LocalStore, pairs: Vec<Pair>) -> Vec<AttrId> {
    let mut lockstep = Lockstep::new(masks);
    for pair in &pairs {
        lockstep.compare(&pair.base, &pair.head);
    }
    changed::walk(store, &mut lockstep).await;
    let mut same = |pair: &Pair| lockstep.is_equal_but_for_masks(&pair.base, &pair.head) == Some(true);
    pairs.into_iter().filter(|pair| same(pair)).map(|pair| pair.attr).collect()
}

/// What names the two sources; `None` if the base cannot be located.
pub(super) async fn masks_of(search: &Search, base: &Base) -> Option<Masks> {
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
