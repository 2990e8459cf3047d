//! Why something has to be built: a run that goes as far as a plan does, and then a closer look at what it found to be
//! missing. Each cache is asked by itself, so that every one has its own answer.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use futures_util::future::join_all;

use crate::error::Result;
use crate::event::{Status, Text};
use crate::id::{AttrId, DrvId, StorePath};
use crate::report::missing::{Disabled, Evidence, Said};
use crate::report::summary::Summary;
use crate::report::why::changed::Answer as Changed;
use crate::store::cache::{Answer as CacheAnswer, Cache};

use super::start::start;
use super::{Driver, Finished, Request};

/// Drvs that are looked at below an attr.
const MOST: usize = 10;

/// What a closer look found.
pub struct Explained {
    /// The run that found it.
    pub finished: Finished,
    /// Why.
    pub answer: Answer,
}

/// What there is to say.
pub enum Answer {
    /// What differs from a base.
    Changed(Box<Changed>),
    /// Why no cache has it: one for each attr that has a derivation.
    Missing(Vec<Explanation>),
}

/// An attr and what is missing for it.
#[derive(Debug)]
pub struct Explanation {
    /// Which.
    pub attr: AttrId,
    /// What has to be done for it.
    pub status: Option<Status>,
    /// Its own derivation.
    pub own: Looked,
    /// The drvs below it that have to be built and need no other that has; none if it is that itself.
    pub first: Vec<Looked>,
    /// How many more of these there are.
    pub more: usize,
    /// Drvs that have to be built, its own included.
    pub builds: usize,
}

/// A drv that was looked at.
#[derive(Debug, Clone)]
pub struct Looked {
    /// Absolute path and name, from the attr's own down to it.
    pub chain: Vec<(Text, Text)>,
    /// Absolute paths of the outputs that are wanted, as far as they are known.
    pub outputs: Vec<Text>,
    /// What is known of these but for what earlier runs did.
    pub evidence: Evidence,
}

/// Plans, and looks closer.
///
/// # Errors
/// As [`super::drive`].
pub async fn explain(request: Request) -> Result<Explained> {
    let mut driver = start(request).await?;
    driver.run().await;
    let answer = match driver.changed().await {
        Some(changed) => Answer::Changed(Box::new(changed)),
        None => Answer::Missing(driver.look().await),
    };
    Ok(Explained { finished: driver.finish().await, answer })
}

impl Driver {
    /// Asks all caches about the attrs and about the first drvs that have to be built for them.
    async fn look(&self) -> Vec<Explanation> {
        let summary = Summary::of(self.ctx.bus.events());
        let mut explanations = Vec::new();
        for (attr, entry) in self.attrs.iter() {
            let Some(answer) = &entry.answer else { continue };
            let drv = self.planning.graph.get(&answer.drv);
            let own = match drv.filter(|drv| summary.drvs.contains_key(drv)) {
                Some(drv) => self.looked(&summary, &[drv]),
                None => self.looked_at_root(attr, &answer.drv, drv),
            };
            let chains = drv.map(|drv| first(&summary, drv)).unwrap_or_default();
            let more = chains.len().saturating_sub(MOST);
            let first = chains.iter().take(MOST).map(|chain| self.looked(&summary, chain)).collect();
            let builds = drv.map_or(0, |drv| builds(&summary, drv).len());
            explanations.push(Explanation { attr, status: entry.status, own, first, more, builds });
        }
        if explanations.is_empty() || self.stopping.is_asked() {
            return explanations;
        }
        let opened = if self.ctx.settings.offline { Vec::new() } else { self.ctx.caches.open_readable().await };
        let (mut open, mut closed) = (Vec::new(), Vec::new());
        for result in opened {
            match result {
                Ok(cache) => open.push(cache),
                Err((url, error)) => closed.push((url, Said::NoAnswer { message: error.message })),
            }
        }
        let all = explanations.iter_mut().flat_map(|one| std::iter::once(&mut one.own).chain(&mut one.first));
        let nobody = open.is_empty() && closed.is_empty();
        let ask = all.map(|looked| self.ask(looked, &open, &closed, nobody));
        join_all(ask).await;
        explanations
    }

    /// A drv of which the plan has spoken: the last of this chain.
    fn looked(&self, summary: &Summary, chain: &[DrvId]) -> Looked {
        let known = |drv: &DrvId| summary.drvs.get(drv).map(|known| (known.path.clone(), known.name.clone()));
        let last = chain.last().and_then(|drv| summary.drvs.get(drv));
        let outputs = last.map(|drv| drv.outputs.iter().filter_map(|output| output.path.clone()).collect());
        Looked {
            chain: chain.iter().filter_map(known).collect(),
            outputs: outputs.unwrap_or_default(),
            evidence: self.evidence(chain.last().copied()),
        }
    }

