//! Why two derivations differ: both graphs in lock-step, from the roots down to the first inputs that differ by
//! themselves. Pure.
//!
//! Each pair of a base .drv and a head .drv is looked at once, however many roots lead to it. Inputs with the same path
//! are the same and nothing below them is looked at; the others are matched (`matching`) by outputs, content, name and
//! package. What the head says is then said in the words of the base (`rewrite`): the paths of matched inputs, of own
//! outputs and of matched sources are exchanged for the base's. What still differs is the derivation's own (`own`)
//! difference, and the pair is a cause. The driver reads .drvs level by level: it asks for [questions](Lockstep::questions)
//! and gives back [what it read](Lockstep::loaded), until there are none.
//!
//! A pair of which one side has another version or name is one cause with its own tarball; nothing below a package that
//! merely takes the place of another is compared, since all of it would differ.

mod below;
mod known;
mod matching;
mod own;
mod rewrite;
mod said;
#[cfg(test)]
mod tests;
mod words;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::id::{StorePath, split_name};
use crate::nix_compat::drv::{Derivation, InputDerivation};

pub use words::{Cause, CauseKind, Difference, Masks, Reached, Why};

use below::Below;
use known::{Known, Reading};
use matching::Candidate;
use own::{OneSided, Sides};
use rewrite::Rewriter;
use said::Said;

/// Pairs that are looked at, at most. A package set of which everything differs has some 15,000.
const MOST_PAIRS: usize = 400_000;

/// Number of a .drv in [`Lockstep::drvs`].
type DrvNo = usize;

/// Number of a pair in [`Lockstep::pairs`].
type PairNo = usize;

/// How far a pair is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Its own two .drvs are being read.
    Own,
    /// The inputs that differ are being read.
    Inputs,
    /// Compared.
    Done,
}

/// A .drv of the base and its counterpart in the head.
#[derive(Debug)]
struct Pair {
    base: DrvNo,
    head: DrvNo,
    stage: Stage,
    /// Inputs that both have and that differ.
    inputs: Vec<PairNo>,
    /// The tarball of a new version, among the inputs: no cause by itself.
    absorbed: Vec<PairNo>,
    /// Its users apply it as a patch.
    patch: bool,
    cause: Option<Arc<Cause>>,
    /// The number of what the cause says, once somebody asked.
    fold: Option<usize>,
    /// What is below it, once somebody asked.
    below: Option<Below>,
}

/// The state of the comparison. See the module's page.
#[derive(Debug)]
pub struct Lockstep {
    masks: Masks,
    drvs: Vec<Known>,
    index: HashMap<StorePath, DrvNo>,
    pairs: Vec<Pair>,
    pair_index: HashMap<(DrvNo, DrvNo), PairNo>,
    /// Pairs that wait for a .drv.
    waiting: BTreeMap<DrvNo, Vec<PairNo>>,
    /// Pairs that may be able to go on.
    ready: Vec<PairNo>,
    ask: Vec<DrvNo>,
    /// What causes say, numbered.
    folds: HashMap<Said, usize>,
    /// There were too many pairs.
    cut: bool,
}

impl Lockstep {
    /// Nothing is compared yet. What differs under `masks` only is of kind [`CauseKind::Revision`].
    #[must_use]
    pub fn new(masks: Masks) -> Self {
        Self {
            masks,
            drvs: Vec::new(),
            index: HashMap::new(),
            pairs: Vec::new(),
            pair_index: HashMap::new(),
            waiting: BTreeMap::new(),
            ready: Vec::new(),
            ask: Vec::new(),
            folds: HashMap::new(),
            cut: false,
        }
    }

    /// Two .drvs are to be compared.
    pub fn compare(&mut self, base: &StorePath, head: &StorePath) {
        if base != head {
            let (base, head) = (self.drv(base), self.drv(head));
            self.pair(base, head);
            self.go_on();
        }
    }

    /// The .drvs that have to be read next. Each is answered by [`Self::loaded`] or [`Self::failed`]; none are left
    /// when everything is compared. A .drv may be asked for again.
    pub fn questions(&mut self) -> Vec<StorePath> {
        std::mem::take(&mut self.ask).into_iter().map(|drv| self.drvs[drv].path.clone()).collect()
    }

    /// A .drv was read.
    pub fn loaded(&mut self, path: &StorePath, drv: Derivation) {
        let no = self.drv(path);
        self.drvs[no].read(drv);
        self.settled(no);
    }

    /// A .drv cannot be read.
    pub fn failed(&mut self, path: &StorePath) {
        let no = self.drv(path);
        self.drvs[no].reading = Reading::Failed;
        self.settled(no);
    }

