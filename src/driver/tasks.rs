//! The effects that are under way. Every one of them belongs to the driver: none outlives it, and one that panics
//! becomes an input instead of a silence.

use std::future::Future;

use tokio::task::{AbortHandle, JoinSet};

use super::input::Input;

/// Futures that end in an [`Input`].
#[derive(Default)]
pub(super) struct Tasks {
    set: JoinSet<Input>,
}

impl Tasks {
    /// Starts one. Aborting it drops all that it holds, and no input comes of it.
    pub(super) fn start(&mut self, effect: impl Future<Output = Input> + Send + 'static) -> AbortHandle {
        self.set.spawn(effect)
    }

    /// The next input of any of them; waits for ever if there is none.
    pub(super) async fn next(&mut self) -> Input {
        loop {
            match self.set.join_next().await {
                Some(Ok(input)) => return input,
                Some(Err(error)) if error.is_cancelled() => {}
                Some(Err(error)) => return Input::Broken(error.to_string()),
                None => std::future::pending().await,
            }
        }
    }

    /// Stops all of them.
    pub(super) async fn stop(&mut self) {
        self.set.shutdown().await;
    }
}
