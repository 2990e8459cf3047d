//! What runs of another revision say of attrs that fail to build now: whether they failed there, too.
//!
//! Only what the code was to blame for counts: that a builder was away says nothing about a revision.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Fault, fault_of};
use crate::event::{Failure, Status, Text};
use crate::id::AttrPath;

use super::summary::{Attr, Summary};

/// What runs of one revision have built, and what not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Before {
    /// Whether an attr was as it should be.
    attrs: BTreeMap<AttrPath, bool>,
    /// Drvs that failed themselves, by the paths of their .drvs.
    failed: BTreeSet<Text>,
}

/// Whether the code is to blame for a failure to build.
#[must_use]
pub fn is_own(failure: &Failure) -> bool {
    fault_of(failure.class) == Fault::Build
}

impl Before {
    /// Takes in one more run; what is known already stays, so the newest run comes first.
    pub fn add(&mut self, run: &Summary) {
        for attr in run.attrs.values() {
            if let Some(ok) = ended(run, attr) {
                self.attrs.entry(attr.path.clone()).or_insert(ok);
            }
        }
        let failed = run.drvs.iter().filter(|(drv, _)| run.failure_of(**drv).is_some_and(is_own));
        self.failed.extend(failed.map(|(_, drv)| drv.path.clone()));
    }

    /// Whether an attr that fails now for this drv was fine there; `None` if no run says.
    #[must_use]
    pub fn was_fine(&self, attr: &AttrPath, root: &str) -> Option<bool> {
        if self.failed.contains(root) { Some(false) } else { self.attrs.get(attr).copied() }
    }
}

/// Whether an attr ended as it should be; `None` if the run does not say anything about the code.
fn ended(run: &Summary, attr: &Attr) -> Option<bool> {
    match run.status(attr)? {
        Status::Built | Status::Cached | Status::Valid => Some(true),
        Status::EvalFailed => Some(false),
        Status::Failed => run.failure_of(run.root_of_attr(attr)?).is_some_and(is_own).then_some(false),
        Status::Skipped | Status::Unaffected | Status::ToBuild | Status::ToFetch | Status::Checked => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Class, DrvOutcome, Event, Fact, Moment};
    use crate::id::{AttrId, DrvId};

    /// A run of attrs that ended so, each with a drv of its own name that failed of this.
    fn run(attrs: &[(&str, Status, Option<Class>)]) -> Summary {
        let mut facts = Vec::new();
        for (n, (path, status, class)) in (0..).zip(attrs) {
            let (attr, path) = (AttrId(n), path.parse::<AttrPath>().unwrap());
            let name: Text = path.last().into();
            facts.push(Fact::AttrListed { attr, kind: path.kind(), name: name.clone(), path });
            if let Some(class) = class {
                let drv = DrvId(n);
                facts.push(Fact::DrvNeeded {
                    drv,
                    path: format!("/nix/store/{name}.drv").into(),
                    name,
                    system: "x86_64-linux".into(),
                    inputs: Vec::new(),
                    fetch: false,
                    opaque: false,
                    features: Vec::new(),
                    attr: Some(attr),
                    expected: None,
                    outputs: Vec::new(),
                });
                facts.push(Fact::DrvEnded { drv, outcome: DrvOutcome::Failed(Failure::new(*class, "no")) });
            }
            facts.push(Fact::AttrEnded { attr, status: *status, reason: None, root: class.map(|_| DrvId(n)) });
        }
        let event = |(n, fact)| Event { seq: n as u64, at: Moment(n as u64), fact };
        Summary::of(&facts.into_iter().enumerate().map(event).collect::<Vec<_>>())
    }

    #[test]
    fn the_newest_run_that_says_something_decides() {
        let mut before = Before::default();
        before.add(&run(&[
            ("packages.x.broken", Status::Failed, Some(Class::Build)),
            ("packages.x.mended", Status::Built, None),
            ("packages.x.lost", Status::Failed, Some(Class::BuilderLost)),
            ("packages.x.skipped", Status::Skipped, None),
        ]));
        before.add(&run(&[
            ("packages.x.mended", Status::Failed, Some(Class::Build)),
            ("packages.x.skipped", Status::Cached, None),
            ("packages.x.refused", Status::EvalFailed, None),
        ]));
        for (attr, fine) in [
            ("broken", Some(false)),
            ("mended", Some(true)),
            ("lost", None),
            ("skipped", Some(true)),
            ("refused", Some(false)),
            ("new", None),
        ] {
            let path = format!("packages.x.{attr}").parse().unwrap();
            assert_eq!(before.was_fine(&path, "/nix/store/other.drv"), fine, "{attr}");
        }
        // Whoever needs what failed there fails no worse than before.
        let path = "packages.x.new".parse().unwrap();
        assert_eq!(before.was_fine(&path, "/nix/store/broken.drv"), Some(false));
        assert_eq!(before.was_fine(&path, "/nix/store/lost.drv"), None);
    }
}
