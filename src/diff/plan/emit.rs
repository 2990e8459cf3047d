//! Giving out decisions: which items an attr needs that nobody got before, inputs first. Owns the order; what must
//! be built has been found out before.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Decision, Given, Load, Planner, Root, Standing};
use crate::event::Status;
use crate::graph::{Graph, Work};
use crate::id::{AttrId, DrvId};

/// Names of outputs: an edge of the graph lends them, a patch has its own.
type Names<'a> = Cow<'a, [Arc<str>]>;

/// A step of the walk: an edge to follow, or a drv whose inputs have all been walked.
enum Step<'a> {
    Enter(DrvId, Names<'a>),
    Leave(DrvId),
}

impl Planner {
    /// Decisions that have become ready, in the order in which they hold: an item after its inputs, an attr after its
    /// items.
    pub fn decisions(&mut self, graph: &Graph) -> Vec<Decision> {
        let mut out = Vec::new();
        for (drv, names) in std::mem::take(&mut self.refetched) {
            if self.nodes[drv.index()].settled {
                self.give_items(graph, None, vec![Step::Enter(drv, names.into())], &mut out);
            } else {
                self.refetched.insert(drv, names);
            }
        }
        for attr in std::mem::take(&mut self.ready) {
            // It may have become unsettled since; then it comes again.
            let settled = |root: &Root| self.nodes.get(root.drv.index()).is_some_and(|node| node.settled);
            if !self.roots.get(&attr).is_some_and(settled) {
                continue;
            }
            if let Some(root) = self.roots.remove(&attr) {
                self.nodes[root.drv.index()].attrs.retain(|other| *other != attr);
                self.give_attr(graph, attr, &root, &mut out);
            }
        }
        out
    }

    fn give_attr(&mut self, graph: &Graph, attr: AttrId, root: &Root, out: &mut Vec<Decision>) {
        let standing = self.standing_of(root.drv, &root.outputs);
        let status = match standing {
            Standing::Valid => Status::Valid,
            Standing::Present => Status::ToFetch,
            Standing::Open | Standing::Missing if matches!(self.nodes[root.drv.index()].load, Load::Failed(_)) => {
                Status::Failed
            }
            Standing::Open | Standing::Missing | Standing::Lacking => Status::ToBuild,
        };
        if matches!(standing, Standing::Missing | Standing::Lacking) || standing == Standing::Present && root.here {
            self.give_items(graph, Some(attr), vec![Step::Enter(root.drv, (&root.outputs).into())], out);
        }
        let builds = if status == Status::ToBuild { self.count_builds(graph, attr, root) } else { 0 };
        let drv = (status != Status::Valid).then_some(root.drv);
        out.push(Decision::Attr { attr, status, drv, builds });
    }

