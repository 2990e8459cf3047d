//! What is being looked at, in one line on a terminal, and how long it may take.

use std::cell::RefCell;
use std::time::Duration;

use crate::report::number;
use crate::report::text::Line;

use super::super::{Session, live};
use super::PATIENCE;

/// The looks that are under way.
#[derive(Default)]
pub(super) struct Progress(RefCell<Vec<&'static str>>);

impl Progress {
    /// Waits for one look; `None` if it takes too long.
    pub(super) async fn wait<F: Future>(&self, name: &'static str, look: F) -> Option<F::Output> {
        self.0.borrow_mut().push(name);
        let answer = tokio::time::timeout(Duration::from_secs(PATIENCE), look).await;
        let mut names = self.0.borrow_mut();
        if let Some(at) = names.iter().position(|under_way| *under_way == name) {
            names.remove(at);
        }
        answer.ok()
    }

    /// The same for one that blocks, such as a file system that is not there any more.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        name: &'static str,
        look: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        self.wait(name, tokio::task::spawn_blocking(look)).await?.ok()
    }

    /// Waits for all of it, and shows what is under way if a person looks.
    pub(super) async fn show<F: Future>(&self, session: &Session, all: F) -> F::Output {
        tokio::pin!(all);
        if !session.terminal.live {
            return all.await;
        }
        let mut frames = tokio::time::interval(live::FRAME);
        frames.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let done = loop {
            tokio::select! {
                done = &mut all => break done,
                _ = frames.tick() => self.draw(session),
            }
        };
        live::wipe();
        done
    }

    fn draw(&self, session: &Session) {
        let mut names = self.0.borrow().clone();
        names.sort_unstable();
        names.dedup();
        let elapsed = number::duration(session.clock.now().seconds());
        live::draw(session, Line::from(format!("looking at {}  {elapsed}", names.join(", "))));
    }
}
