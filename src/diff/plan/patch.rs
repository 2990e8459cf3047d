//! Patches: what has to be built so that a present output, which lacks something, can be fetched.
//!
//! What an output refers to was made by a drv below its own. So all drvs below are loaded, and those that make what is
//! lacking are wanted. Since a patch is always below what it patches, patches make no rings.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::facts::PathId;
use super::{Known, Load, Node, Planner};
use crate::graph::Graph;
use crate::id::DrvId;

/// What is done about a present output that lacks something.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Patch {
    /// It lacks nothing, or nobody has looked yet.
    #[default]
    Unknown,
    /// These outputs of these drvs have to be built first.
    Needs {
        /// Of which drvs which outputs.
        drvs: BTreeMap<DrvId, BTreeSet<Arc<str>>>,
        /// The state of the facts for which that holds.
        generation: u32,
    },
    /// Some of what it lacks is made by no drv below.
    Hopeless,
}

impl Patch {
    /// The drvs to build, and which of their outputs.
    pub(super) fn drvs(&self) -> impl Iterator<Item = (DrvId, &BTreeSet<Arc<str>>)> {
        let drvs = match self {
            Self::Needs { drvs, .. } => Some(drvs),
            Self::Unknown | Self::Hopeless => None,
        };
        drvs.into_iter().flatten().map(|(maker, names)| (*maker, names))
    }
}

impl Planner {
    /// Finds patches for the wanted outputs of a drv that lack something.
    pub(super) fn patch_outputs(&mut self, graph: &Graph, drv: DrvId) {
        for at in 0..self.nodes[drv.index()].outputs.len() {
            let node = &self.nodes[drv.index()];
            let output = &node.outputs[at];
            let Some(path) = output.path.filter(|_| output.wanted && node.substitutes) else { continue };
            let now = self.facts.generation();
            let known = match &output.patch {
                Patch::Needs { generation, .. } => *generation == now,
                Patch::Hopeless => true,
                Patch::Unknown => false,
            };
            if known || self.facts.known(path) != Known::Lacking {
                continue;
            }
            if !node.explored {
                self.explore(graph, drv);
                return;
            }
            let lacks = self.facts.lacks(path);
            let patch = match self.makers(graph, drv, lacks) {
                Some(drvs) => Patch::Needs { drvs, generation: now },
                None => Patch::Hopeless,
            };
            self.want_patch(drv, &patch);
            self.nodes[drv.index()].outputs[at].patch = patch;
        }
    }

    fn want_patch(&mut self, drv: DrvId, patch: &Patch) {
        let Patch::Needs { drvs, .. } = patch else { return };
        for (maker, names) in drvs {
            let names: Vec<Arc<str>> = names.iter().cloned().collect();
            self.patched.entry(*maker).or_default().insert(drv);
            self.want_outputs(*maker, &names);
        }
    }

    pub(super) fn patches_are_settled(&self, node: &Node) -> bool {
        let mut patches = node.outputs.iter().flat_map(|output| output.patch.drvs());
        patches.all(|(maker, _)| self.nodes.get(maker.index()).is_some_and(|node| node.settled))
    }

    /// Has all drvs below this one loaded.
    fn explore(&mut self, graph: &Graph, drv: DrvId) {
        if self.exploring.insert(drv) {
            self.node(drv).explore = true;
            self.explore_inputs(graph, drv);
        }
    }

    /// Goes on exploring below a loaded drv.
    pub(super) fn explore_inputs(&mut self, graph: &Graph, drv: DrvId) {
        let mut below: Vec<DrvId> = graph.inputs(drv).map(|(input, _)| input).collect();
        while let Some(drv) = below.pop() {
            let node = self.node(drv);
            if std::mem::replace(&mut node.explore, true) {
                continue;
            }
            if graph.info(drv).is_some() {
                below.extend(graph.inputs(drv).map(|(input, _)| input));
            } else if matches!(node.load, Load::No) {
                self.load_now(drv);
            }
        }
    }

    /// Nothing is being loaded: all that had to be explored is.
    pub(super) fn end_exploring(&mut self) {
        for drv in std::mem::take(&mut self.exploring) {
            self.node(drv).explored = true;
            self.touch(drv);
        }
    }

    /// The drvs below this one that make these paths, the nearest of several; `None` unless each is made by one.
    fn makers(
        &self,
        graph: &Graph,
        drv: DrvId,
        mut paths: BTreeSet<PathId>,
    ) -> Option<BTreeMap<DrvId, BTreeSet<Arc<str>>>> {
        let mut makers: BTreeMap<DrvId, BTreeSet<Arc<str>>> = BTreeMap::new();
        let mut seen = BTreeSet::from([drv]);
        let mut work = VecDeque::from([drv]);
        while let Some(at) = work.pop_front() {
            for (input, _) in graph.inputs(at).filter(|(input, _)| seen.insert(*input)) {
                work.push_back(input);
                let outputs = graph.info(input).map_or(&[][..], |info| &info.outputs);
                for output in outputs {
                    let Some(path) = output.path.as_ref().and_then(|path| self.facts.is_one_of(path, &paths)) else {
                        continue;
                    };
                    paths.remove(&path);
                    makers.entry(input).or_default().insert(Arc::clone(&output.name));
                }
            }
            if paths.is_empty() {
                return Some(makers);
            }
        }
        None
    }
}
