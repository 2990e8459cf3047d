//! What must be built: wanted outputs that are neither valid nor present in a cache. Pure.
//!
//! From the roots outward: the inputs of a drv are looked at only when it must be built. The driver asks the
//! [`Planner`] for [questions](Planner::questions), gives back [drvs](Planner::loaded) and
//! [answers](Planner::answered) in any order and any batches, and takes [decisions](Planner::decisions) whenever some
//! are ready. Owns facts about paths and what follows from them; does not ask anybody, does not schedule.
//!
//! While caches are asked, paths that will probably be wanted are asked ahead; that changes no decision.
//!
//! Four rules carry it.
//! - A drv must be built as soon as one *wanted* output is missing. Wanted is the union over the edges of all drvs that
//!   must be built and all attrs, and it grows while evaluation goes on. "Must be built" never turns back.
//! - A present output counts as had only with all that it refers to. Where something below it is neither valid nor in a
//!   cache, that alone is built first (a *patch*), and the output is fetched then; if no drv below makes it, the output
//!   is as good as missing.
//! - A drv is *settled* when nothing that is still to be asked could change what it needs: all its wanted outputs are
//!   answered, and if it must be built, all its inputs are settled. Growth may unsettle it again.
//! - An attr is decided when its drv is settled; then all items that it needs and that nobody got before are given out,
//!   inputs first.

mod ahead;
mod emit;
mod facts;
mod fetch;
mod patch;
#[cfg(test)]
mod tests;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::event::Failure;
use crate::graph::Graph;
use crate::id::{AttrId, DrvId};

pub use facts::Brought;
pub use words::{Decision, Found, PlanPolicy, Presence, Question, Questions, Totals};

use ahead::Ahead;
use facts::{Facts, Known, PathId};
use patch::Patch;

/// How far the .drv of a node has been read.
#[derive(Debug, Default)]
enum Load {
    #[default]
    No,
    Asked,
    Done,
    Failed(Failure),
}

/// What has been given out for a drv.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
enum Given {
    #[default]
    Nothing,
    Fetch,
    Build,
}

/// One output of a loaded drv.
#[derive(Debug)]
struct Output {
    name: Arc<str>,
    /// `None` if it is only known after building.
    path: Option<PathId>,
    wanted: bool,
    /// A given fetch item is to bring it.
    fetch: bool,
    /// Where it is present and lacks something: what is done about that.
    patch: Patch,
}

/// What is known of one drv.
#[derive(Debug, Default)]
struct Node {
    load: Load,
    /// Wanted outputs by name, sorted; what `outputs` marks once the drv is loaded.
    wanted: Vec<Arc<str>>,
    outputs: Vec<Output>,
    /// The drv has no output of some wanted name.
    strange: bool,
    must_build: bool,
    settled: bool,
    /// Caches may be asked for it.
    substitutes: bool,
    /// All drvs below it are to be loaded; once all are, `explored`.
    explore: bool,
    explored: bool,
    /// Among the inputs, once the drv must be built; 0 before.
    unsettled_inputs: u32,
    dirty: bool,
    given: Given,
    /// The state of the facts when a fetch of it was given out last.
    given_at: u32,
    /// Attrs whose drv this is and that are not decided yet.
    attrs: Vec<AttrId>,
}

/// How the wanted outputs of one user stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// All are valid.
    Valid,
    /// All are valid or present.
    Present,
    /// The same, but some lack something that has to be built before.
    Lacking,
    /// Not all are answered, none is missing.
    Open,
    /// Some have to be built.
    Missing,
}

/// An attr that is not decided yet.
#[derive(Debug)]
struct Root {
    drv: DrvId,
    outputs: Vec<Arc<str>>,
    /// Its outputs have to come into the store, also those that a cache has.
    here: bool,
}

