//! Attrs put together: failures by what caused them, and names by kind.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{Class, DrvOutcome, Evaluated, Failure, Status, Text};
use crate::id::{AttrId, DrvId, Kind, System};

use super::{Attempt, Attr, Summary, is_cancel};

/// One failure with all the attrs that die of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureGroup {
    /// What it is.
    pub cause: Cause,
    /// Who dies of it, in the order in which they were listed.
    pub attrs: Vec<AttrId>,
}

/// What makes attrs fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// A drv whose own attempts failed.
    Drv(DrvId),
    /// No builder takes these drvs, which ask for the same.
    NoBuilder(Vec<DrvId>),
    /// An evaluation error; attrs with the same text and position share one.
    Eval(Failure),
    /// Something that no drv says.
    Other(Text),
}

/// What a drv asks of a builder.
type Asked<'a> = (&'a System, Vec<&'a Text>);

impl Summary {
    /// All failures: drvs first, those that hit most attrs first, then evaluation errors, then the rest. What only
    /// was stopped did not fail.
    #[must_use]
    pub fn failures(&self) -> Vec<FailureGroup> {
        let mut drvs: BTreeMap<DrvId, Vec<AttrId>> = BTreeMap::new();
        let mut others: Vec<FailureGroup> = Vec::new();
        for (id, drv) in &self.drvs {
            if matches!(&drv.ended, Some((_, DrvOutcome::Failed(failure))) if !is_cancel(failure)) {
                drvs.insert(*id, Vec::new());
            }
        }
        for (id, attr) in &self.attrs {
            match self.status(attr) {
                Some(Status::EvalFailed) => {
                    // It imports from a drv that failed.
                    let root = attr.ended.as_ref().and_then(|end| end.root);
                    if let Some(attrs) = root.and_then(|root| drvs.get_mut(&root)) {
                        attrs.push(*id);
                        continue;
                    }
                    let cause = match &attr.evaluated {
                        Some((_, Evaluated::Failed(failure))) => Cause::Eval(failure.clone()),
                        _ => Cause::Other(reason(attr)),
                    };
                    add(&mut others, cause, *id);
                }
                Some(Status::Failed) => match self.root_of_attr(attr) {
                    Some(root) => drvs.entry(root).or_default().push(*id),
                    None if self.cancelled.is_some() => {}
                    None => add(&mut others, Cause::Other(reason(attr)), *id),
                },
                _ => {}
            }
        }
        self.name_needers(&mut drvs);
        let mut groups = self.without_builder(&mut drvs);
        groups.extend(drvs.into_iter().map(|(drv, attrs)| FailureGroup { cause: Cause::Drv(drv), attrs }));
        groups.sort_by_key(|group| std::cmp::Reverse(group.attrs.len()));
        others.sort_by_key(|group| matches!(group.cause, Cause::Other(_)));
        groups.extend(others);
        groups
    }

    /// The drv whose own failure makes an attr fail, if one does.
    #[must_use]
    pub fn root_of_attr(&self, attr: &Attr) -> Option<DrvId> {
        let said = attr.ended.as_ref().and_then(|end| end.root);
        said.or_else(|| self.root_of(attr.planned.as_ref()?.drv?)).filter(|root| self.drvs.contains_key(root))
    }

    /// What a drv itself failed of.
    #[must_use]
    pub fn failure_of(&self, drv: DrvId) -> Option<&Failure> {
        match &self.drvs.get(&drv)?.ended {
            Some((_, DrvOutcome::Failed(failure))) => Some(failure),
            _ => None,
        }
    }

    /// Where to look for a drv that failed: where the one of these attrs is defined whose own drv it is, else the first
    /// that asked for it.
    #[must_use]
    pub fn position_of(&self, drv: DrvId, attrs: &[AttrId]) -> Option<&Text> {
        let placed = || attrs.iter().filter_map(|attr| self.attrs.get(attr)).filter(|attr| attr.position().is_some());
        let own = |attr: &&Attr| attr.planned.as_ref().is_some_and(|planned| planned.drv == Some(drv));
        placed().find(own).or_else(|| placed().next())?.position()
    }

