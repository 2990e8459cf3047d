//! Why attrs differ from the base, in a few words each, for the pages that a run leaves. Told once all else is done; it
//! takes half a second at most, and what is not known by then is not told.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::diff::lockstep::{Lockstep, Why};
use crate::event::{CauseKind, Fact};
use crate::id::{AttrId, StorePath};
use crate::report::summary::Summary;
use crate::report::why::changed::said;

use super::{Driver, Mode, changed, revision};

/// How long it may take.
const PATIENCE: Duration = Duration::from_millis(500);

impl Driver {
    /// Tells of the attrs that differ why they do, if somebody is going to read that.
    pub(super) async fn explain_changes(&mut self) {
        let output = &self.ctx.settings.output;
        let is_read = output.step_summary.is_some() || output.report.is_some();
        if !is_read || self.stopping.is_asked() || !matches!(self.mode, Mode::Run | Mode::Check) {
            return;
        }
        let Some((search, base)) = self.comparing.sides() else { return };
        let summary = Summary::of(self.ctx.bus.events());
        let by_revision = |attr: &AttrId| {
            let compared = summary.attrs.get(attr).and_then(|attr| attr.compared.as_ref());
            compared.is_some_and(|compared| compared.revision_only || compared.same_outputs)
        };
        let mut pairs: Vec<(AttrId, StorePath, StorePath)> = self.compared(&summary);
        pairs.retain(|(attr, ..)| !by_revision(attr));
        if pairs.is_empty() {
            return;
        }
        let walk = async {
            let mut lockstep = Lockstep::new(revision::masks_of(&search, &base).await.unwrap_or_default());
            for (_, base, head) in &pairs {
                lockstep.compare(base, head);
            }
            changed::walk(&self.ctx.eval_store, &mut lockstep).await;
            lockstep
        };
        let Ok(mut lockstep) = tokio::time::timeout(PATIENCE, walk).await else { return };
        let mut reasons: BTreeMap<String, Vec<AttrId>> = BTreeMap::new();
        for (attr, base, head) in &pairs {
            if let Some(why) = lockstep.why(base, head).and_then(|why| self.in_short(&why)) {
                reasons.entry(why).or_default().push(*attr);
            }
        }
        for (why, attrs) in reasons {
            self.ctx.bus.emit(Fact::ChangeExplained { attrs, why: why.into() });
        }
    }

    /// The nearest cause, and how many others there are; `None` where too little could be read.
    fn in_short(&self, why: &Why) -> Option<String> {
        let is_known = |kind| !matches!(kind, CauseKind::Unreadable | CauseKind::Revision);
        let first = why.causes.iter().find(|reached| is_known(reached.cause.kind))?;
        let text = said(&self.cause(&first.cause, None));
        let others = why.causes.len() - 1;
        let more = if why.more { "more than " } else { "" };
        Some(if others > 0 { format!("{text}, and {more}{others} more") } else { text })
    }
}