    /// Pairs that waited for this .drv go on.
    fn settled(&mut self, drv: DrvNo) {
        self.ready.extend(self.waiting.remove(&drv).unwrap_or_default());
        self.go_on();
    }

    /// The .drvs that could not be read.
    pub fn unreadable(&self) -> impl Iterator<Item = &StorePath> {
        self.drvs.iter().filter(|drv| matches!(drv.reading, Reading::Failed)).map(|drv| &drv.path)
    }

    /// Why these two differ, once no questions are left; `None` if they were never compared. Two equal ones have no
    /// cause.
    pub fn why(&mut self, base: &StorePath, head: &StorePath) -> Option<Why> {
        if base == head {
            return Some(Why { same_outputs: true, ..Why::default() });
        }
        let pair = self.known_pair(base, head)?;
        Some(self.why_of(pair))
    }

    /// The causes of all of these together, each with all the derivations in which it is found, once no questions are
    /// left.
    pub fn causes<'a>(&mut self, pairs: impl Iterator<Item = (&'a StorePath, &'a StorePath)>) -> Vec<Reached> {
        let roots: Vec<PairNo> = pairs.filter_map(|(base, head)| self.known_pair(base, head)).collect();
        self.reached(&roots, usize::MAX)
    }

    fn known_pair(&self, base: &StorePath, head: &StorePath) -> Option<PairNo> {
        let (base, head) = (*self.index.get(base)?, *self.index.get(head)?);
        self.pair_index.get(&(base, head)).copied()
    }

    /// Whether two .drvs are equal once the texts of the [`Masks`] are masked, once no questions are left; `None` if
    /// they were never compared.
    pub fn is_equal_but_for_masks(&mut self, base: &StorePath, head: &StorePath) -> Option<bool> {
        if base == head {
            return Some(true);
        }
        let pair = self.known_pair(base, head)?;
        Some(self.revision_only(pair))
    }

    /// The number of a .drv.
    fn drv(&mut self, path: &StorePath) -> DrvNo {
        if let Some(known) = self.index.get(path) {
            return *known;
        }
        self.drvs.push(Known::new(path.clone()));
        self.index.insert(path.clone(), self.drvs.len() - 1);
        self.drvs.len() - 1
    }

    /// The number of a pair; a new one is compared.
    fn pair(&mut self, base: DrvNo, head: DrvNo) -> Option<PairNo> {
        if let Some(known) = self.pair_index.get(&(base, head)) {
            return Some(*known);
        }
        if self.pairs.len() >= MOST_PAIRS {
            self.cut = true;
            return None;
        }
        let no = self.pairs.len();
        self.pairs.push(Pair {
            base,
            head,
            stage: Stage::Own,
            inputs: Vec::new(),
            absorbed: Vec::new(),
            patch: false,
            cause: None,
            fold: None,
            below: None,
        });
        self.pair_index.insert((base, head), no);
        for drv in [base, head] {
            self.drvs[drv].pins += 1;
            self.want(drv, true);
        }
        self.ready.push(no);
        Some(no)
    }

    /// Has a .drv read, if it was not; `whole`: also if only the little is left that users have to know.
    fn want(&mut self, drv: DrvNo, whole: bool) {
        let known = &mut self.drvs[drv];
        let again = whole && matches!(known.reading, Reading::Gone);
        if again || matches!(known.reading, Reading::No) {
            known.reading = Reading::Asked;
            self.ask.push(drv);
        }
    }

    /// Brings all pairs as far as they go.
    fn go_on(&mut self) {
        while let Some(pair) = self.ready.pop() {
            if let Some(missing) = self.step(pair) {
                self.waiting.entry(missing).or_default().push(pair);
            }
        }
    }

    /// Brings a pair as far as it goes; the .drv that it waits for.
    fn step(&mut self, no: PairNo) -> Option<DrvNo> {
        let own = [self.pairs[no].base, self.pairs[no].head];
        if self.pairs[no].stage == Stage::Own {
            if let Some(missing) = own.into_iter().find(|drv| !self.drvs[*drv].is_settled()) {
                return Some(missing);
            }
            self.pairs[no].stage = Stage::Inputs;
            let (ours, theirs) = self.differing_inputs(no);
            for drv in ours.into_iter().chain(theirs) {
                self.drvs[drv].pins += 1;
                self.want(drv, false);
            }
        }
        if self.pairs[no].stage == Stage::Inputs {
            let (ours, theirs) = self.differing_inputs(no);
            if let Some(missing) = ours.iter().chain(&theirs).find(|drv| !self.drvs[**drv].is_settled()) {
                return Some(*missing);
            }
            self.finish(no, &ours, &theirs);
            self.pairs[no].stage = Stage::Done;
            for drv in ours.into_iter().chain(theirs).chain(own) {
                self.drvs[drv].unpin();
            }
        }
        None
    }

    /// The inputs of both sides that the other side does not have.
    fn differing_inputs(&mut self, no: PairNo) -> (Vec<DrvNo>, Vec<DrvNo>) {
        let Pair { base, head, .. } = self.pairs[no];
        let (Some(ours), Some(theirs)) = (self.drvs[base].drv(), self.drvs[head].drv()) else {
            return (Vec::new(), Vec::new());
        };
        let (ours, theirs) = (ours.input_derivations(), theirs.input_derivations());
        let only = |of: &BTreeMap<StorePath, InputDerivation>, than: &BTreeMap<StorePath, InputDerivation>| {
            of.keys().filter(|path| !than.contains_key(*path)).cloned().collect::<Vec<_>>()
        };
        let (ours, theirs) = (only(ours, theirs), only(theirs, ours));
        (ours.iter().map(|path| self.drv(path)).collect(), theirs.iter().map(|path| self.drv(path)).collect())
    }

    /// Everything that a pair needs is here: notes what it changes by itself, and has its inputs compared.
    fn finish(&mut self, no: PairNo, ours: &[DrvNo], theirs: &[DrvNo]) {
        let Pair { base, head, .. } = self.pairs[no];
        let Some(compared) = self.compared(base, head, ours, theirs) else {
            self.pairs[no].cause = Some(Arc::new(self.unreadable_cause(base, head)));
            return;
        };
        let cause = (!compared.differences.is_empty()).then(|| self.cause(base, head, compared.differences));
        let bump = cause.as_ref().filter(|cause| cause.kind == CauseKind::Dependency);
        let bump = bump.and_then(|cause| Some((cause.from.clone()?, cause.to.clone()?)));
        self.set_cause(no, cause);
        for (base, head, same_package, patch) in compared.inputs {
            let Some(input) = (if same_package { self.pair(base, head) } else { self.replaced(base, head) }) else {
                continue;
            };
            self.pairs[no].inputs.push(input);
            if bump.as_ref().is_some_and(|(from, to)| self.follows(base, head, from, to)) {
                self.pairs[no].absorbed.push(input);
            }
            if patch {
                self.pairs[input].patch = true;
                let cause = self.pairs[input].cause.as_deref().cloned();
                self.set_cause(input, cause);
            }
        }
    }

    /// Compares the two .drvs of a pair; `None` if one of them could not be read.
    fn compared(&self, base: DrvNo, head: DrvNo, ours: &[DrvNo], theirs: &[DrvNo]) -> Option<Compared> {
        let (base_drv, head_drv) = (self.drvs[base].drv()?, self.drvs[head].drv()?);
        let matching = matching::matched(&self.candidates(base_drv, ours), &self.candidates(head_drv, theirs));
        let pairs: Vec<(DrvNo, DrvNo, bool)> =
            matching.pairs.iter().map(|(b, h, same)| (ours[*b], theirs[*h], *same)).collect();
        let mut rewriter = Rewriter::default();
        for (b, h) in pairs.iter().map(|(b, h, _)| (*b, *h)).chain([(base, head)]) {
            let (b, h) = (&self.drvs[b], &self.drvs[h]);
            rewriter.path(&b.path, &h.path);
            for (output, text) in &h.outputs {
                if let Some(base) = b.outputs.get(output) {
                    rewriter.text(base, text);
                }
            }
        }
        let lone =
            |side: &[DrvNo], which: &[usize]| which.iter().map(|at| self.one_sided(side[*at])).collect::<Vec<_>>();
        let (mut removed, mut added) = (lone(ours, &matching.removed), lone(theirs, &matching.added));
        self.wanted(base_drv, head_drv, &pairs, &mut removed, &mut added);
        let patches = [own::patches(base_drv), own::patches(head_drv)];
        let sides = Sides { base: base_drv, head: head_drv, removed, added, masks: &self.masks };
        let differences = own::differences(&sides, rewriter);
        let inputs = pairs.into_iter().map(|(b, h, same)| {
            let in_patches =
                |text: &Vec<u8>, drv: DrvNo| self.drvs[drv].outputs.values().any(|output| own::names(text, output));
            let patch = in_patches(&patches[0], b) || in_patches(&patches[1], h);
            let same = same || self.masks.equal(self.drvs[b].name().as_bytes(), self.drvs[h].name().as_bytes());
            (b, h, same, patch)
        });
        Some(Compared { differences, inputs: inputs.collect() })
    }

    /// What is to be known of inputs to match them.
    fn candidates(&self, user: &Derivation, inputs: &[DrvNo]) -> Vec<Candidate> {
        let places = own::places(user, inputs.iter().map(|drv| self.drvs[*drv].outputs.values().map(String::as_str)));
        let candidate = |(drv, place): (&DrvNo, (String, usize))| {
            let drv = &self.drvs[*drv];
            let outputs = drv.outputs.values().cloned().collect();
            Candidate { name: drv.name().to_owned(), outputs, shape: drv.shape, place }
        };
        inputs.iter().zip(places).map(candidate).collect()
    }

    fn one_sided(&self, drv: DrvNo) -> OneSided {
        let drv = &self.drvs[drv];
        OneSided { name: drv.name().to_owned(), texts: drv.outputs.values().cloned().collect() }
    }

    /// Outputs of inputs that both sides have, of which only one side wants them.
    fn wanted(
        &self,
        base: &Derivation,
        head: &Derivation,
        pairs: &[(DrvNo, DrvNo, bool)],
        removed: &mut Vec<OneSided>,
        added: &mut Vec<OneSided>,
    ) {
        let same = base.input_derivations().keys().map(|path| (path, path));
        let paired = pairs.iter().map(|(b, h, _)| (&self.drvs[*b].path, &self.drvs[*h].path));
        for (ours, theirs) in same.chain(paired) {
            let (Some(b), Some(h)) = (base.input_derivations().get(ours), head.input_derivations().get(theirs)) else {
                continue;
            };
            let named = |path: &StorePath, output: &String| {
                let name = path.name().strip_suffix(".drv").unwrap_or(path.name());
                OneSided { name: format!("{name} ({output})"), texts: Vec::new() }
            };
            removed.extend(b.outputs().difference(h.outputs()).map(|output| named(ours, output)));
            added.extend(h.outputs().difference(b.outputs()).map(|output| named(theirs, output)));
        }
    }

    /// Whether an input merely follows its user's new version: its tarball does.
    fn follows(&self, base: DrvNo, head: DrvNo, from: &str, to: &str) -> bool {
        let (base, head) = (&self.drvs[base], &self.drvs[head]);
        (base.fixed && head.fixed) || (!from.is_empty() && base.name().replace(from, to) == head.name())
    }

    /// A package that takes the place of another: a cause, and nothing below it is looked at.
    fn replaced(&mut self, base: DrvNo, head: DrvNo) -> Option<PairNo> {
        let known = self.pair_index.contains_key(&(base, head));
        let no = self.pair(base, head)?;
        if !known {
            let (from, to) = (self.drvs[base].name().to_owned(), self.drvs[head].name().to_owned());
            let name = split_name(&to).0.to_owned();
            let difference =
                Difference { kind: CauseKind::Dependency, name, base: Some(from), head: Some(to), revision: false };
            let cause = self.cause(base, head, vec![difference]);
            self.set_cause(no, Some(cause));
            self.pairs[no].stage = Stage::Done;
            self.drvs[base].unpin();
            self.drvs[head].unpin();
        }
        Some(no)
    }

    fn set_cause(&mut self, no: PairNo, cause: Option<Cause>) {
        let patch = self.pairs[no].patch;
        self.pairs[no].cause = cause.map(|mut cause| {
            if patch && cause.kind != CauseKind::Revision {
                cause.kind = CauseKind::Patch;
            }
            Arc::new(cause)
        });
    }

    fn cause(&self, base: DrvNo, head: DrvNo, differences: Vec<Difference>) -> Cause {
        let first = differences.first();
        let kind =
            first.map_or(CauseKind::Output, |first| if first.revision { CauseKind::Revision } else { first.kind });
        Cause {
            base: self.drvs[base].path.clone(),
            head: self.drvs[head].path.clone(),
            kind,
            name: first.map(|first| first.name.clone()).unwrap_or_default(),
            from: first.and_then(|first| first.base.clone()),
            to: first.and_then(|first| first.head.clone()),
            same_outputs: self.same_outputs(base, head),
            differences,
        }
    }

    fn unreadable_cause(&self, base: DrvNo, head: DrvNo) -> Cause {
        let gone = |drv: DrvNo| matches!(self.drvs[drv].reading, Reading::Failed);
        let text = |drv: DrvNo| gone(drv).then(|| self.drvs[drv].path.to_basename());
        let name = self.drvs[head].name().to_owned();
        let kind = CauseKind::Unreadable;
        Cause { kind, name, from: text(base), to: text(head), ..self.cause(base, head, Vec::new()) }
    }

    fn same_outputs(&self, base: DrvNo, head: DrvNo) -> bool {
        let (base, head) = (&self.drvs[base].outputs, &self.drvs[head].outputs);
        !base.is_empty() && base == head
    }
}

/// What came out of a pair.
struct Compared {
    differences: Vec<Difference>,
    /// Inputs that differ: base, head, whether they are the same package, whether they are patches.
    inputs: Vec<(DrvNo, DrvNo, bool, bool)>,
}