/// The state of the comparison. See the module's page.
#[derive(Debug)]
pub struct Planner {
    policy: PlanPolicy,
    nodes: Vec<Node>,
    facts: Facts,
    ahead: Ahead,
    roots: BTreeMap<AttrId, Root>,
    /// Drvs whose outputs have to come into the store for the sake of some root.
    here: BTreeSet<DrvId>,
    /// Attrs whose drv has settled, perhaps; looked at by `decisions`.
    ready: BTreeSet<AttrId>,
    /// Drvs whose fetch failed and that have not been given out again, and the outputs that it was to bring.
    refetched: BTreeMap<DrvId, Vec<Arc<str>>>,
    /// Drvs with an output that lacks something, until all drvs below them are loaded.
    exploring: BTreeSet<DrvId>,
    /// Drvs whose outputs are patches of others, and which those are.
    patched: BTreeMap<DrvId, BTreeSet<DrvId>>,
    /// Nodes to look at again.
    dirty: Vec<DrvId>,
    load: Vec<DrvId>,
    loading: u32,
    /// Which attr last visited a node while counting builds.
    visits: Vec<Option<AttrId>>,
}

impl Planner {
    /// Nothing is wanted yet.
    #[must_use]
    pub fn new(policy: PlanPolicy) -> Self {
        Self {
            policy,
            nodes: Vec::new(),
            facts: Facts::default(),
            ahead: Ahead::default(),
            roots: BTreeMap::new(),
            here: BTreeSet::new(),
            ready: BTreeSet::new(),
            refetched: BTreeMap::new(),
            exploring: BTreeSet::new(),
            patched: BTreeMap::new(),
            dirty: Vec::new(),
            load: Vec::new(),
            loading: 0,
            visits: Vec::new(),
        }
    }

    /// An attr asks for these outputs of a drv. Ends in one [`Decision::Attr`].
    pub fn want(&mut self, graph: &Graph, attr: AttrId, drv: DrvId, outputs: Vec<Arc<str>>) {
        let here = self.policy.fetch_roots;
        self.want_root(graph, attr, Root { drv, outputs, here });
    }

    /// The same, by somebody who reads the outputs: those that a cache has are fetched. Without outputs, the .drv is
    /// only read.
    pub fn want_here(&mut self, graph: &Graph, attr: AttrId, drv: DrvId, outputs: Vec<Arc<str>>) {
        self.want_root(graph, attr, Root { drv, outputs, here: true });
    }

    fn want_root(&mut self, graph: &Graph, attr: AttrId, root: Root) {
        if root.here {
            self.here.insert(root.drv);
        }
        self.node(root.drv).attrs.push(attr);
        self.want_outputs(root.drv, &root.outputs);
        self.roots.insert(attr, root);
        self.ready.insert(attr);
        self.run(graph);
    }

    /// Whether outputs of a drv have to come into the store for somebody's sake.
    #[must_use]
    pub fn is_wanted_here(&self, drv: DrvId) -> bool {
        self.here.contains(&drv)
    }

    /// These drvs are in the graph now. Drvs that nobody asked for are taken note of when they are wanted.
    pub fn loaded(&mut self, graph: &Graph, drvs: &[DrvId]) {
        self.ended_loading(drvs);
        for drv in drvs {
            self.touch(*drv);
        }
        self.run(graph);
    }

    /// The .drv cannot be read. What needs it cannot be built; see [`Decision::Unreadable`].
    pub fn load_failed(&mut self, graph: &Graph, drv: DrvId, failure: Failure) {
        self.ended_loading(&[drv]);
        let node = self.node(drv);
        if matches!(node.load, Load::Done | Load::Failed(_)) {
            return;
        }
        let asked = matches!(node.load, Load::Asked);
        node.load = Load::Failed(failure);
        if asked {
            self.loading = self.loading.saturating_sub(1);
        }
        self.touch(drv);
        self.run(graph);
    }

    /// Answers to questions. A path that was never asked may be answered too (a listing of a whole cache): then it
    /// will not be asked. The first answer stands.
    pub fn answered(&mut self, graph: &Graph, answers: &[Found]) {
        self.learn(graph, answers);
    }