    /// The drv of an attr for which nothing has to be done.
    fn looked_at_root(&self, attr: AttrId, path: &StorePath, drv: Option<DrvId>) -> Looked {
        let name = path.name().strip_suffix(".drv").unwrap_or(path.name()).into();
        let outputs = self.outputs_of(attr).iter().map(|(_, path)| self.ctx.absolute(path)).collect();
        Looked { chain: vec![(self.ctx.absolute(path), name)], outputs, evidence: self.evidence(drv) }
    }

    /// What is known without asking anybody.
    fn evidence(&self, drv: Option<DrvId>) -> Evidence {
        let graph = &self.planning.graph;
        let here = drv.and_then(|drv| graph.info(drv)).is_some_and(|info| !info.substitutes);
        let disabled = match (self.ctx.settings.offline, self.ctx.store.settings().substitute) {
            (true, _) => Some(Disabled::Offline),
            (false, false) => Some(Disabled::Setting),
            (false, true) => here.then_some(Disabled::Derivation),
        };
        let opaque =
            drv.is_some_and(|drv| graph.info(drv).is_some_and(|drv| drv.outputs.iter().any(|o| o.path.is_none())));
        Evidence { disabled, opaque, ..Evidence::default() }
    }

    /// Asks every cache for the outputs.
    async fn ask(&self, looked: &mut Looked, open: &[Arc<Cache>], closed: &[(String, Said)], nobody: bool) {
        let evidence = &mut looked.evidence;
        if evidence.disabled.is_some() || evidence.opaque {
            return;
        }
        if nobody {
            evidence.disabled = Some(Disabled::NoCache);
            return;
        }
        let dir = self.ctx.store_dir();
        let paths: Vec<StorePath> =
            looked.outputs.iter().filter_map(|path| dir.parse_path(path.as_bytes()).ok()).collect();
        let answers = join_all(open.iter().map(|cache| cache.ask(&paths))).await;
        let said = open.iter().zip(answers).map(|(cache, answers)| (cache.name().to_owned(), worst(answers)));
        evidence.said = said.chain(closed.iter().cloned()).collect();
    }
}

/// What a cache says of several outputs at once: it has them only if it has all.
fn worst(answers: Vec<CacheAnswer>) -> Said {
    let mut said = Said::Present { nar_size: 0 };
    for answer in answers {
        let next = match answer {
            CacheAnswer::Present(info) => Said::Present { nar_size: info.nar_size() },
            CacheAnswer::Untrusted(info) => {
                Said::Untrusted { keys: info.signatures().iter().map(|signature| signature.key_name.clone()).collect() }
            }
            CacheAnswer::NoAnswer(failure) => Said::NoAnswer { message: failure.message.to_string() },
            CacheAnswer::Absent => Said::Absent,
        };
        said = match (said, next) {
            (Said::Present { nar_size: one }, Said::Present { nar_size: other }) => {
                Said::Present { nar_size: one + other }
            }
            (Said::Present { .. }, next) => next,
            (said, _) => said,
        };
    }
    said
}

/// The drvs that have to be built for this one, itself included.
fn builds(summary: &Summary, root: DrvId) -> BTreeMap<DrvId, Option<DrvId>> {
    let is_build = |drv: &DrvId| summary.drvs.get(drv).is_some_and(|known| !known.fetch);
    let mut from = BTreeMap::new();
    let mut queue = VecDeque::new();
    if is_build(&root) {
        from.insert(root, None);
        queue.push_back(root);
    }
    while let Some(at) = queue.pop_front() {
        for input in summary.drvs.get(&at).map(|known| known.inputs.as_slice()).unwrap_or_default() {
            if is_build(input) && !from.contains_key(input) {
                from.insert(*input, Some(at));
                queue.push_back(*input);
            }
        }
    }
    from
}

/// The drvs below this one that have to be built and wait for no other build, each by a shortest way to it; by name.
fn first(summary: &Summary, root: DrvId) -> Vec<Vec<DrvId>> {
    let from = builds(summary, root);
    let waits =
        |drv: &DrvId| summary.drvs.get(drv).is_some_and(|known| known.inputs.iter().any(|i| from.contains_key(i)));
    let mut chains: Vec<Vec<DrvId>> = Vec::new();
    for drv in from.keys().filter(|drv| **drv != root && !waits(drv)) {
        let mut chain = vec![*drv];
        while let Some(Some(user)) = chain.last().and_then(|last| from.get(last)) {
            chain.push(*user);
        }
        chain.reverse();
        chains.push(chain);
    }
    chains.sort_by_key(|chain| chain.last().map(|drv| summary.drv_name(*drv)));
    chains
}