    /// Gives out what is needed from here on downward and was not given before. Every drv that must be built and
    /// whose item was given has had all below it given as well, so the walk stops there.
    fn give_items<'a>(&mut self, graph: &'a Graph, attr: Option<AttrId>, walk: Vec<Step<'a>>, out: &mut Vec<Decision>) {
        let mut stack = walk;
        let mut order = Vec::new();
        let mut grown = BTreeSet::new();
        while let Some(step) = stack.pop() {
            let (drv, names) = match step {
                Step::Enter(drv, names) => (drv, names),
                Step::Leave(drv) => {
                    order.push(drv);
                    continue;
                }
            };
            if self.nodes[drv.index()].given == Given::Build {
                continue;
            }
            if self.nodes[drv.index()].must_build || matches!(self.nodes[drv.index()].load, Load::Failed(_)) {
                self.nodes[drv.index()].given = Given::Build;
                stack.push(Step::Leave(drv));
                let needed = graph.inputs(drv).filter(|(input, names)| self.needs(*input, names));
                let mut inputs: Vec<Step<'a>> = needed.map(|(input, names)| Step::Enter(input, names.into())).collect();
                inputs.reverse();
                stack.append(&mut inputs);
            } else if self.fetch_more(drv, &names) {
                if grown.insert(drv) {
                    stack.push(Step::Leave(drv));
                }
                let patches = self.needed_patches(drv);
                stack.extend(patches.into_iter().map(|(maker, names)| Step::Enter(maker, names.into())));
            }
        }
        self.emit(graph, attr, order, out);
    }

    /// Gives out the items of these drvs. What more came to be fetched of a drv after it was left may have brought
    /// patches that come later in `order`; they go first all the same.
    fn emit(&self, graph: &Graph, attr: Option<AttrId>, order: Vec<DrvId>, out: &mut Vec<Decision>) {
        let item = |drv: DrvId| (drv, self.item(graph, drv, attr));
        let mut items: BTreeMap<DrvId, Decision> = order.iter().copied().map(item).collect();
        let mut stack: Vec<(DrvId, bool)> = order.into_iter().rev().map(|drv| (drv, false)).collect();
        while let Some((drv, inputs_given)) = stack.pop() {
            let open = match items.get(&drv) {
                Some(Decision::Item { inputs, .. }) if !inputs_given => inputs.clone(),
                _ => Vec::new(),
            };
            if open.iter().any(|input| items.contains_key(input)) {
                stack.push((drv, true));
                stack.extend(open.into_iter().rev().map(|input| (input, false)));
            } else {
                out.extend(items.remove(&drv));
            }
        }
    }

    /// What has to be built before the outputs that are to be fetched of a drv can be.
    fn needed_patches(&self, drv: DrvId) -> Vec<(DrvId, Vec<Arc<str>>)> {
        let fetched = self.nodes[drv.index()].outputs.iter().filter(|output| output.fetch);
        let patches = fetched.flat_map(|output| output.patch.drvs());
        let patches = patches.map(|(maker, names)| (maker, names.iter().cloned().collect::<Vec<_>>()));
        patches.filter(|(maker, names)| self.needs(*maker, names)).collect()
    }

    /// Whether these outputs of a drv are not all valid yet.
    fn needs(&self, drv: DrvId, names: &[Arc<str>]) -> bool {
        self.standing_of(drv, names) != Standing::Valid
    }

    /// Adds present outputs to what the fetch of a drv has to bring; whether that is news.
    fn fetch_more(&mut self, drv: DrvId, names: &[Arc<str>]) -> bool {
        let mut news = false;
        for at in 0..self.nodes[drv.index()].outputs.len() {
            let output = &self.nodes[drv.index()].outputs[at];
            let standing = self.output_standing(&self.nodes[drv.index()], output);
            if !output.fetch
                && names.contains(&output.name)
                && matches!(standing, Standing::Present | Standing::Lacking)
            {
                self.nodes[drv.index()].outputs[at].fetch = true;
                news = true;
            }
        }
        if news {
            self.nodes[drv.index()].given_at = self.facts.generation();
            self.nodes[drv.index()].given = Given::Fetch;
        }
        news
    }

    fn item(&self, graph: &Graph, drv: DrvId, attr: Option<AttrId>) -> Decision {
        let node = &self.nodes[drv.index()];
        if let Load::Failed(failure) = &node.load {
            return Decision::Unreadable { drv, failure: failure.clone(), attr };
        }
        if !node.must_build {
            let inputs: BTreeSet<DrvId> = self.needed_patches(drv).into_iter().map(|(maker, _)| maker).collect();
            return Decision::Item { drv, work: Work::Fetch, inputs: inputs.into_iter().collect(), attr };
        }
        let needed = graph.inputs(drv).filter(|(input, names)| self.needs(*input, names));
        Decision::Item { drv, work: Work::Build, inputs: needed.map(|(input, _)| input).collect(), attr }
    }

    /// How many drvs would have to be built for this attr alone. Looks only at what this attr wants, so the number
    /// does not depend on what others want of the same drvs, nor on when they were asked for.
    fn count_builds(&mut self, graph: &Graph, attr: AttrId, root: &Root) -> u32 {
        self.visits.resize(self.nodes.len(), None);
        let mut builds = 0;
        let mut stack: Vec<(DrvId, Names<'_>)> = vec![(root.drv, (&root.outputs).into())];
        while let Some((drv, names)) = stack.pop() {
            let standing = self.standing_of(drv, &names);
            if standing == Standing::Lacking {
                let outputs = self.nodes[drv.index()].outputs.iter().filter(|output| names.contains(&output.name));
                let patches = outputs.flat_map(|output| output.patch.drvs());
                stack.extend(patches.map(|(maker, names)| (maker, names.iter().cloned().collect())));
            }
            if self.visits[drv.index()] == Some(attr) || standing != Standing::Missing {
                continue;
            }
            self.visits[drv.index()] = Some(attr);
            if matches!(self.nodes[drv.index()].load, Load::Done) {
                builds += 1;
                stack.extend(graph.inputs(drv).map(|(input, names)| (input, names.into())));
            }
        }
        builds
    }
}
