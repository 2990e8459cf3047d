//! The graph itself: which drvs are known and what each needs. Owns identity (path ↔ id), edges and opaqueness.
//! Walks over it are in `paths`.
//!
//! A real package set has 13,000 drvs and 100,000 edges, nearly all of which want `["out"]`. So an edge holds a number
//! into a table of output sets that occur, and output names are one `Arc<str>` each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;

use super::drv::{Drv, DrvInfo};
use crate::id::{DrvId, PathMap, StorePath};

/// Number of a set of wanted outputs in the graph's table.
#[derive(Debug, Clone, Copy)]
pub(super) struct WantsId(u32);

/// A drv that is known at least by path.
#[derive(Debug)]
pub(super) struct Node {
    path: StorePath,
    drv: Option<Box<Drv>>,
    opaque: bool,
}

/// All drvs of a run. An edge goes from a drv to one of its inputs; nothing is ever removed, so a [`DrvId`] is the
/// index of its node. Drvs that were only named as somebody's input are known by path and not yet loaded.
#[derive(Debug, Default)]
pub struct Graph {
    pub(super) dag: DiGraph<Node, WantsId>,
    /// For look-ups only; never iterated, so that no hash order gets out.
    index: PathMap<DrvId>,
    names: BTreeSet<Arc<str>>,
    wants: Vec<Arc<[Arc<str>]>>,
    wants_index: BTreeMap<Arc<[Arc<str>]>, u32>,
}

pub(super) fn node(drv: DrvId) -> NodeIndex {
    NodeIndex::new(drv.index())
}

#[expect(clippy::cast_possible_truncation, reason = "the graph's own index type is u32")]
pub(super) fn drv(node: NodeIndex) -> DrvId {
    DrvId(node.index() as u32)
}

impl Graph {
    /// No drv is known.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many drvs are known, loaded or not.
    #[must_use]
    pub fn len(&self) -> usize {
        self.dag.node_count()
    }

    /// Whether no drv is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.dag.node_count() == 0
    }

    /// The id of a .drv, new if it was not known.
    pub fn intern(&mut self, path: &StorePath) -> DrvId {
        if let Some(known) = self.index.get(path) {
            return *known;
        }
        let id = drv(self.dag.add_node(Node { path: path.clone(), drv: None, opaque: false }));
        self.index.insert(path.clone(), id);
        id
    }

    /// The id of a .drv, if it is known.
    #[must_use]
    pub fn get(&self, path: &StorePath) -> Option<DrvId> {
        self.index.get(path).copied()
    }

    /// The path of the .drv. Ids are this graph's own.
    #[must_use]
    pub fn path(&self, id: DrvId) -> &StorePath {
        &self.dag[node(id)].path
    }

    /// What the .drv says, once it is loaded.
    #[must_use]
    pub fn info(&self, id: DrvId) -> Option<&Drv> {
        self.dag.node_weight(node(id))?.drv.as_deref()
    }

    /// Takes in a parsed .drv; its inputs become known by path. A drv that is already loaded stays as it is: a .drv
    /// never changes.
    pub fn load(&mut self, info: DrvInfo) -> DrvId {
        let id = self.intern(&info.path);
        if self.dag[node(id)].drv.is_some() {
            return id;
        }
        let mut wanted: BTreeMap<DrvId, usize> = BTreeMap::new();
        let mut inputs: Vec<(DrvId, Vec<Arc<str>>)> = Vec::with_capacity(info.inputs.len());
        for (path, names) in info.inputs {
            let input = self.intern(&path);
            let at = *wanted.entry(input).or_insert(inputs.len());
            match inputs.get_mut(at) {
                Some((_, known)) => known.extend(names),
                None => inputs.push((input, names)),
            }
        }
        // petgraph lists the newest edge first; added backwards, the inputs come out in the order of the .drv.
        for (input, names) in inputs.into_iter().rev() {
            let wants = self.wants_of(names);
            self.dag.add_edge(node(id), node(input), wants);
        }
        let mut outputs = info.outputs;
        for output in &mut outputs {
            output.name = self.shared(&output.name);
        }
        outputs.shrink_to_fit();
        let loaded = Drv {
            name: info.name,
            system: info.system,
            outputs,
            sources: info.sources,
            features: info.features,
            prefer_local: info.prefer_local,
            substitutes: info.substitutes,
            fixed_output: info.fixed_output,
            dynamic: info.dynamic,
        };
        let opaque = loaded.unknown_by_itself() || self.inputs(id).any(|(input, _)| self.makes_opaque(input));
        self.dag[node(id)].drv = Some(Box::new(loaded));
        if opaque {
            self.spread_opaque(id);
        }
        id
    }

    /// The drvs that this one needs and which outputs of each, in the order of the .drv; none before it is loaded.
    pub fn inputs(&self, id: DrvId) -> impl Iterator<Item = (DrvId, &[Arc<str>])> {
        self.dag
            .edges_directed(node(id), Direction::Outgoing)
            .map(|edge| (drv(edge.target()), &*self.wants[edge.weight().0 as usize]))
    }

    /// The loaded drvs that need this one, the latest loaded first.
    pub fn users(&self, id: DrvId) -> impl Iterator<Item = DrvId> {
        self.dag.neighbors_directed(node(id), Direction::Incoming).map(drv)
    }

    /// Whether an output path is unknown before building, an input is dynamic, or such a drv is upstream. Known as
    /// far as drvs are loaded; never turns back.
    ///
    /// A fixed-output drv downstream of an opaque one is opaque itself (its recipe has to be resolved by the store that
    /// builds it), but makes nothing opaque: its path is known whatever happens upstream.
    #[must_use]
    pub fn is_opaque(&self, id: DrvId) -> bool {
        self.dag.node_weight(node(id)).is_some_and(|node| node.opaque)
    }

    /// The path of one output; `None` if the drv is not loaded, has no such output, or its path is not known yet.
    #[must_use]
    pub fn output_path(&self, id: DrvId, output: &str) -> Option<&StorePath> {
        self.info(id)?.output_path(output)
    }

    fn makes_opaque(&self, id: DrvId) -> bool {
        let node = &self.dag[node(id)];
        node.opaque && !node.drv.as_ref().is_some_and(|drv| drv.shields())
    }

    fn spread_opaque(&mut self, from: DrvId) {
        let mut stack = vec![from];
        while let Some(id) = stack.pop() {
            if std::mem::replace(&mut self.dag[node(id)].opaque, true) {
                continue;
            }
            if self.makes_opaque(id) {
                stack.extend(self.users(id));
            }
        }
    }

    /// One allocation for each name, however many drvs have it.
    fn shared(&mut self, name: &Arc<str>) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return Arc::clone(known);
        }
        self.names.insert(Arc::clone(name));
        Arc::clone(name)
    }

    /// The number of a set of output names; sets are kept sorted and without doubles.
    fn wants_of(&mut self, mut names: Vec<Arc<str>>) -> WantsId {
        names.sort_unstable();
        names.dedup();
        if let Some(known) = self.wants_index.get(names.as_slice()) {
            return WantsId(*known);
        }
        let set: Arc<[Arc<str>]> = names.iter().map(|name| self.shared(name)).collect();
        #[expect(clippy::cast_possible_truncation, reason = "fewer sets than edges, and those are counted in u32")]
        let number = self.wants.len() as u32;
        self.wants.push(Arc::clone(&set));
        self.wants_index.insert(set, number);
        WantsId(number)
    }
}
