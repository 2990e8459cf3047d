//! Attrs that fail to build, held against what recorded runs of the base say of them. The records are looked for at the
//! first such failure. Where none is at hand, nothing is said.

use std::path::Path;

use crate::event::{Fact, Failure, Text};
use crate::id::{AttrId, AttrPath, DrvId, RunId};
use crate::record::{self, Reader};
use crate::report::before::{self, Before};
use crate::report::summary::Summary;

use super::Driver;
use super::context::Context;
use super::input::Input;

/// Runs of the base that are read, at most.
const MOST: usize = 3;

/// What is known of the base's builds, and who waits for it.
#[derive(Debug, Default)]
pub(super) struct OnBase {
    known: Known,
    waiting: Vec<Failed>,
}

#[derive(Debug, Default)]
enum Known {
    /// Nobody has asked.
    #[default]
    Not,
    Reading,
    Read(Before),
}

/// An attr that failed.
#[derive(Debug)]
struct Failed {
    attr: AttrId,
    path: AttrPath,
    /// The .drv whose own failure it is.
    root: Text,
}

impl OnBase {
    /// Nothing more will be said.
    pub(super) fn is_done(&self) -> bool {
        !matches!(self.known, Known::Reading)
    }

    fn ask(&mut self, ctx: &mut Context, rev: &str, failed: Failed) {
        self.waiting.push(failed);
        if let Known::Not = self.known {
            self.known = Known::Reading;
            let (state_dir, run) = (ctx.settings.output.state_dir.clone(), ctx.dir.run());
            let rev = rev.to_owned();
            ctx.tasks.start(async move {
                let read = tokio::task::spawn_blocking(move || read(&state_dir, run, &rev)).await;
                Input::OnBase(read.unwrap_or_default())
            });
        }
        self.tell(ctx);
    }

    /// The records of the base have been read.
    pub(super) fn read(&mut self, ctx: &mut Context, before: Before) {
        self.known = Known::Read(before);
        self.tell(ctx);
    }

    fn tell(&mut self, ctx: &mut Context) {
        let Known::Read(before) = &self.known else { return };
        for Failed { attr, path, root } in std::mem::take(&mut self.waiting) {
            if let Some(ok) = before.was_fine(&path, &root) {
                ctx.bus.emit(Fact::FailureCompared { attr, ok });
            }
        }
    }
}

impl Driver {
    /// An attr failed to build, for this drv.
    pub(super) fn failed_to_build(&mut self, attr: AttrId, root: DrvId, failure: &Failure) {
        let (Some(rev), Some(entry)) = (self.comparing.rev(), self.attrs.get(attr)) else { return };
        if before::is_own(failure) {
            let (path, root) = (entry.path.clone(), self.ctx.absolute(self.planning.graph.path(root)));
            self.on_base.ask(&mut self.ctx, &rev, Failed { attr, path, root });
        }
    }
}

/// What recorded runs of a revision say, the newest first, without this one. A record that cannot be read says nothing.
fn read(state_dir: &Path, own: RunId, rev: &str) -> Before {
    let runs = record::list(state_dir).unwrap_or_default().into_iter().filter(|run| run.id != own);
    let records = runs.map(|run| run.dir.events()).filter(|events| is_of(events, rev));
    let mut before = Before::default();
    for record in records.filter_map(|events| record::read(&events).ok()).take(MOST) {
        before.add(&Summary::of(&record.events));
    }
    before
}

/// Whether it is a run of this revision, and of nothing else.
fn is_of(events: &Path, rev: &str) -> bool {
    let Ok(mut reader) = Reader::open(events) else { return false };
    while let Ok(Some(event)) = reader.next_event() {
        match event.fact {
            Fact::FlakeLocked { rev: of, dirty_files, .. } => {
                return of.as_deref() == Some(rev) && dirty_files.unwrap_or(0) == 0;
            }
            // What is locked is known before.
            Fact::AttrListed { .. } => return false,
            _ => {}
        }
    }
    false
}