    /// What has to be known next, and what is worth to be asked [ahead](Planner::waits_for_caches). Each drv and each
    /// path comes once.
    pub fn questions(&mut self, graph: &Graph) -> Questions {
        let mut ask = self.ask_rest(graph);
        let ahead = self.look_ahead(graph);
        let mut load = std::mem::take(&mut self.load);
        load.extend(ahead.load);
        ask.extend(ahead.ask);
        Questions { load, ask }
    }

    /// Counts so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.facts.totals
    }

    /// Whether no question is open: nothing will change without a new want. Decisions may still be waiting.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.loading == 0 && self.facts.is_idle()
    }

    /// Attrs that are not decided. If the planner is idle and has no decision, these need a drv that needs itself
    /// ([`Graph::cycle`]).
    pub fn undecided(&self) -> impl Iterator<Item = AttrId> {
        self.roots.keys().copied()
    }

    fn node(&mut self, drv: DrvId) -> &mut Node {
        if self.nodes.len() <= drv.index() {
            self.nodes.resize_with(drv.index() + 1, Node::default);
        }
        &mut self.nodes[drv.index()]
    }

    /// Notes that a node has to be looked at again.
    fn touch(&mut self, drv: DrvId) {
        let node = self.node(drv);
        if !node.dirty {
            node.dirty = true;
            self.dirty.push(drv);
        }
    }

    fn touch_all(&mut self, drvs: Vec<DrvId>) {
        for drv in drvs {
            self.touch(drv);
        }
    }

    /// Adds to what is wanted of a drv.
    fn want_outputs(&mut self, drv: DrvId, names: &[Arc<str>]) {
        let node = self.node(drv);
        let mut grown = false;
        for name in names {
            if let Err(at) = node.wanted.binary_search(name) {
                node.wanted.insert(at, Arc::clone(name));
                grown = true;
            }
        }
        if grown || names.is_empty() {
            self.touch(drv);
        }
    }

    /// Looks at touched nodes until none is left.
    fn run(&mut self, graph: &Graph) {
        loop {
            while let Some(drv) = self.dirty.pop() {
                self.node(drv).dirty = false;
                self.look(graph, drv);
            }
            if self.loading == 0 {
                self.end_exploring();
                let users = self.facts.break_rings();
                self.touch_all(users);
            }
            if self.dirty.is_empty() {
                return;
            }
        }
    }

    /// Brings one node up to date with its wanted outputs, its facts and its inputs.
    fn look(&mut self, graph: &Graph, drv: DrvId) {
        if !self.load_state(graph, drv) {
            return;
        }
        if self.nodes[drv.index()].explore {
            self.explore_inputs(graph, drv);
        }
        self.mark_wanted(graph, drv);
        self.patch_outputs(graph, drv);
        let standing = self.standing(drv);
        if standing == Standing::Missing {
            self.build(graph, drv);
        }
        let node = &self.nodes[drv.index()];
        // Also of what must be built, every wanted output counts: its users need not wait for those that are valid.
        let answered =
            !node.outputs.iter().any(|output| output.wanted && self.output_standing(node, output) == Standing::Open);
        let settled = answered && node.unsettled_inputs == 0 && self.patches_are_settled(node);
        self.settle(graph, drv, settled || matches!(node.load, Load::Failed(_)));
    }

    /// Whether there is anything to look at: somebody wants it, and its .drv is read or cannot be.
    fn load_state(&mut self, graph: &Graph, drv: DrvId) -> bool {
        let loaded = graph.info(drv).is_some();
        let node = self.node(drv);
        let wanted = !node.wanted.is_empty() || !node.attrs.is_empty() || node.must_build || node.explore;
        match (&node.load, loaded) {
            (Load::Failed(_) | Load::Done, _) => true,
            (Load::Asked, true) => {
                node.load = Load::Done;
                self.loading = self.loading.saturating_sub(1);
                true
            }
            (Load::No, true) if wanted => {
                node.load = Load::Done;
                true
            }
            (Load::No, false) if wanted => {
                self.load_now(drv);
                false
            }
            (Load::No | Load::Asked, _) => false,
        }
    }

    /// Marks the outputs that are wanted by name, and sees to it that their paths are asked.
    fn mark_wanted(&mut self, graph: &Graph, drv: DrvId) {
        let Some(info) = graph.info(drv) else { return };
        let node = &mut self.nodes[drv.index()];
        node.substitutes = info.substitutes;
        if node.outputs.is_empty() {
            for output in &info.outputs {
                let (name, path) = (Arc::clone(&output.name), output.path.as_ref().map(|path| self.facts.intern(path)));
                node.outputs.push(Output { name, path, wanted: false, fetch: false, patch: Patch::Unknown });
            }
        }
        let mut users = Vec::new();
        for name in &node.wanted {
            let Some(output) = node.outputs.iter_mut().find(|output| output.name == *name) else {
                node.strange = true;
                continue;
            };
            if !std::mem::replace(&mut output.wanted, true)
                && let Some(path) = output.path
            {
                users.extend(self.facts.want(path, drv, info.substitutes));
            }
        }
        self.touch_all(users);
    }

    /// How all that is wanted of a drv stands.
    fn standing(&self, drv: DrvId) -> Standing {
        let node = &self.nodes[drv.index()];
        if node.strange {
            return Standing::Missing;
        }
        let wanted = node.outputs.iter().filter(|output| output.wanted);
        wanted.map(|output| self.output_standing(node, output)).max().unwrap_or(Standing::Valid)
    }

    /// How these outputs of a drv stand, for one user.
    fn standing_of(&self, drv: DrvId, names: &[Arc<str>]) -> Standing {
        let node = &self.nodes[drv.index()];
        if matches!(node.load, Load::Failed(_)) {
            return Standing::Missing;
        }
        let one = |name: &Arc<str>| {
            let output = node.outputs.iter().find(|output| Arc::ptr_eq(&output.name, name) || output.name == *name);
            output.map_or(Standing::Missing, |output| self.output_standing(node, output))
        };
        names.iter().map(one).max().unwrap_or(Standing::Valid)
    }

    fn output_standing(&self, node: &Node, output: &Output) -> Standing {
        // What a cache has of it may only be had by somebody who refers to it.
        if !node.substitutes && output.path.is_some_and(|path| self.facts.is_not_valid(path)) {
            return Standing::Missing;
        }
        match output.path.map(|path| self.facts.known(path)) {
            Some(Known::Valid) => Standing::Valid,
            Some(Known::Whole) => Standing::Present,
            Some(Known::Lacking) => match &output.patch {
                Patch::Unknown => Standing::Open,
                Patch::Needs { .. } => Standing::Lacking,
                Patch::Hopeless => Standing::Missing,
            },
            Some(Known::Missing) | None => Standing::Missing,
            Some(Known::Nothing) => Standing::Open,
        }
    }

    /// A drv must be built: its inputs are wanted.
    fn build(&mut self, graph: &Graph, drv: DrvId) {
        if std::mem::replace(&mut self.node(drv).must_build, true) {
            return;
        }
        let mut unsettled = 0;
        for (input, names) in graph.inputs(drv) {
            self.want_outputs(input, names);
            unsettled += u32::from(!self.nodes[input.index()].settled);
        }
        self.nodes[drv.index()].unsettled_inputs = unsettled;
        self.touch(drv);
    }

    /// Passes on that a node has become settled or unsettled.
    fn settle(&mut self, graph: &Graph, drv: DrvId, settled: bool) {
        let node = &mut self.nodes[drv.index()];
        if settled {
            self.ready.extend(&node.attrs);
        }
        if std::mem::replace(&mut node.settled, settled) == settled {
            return;
        }
        for user in graph.users(drv) {
            let Some(user_node) = self.nodes.get_mut(user.index()).filter(|node| node.must_build) else { continue };
            if settled {
                user_node.unsettled_inputs = user_node.unsettled_inputs.saturating_sub(1);
            } else {
                user_node.unsettled_inputs += 1;
            }
            self.touch(user);
        }
        for user in self.patched.get(&drv).cloned().unwrap_or_default() {
            self.touch(user);
        }
    }
}
