//! Which paths the local store has, and what is held in it: one question at a time on the connection that holds a run's
//! roots. What comes up meanwhile goes into the next question, so that many small ones are few, and a big one is asked in
//! pieces, so that caches are asked about the first of them while the store still looks for the rest.

use std::collections::VecDeque;

use crate::eval::Ack;
use crate::id::StorePath;

use super::context::{Context, store_failure};
use super::evaluate::EvalInput;
use super::input::{Asked, Input};

/// Paths in one question at most: Nix takes about 6 µs for each.
const PIECE: usize = 512;

/// Paths of which the store has not said yet whether they are valid.
#[derive(Default)]
pub(super) struct Validity {
    waiting: VecDeque<Asked>,
    asking: bool,
}

impl Validity {
    /// Asks for these, too. `makes`: what is not valid will be made, and is held before.
    pub(super) fn ask(&mut self, ctx: &mut Context, asked: impl IntoIterator<Item = Asked>, makes: bool) {
        self.waiting.extend(asked);
        if !self.asking {
            self.next(ctx, makes);
        }
    }

    /// The store has answered a question: the next one is asked.
    pub(super) fn answered(&mut self, ctx: &mut Context, makes: bool) {
        self.asking = false;
        self.next(ctx, makes);
    }

    fn next(&mut self, ctx: &mut Context, makes: bool) {
        let count = self.waiting.len().min(PIECE);
        let asked: Vec<Asked> = self.waiting.drain(..count).collect();
        if asked.is_empty() {
            return;
        }
        self.asking = true;
        let roots = ctx.roots.clone();
        ctx.tasks.start(async move {
            let paths: Vec<StorePath> = asked.iter().map(|asked| asked.path.clone()).collect();
            let mut roots = roots.lock().await;
            let valid = if makes { roots.valid(&paths).await } else { roots.hold_valid(&paths).await };
            Input::Valid(match valid {
                Ok(valid) => Ok(asked.into_iter().zip(valid).collect()),
                Err(error) => Err(store_failure(&error)),
            })
        });
    }
}

/// Derivations that evaluators have made, which may not go before these have roots.
#[derive(Default)]
pub(super) struct Holding {
    waiting: Vec<(StorePath, Ack)>,
    busy: bool,
}

impl Holding {
    /// Holds one more.
    pub(super) fn hold(&mut self, ctx: &mut Context, drv: StorePath, ack: Ack) {
        self.waiting.push((drv, ack));
        if !self.busy {
            self.next(ctx);
        }
    }

    /// Those before are held: the next ones are.
    pub(super) fn held(&mut self, ctx: &mut Context) {
        self.busy = false;
        self.next(ctx);
    }

    fn next(&mut self, ctx: &mut Context) {
        if self.waiting.is_empty() {
            return;
        }
        self.busy = true;
        let (paths, acks): (Vec<StorePath>, Vec<Ack>) = std::mem::take(&mut self.waiting).into_iter().unzip();
        let roots = ctx.eval_roots.clone();
        ctx.tasks.start(async move {
            // If the store cannot be reached, whatever needs the derivations says so.
            let _ = roots.lock().await.hold(&paths).await;
            Input::Eval(EvalInput::Held(acks))
        });
    }
}
