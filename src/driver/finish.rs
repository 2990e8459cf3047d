//! The end of a run: final words, the exit code, the record.

use futures_util::future::join_all;

use crate::error::{Error, Fault, exit_code};
use crate::event::{Fact, STOPPED, Stage, Status};
use crate::report::check;
use crate::report::estimate;
use crate::report::history::History;
use crate::report::number::plural;
use crate::store::remote::RemoteStore;

use super::caches;
use super::context::Context;
use super::exit::{self, Lenience};
use super::history;
use super::{Driver, Finished, LAST_CHILDREN, LAST_WRITES, Mode};

/// The last words of a run. Whatever its effects hold has to be gone by now.
pub(super) async fn close(
    mut ctx: Context,
    builders: Vec<RemoteStore>,
    exit: u8,
    error: Option<&Error>,
    outputs: Vec<String>,
) -> Finished {
    caches::tell_repeats(&mut ctx);
    let (mut history, warnings) = history::open_for(&ctx.dir, &ctx.settings.output.state_dir);
    for (message, hint) in warnings {
        ctx.bus.warn(message, Some(&hint));
    }
    let exchange = history::take(&mut ctx, &mut history).await;
    ctx.bus.emit(Fact::StageEnded { stage: Stage::Record });
    if let Some(error) = error {
        let hint = error.hint.as_deref().map(Into::into);
        ctx.bus.emit(Fact::RunFailed { message: error.message.as_str().into(), hint });
    }
    ctx.bus.emit(Fact::RunEnded { exit });
    if let Some(memory) = ctx.caches.memory() {
        // What it did not write by then is asked again.
        let _ = tokio::time::timeout(LAST_WRITES, memory.settle()).await;
    }
    let Context { bus, store, eval_store, dir, pool, roots, eval_roots, site, eval_site, sites, settings, .. } = ctx;
    let (events, summary) = bus.close();
    history::keep(history, &dir, &settings.output.state_dir, &summary);
    // Their connections first: a daemon ends when its client goes away.
    drop((pool, roots, eval_roots, site, eval_site, sites));
    let builders = join_all(builders.iter().map(|builder| builder.settle(LAST_CHILDREN)));
    let shared = history::put(exchange, &settings);
    tokio::join!(store.settle(LAST_CHILDREN), eval_store.settle(LAST_CHILDREN), builders, shared);
    Finished { events, summary, exit, dir, outputs }
}

impl Driver {
    /// Gives everything that is still open its final word, and closes the record.
    pub(super) async fn finish(mut self) -> Finished {
        let open = self.attrs.open();
        if !open.is_empty() && !self.stopping.is_asked() {
            // Whoever reads exit code 0 takes everything for there.
            let message = format!("the run ended with {} unfinished", plural(open.len(), "attr", "attrs"));
            self.stopping.fail(Error::new(Fault::Bug, message));
        }
        for attr in open {
            self.end_attr(attr, Status::Skipped, Some(STOPPED), None);
        }
        self.pushing.end(&mut self.ctx);
        self.ctx.tasks.stop().await;
        self.pushing.abandon().await;
        self.look_at_programs();
        self.ctx.bus.emit(Fact::StageStarted { stage: Stage::Record });
        self.size_closures().await;
        self.explain_changes().await;
        self.ctx.hang_up().await;
        self.remember_times();
        let lenience = self.lenience();
        let mut faults = exit::faults(self.ctx.bus.events(), &lenience);
        faults.extend(self.stopping.error().map(|error| error.fault));
        let exit = exit_code(&faults);
        self.notify(exit).await;
        let outputs = self.attrs.iter().map(|(attr, _)| attr).collect::<Vec<_>>();
        let outputs = outputs.into_iter().flat_map(|attr| self.outputs_of(attr));
        let dir = self.ctx.store_dir().clone();
        let outputs = outputs.map(|(_, path)| path.to_absolute_path_in(&dir)).collect();
        close(self.ctx, self.farm.close(), exit, self.stopping.error(), outputs).await
    }

    /// What may go wrong without a fault.
    fn lenience(&mut self) -> Lenience {
        let broken_base = self.ctx.settings.check.allow_broken_base;
        let lenience = Lenience::for_caches(self.ctx.caches.optional());
        match self.mode {
            Mode::Check => {
                let excused = check::excused(self.ctx.bus.summary(), broken_base);
                Lenience { excused, ..lenience }
            }
            _ => lenience,
        }
    }

    /// Adds this run's times to the history.
    pub(super) fn remember_times(&mut self) {
        let (events, summary) = self.ctx.bus.told();
        let counts = summary.counts;
        if counts.built == 0 && counts.failed == 0 && summary.workers == 0 {
            return;
        }
        let state_dir = &self.ctx.settings.output.state_dir;
        let mut history = History::load(state_dir);
        history.fold(summary);
        if let Some(checked) = estimate::checked(events, summary) {
            history.fold_estimate(&checked);
        }
        if let Err(error) = history.save(state_dir) {
            tracing::warn!(%error, "cannot store how long things took");
        }
    }
}