    /// Takes out the drvs that no builder takes: those that ask for the same are one failure.
    fn without_builder(&self, drvs: &mut BTreeMap<DrvId, Vec<AttrId>>) -> Vec<FailureGroup> {
        let mut groups: BTreeMap<Asked<'_>, (Vec<DrvId>, BTreeSet<AttrId>)> = BTreeMap::new();
        drvs.retain(|id, attrs| {
            let Some(drv) = self.drvs.get(id).filter(|_| self.has_no_builder(*id)) else { return true };
            let mut features: Vec<&Text> = drv.features.iter().collect();
            features.sort_unstable();
            let group = groups.entry((&drv.system, features)).or_default();
            group.0.push(*id);
            group.1.extend(std::mem::take(attrs));
            false
        });
        let group = |(drvs, attrs): (Vec<DrvId>, BTreeSet<AttrId>)| FailureGroup {
            cause: Cause::NoBuilder(drvs),
            attrs: attrs.into_iter().collect(),
        };
        groups.into_values().map(group).collect()
    }

    /// `no builder for aarch64-linux with kvm`, of a drv that failed of that.
    #[must_use]
    pub fn no_builder_for(&self, id: DrvId) -> Option<String> {
        let drv = self.drvs.get(&id).filter(|_| self.has_no_builder(id))?;
        Some(format!("no builder for {}", drv.asks()))
    }

    /// Whether a drv failed because no builder takes it, and not because the one that should have refused it.
    fn has_no_builder(&self, id: DrvId) -> bool {
        let ended = self.drvs.get(&id).and_then(|drv| drv.ended.as_ref());
        let none = matches!(ended, Some((_, DrvOutcome::Failed(failure))) if failure.class == Class::NoBuilder);
        let refused = self.last_attempt(id).and_then(Attempt::failure).is_some_and(|f| f.class == Class::NoBuilder);
        none && !refused
    }

    /// An attr ends with the first of its drvs that fails. Failed drvs that no attr ended with get the failed attrs that
    /// need them too: these will not be built before this is mended.
    fn name_needers(&self, drvs: &mut BTreeMap<DrvId, Vec<AttrId>>) {
        let orphans: BTreeSet<DrvId> = drvs.iter().filter(|(_, attrs)| attrs.is_empty()).map(|(drv, _)| *drv).collect();
        if orphans.is_empty() {
            return;
        }
        for (id, attr) in &self.attrs {
            if self.status(attr) != Some(Status::Failed) {
                continue;
            }
            let mut seen: BTreeSet<DrvId> = BTreeSet::new();
            let mut todo: Vec<DrvId> = attr.planned.as_ref().and_then(|planned| planned.drv).into_iter().collect();
            while let Some(drv) = todo.pop() {
                if !seen.insert(drv) {
                    continue;
                }
                if orphans.contains(&drv) {
                    drvs.entry(drv).or_default().push(*id);
                }
                todo.extend(self.drvs.get(&drv).into_iter().flat_map(|drv| &drv.inputs));
            }
        }
    }

    /// How many attrs of each kind, in the order in which kinds are shown.
    #[must_use]
    pub fn kinds(&self, mut which: impl FnMut(AttrId) -> bool) -> Vec<(Kind, usize)> {
        let mut counts: BTreeMap<Kind, usize> = BTreeMap::new();
        for (id, attr) in &self.attrs {
            if which(*id) {
                *counts.entry(attr.kind).or_default() += 1;
            }
        }
        counts.into_iter().collect()
    }

    /// Names of attrs as people say them.
    #[must_use]
    pub fn names(&self, attrs: &[AttrId]) -> Vec<String> {
        attrs.iter().map(|attr| self.attr_name(*attr)).collect()
    }
}

fn reason(attr: &Attr) -> Text {
    let said = attr.ended.as_ref().and_then(|end| end.reason.clone());
    said.unwrap_or_else(|| "no reason is recorded".into())
}

fn add(groups: &mut Vec<FailureGroup>, cause: Cause, attr: AttrId) {
    match groups.iter_mut().find(|group| group.cause == cause) {
        Some(group) => group.attrs.push(attr),
        None => groups.push(FailureGroup { cause, attrs: vec![attr] }),
    }
}
