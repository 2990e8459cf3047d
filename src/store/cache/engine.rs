//! The thread that asks caches: what servers are asked, and what they say, is handled beside all else that a run does.

use std::sync::{Arc, OnceLock};

use futures_util::FutureExt as _;
use futures_util::future::{AbortHandle, BoxFuture, abortable};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

/// Something to do.
type Job = BoxFuture<'static, ()>;

/// The thread, for everybody who has something for it to do. It starts with the first job, and ends once nobody could
/// give it another.
#[derive(Debug, Clone, Default)]
pub struct Engine {
    jobs: Arc<OnceLock<mpsc::UnboundedSender<Job>>>,
}

impl Engine {
    /// Begins to do something on the thread; dropping what this gives ends it. `None`: it panicked, or there can be no
    /// other thread.
    pub(super) fn run<F>(&self, work: F) -> impl Future<Output = Option<F::Output>> + Send + use<F>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let (give, take) = oneshot::channel();
        let (work, handle) = abortable(async move {
            // Whoever wanted to know may be gone.
            let _ = give.send(work.await);
        });
        // Where it cannot be sent it is dropped, and `take` knows.
        let _ = self.jobs.get_or_init(start).send(work.map(drop).boxed());
        let guard = Guard(handle);
        async move {
            let done = take.await.ok();
            drop(guard);
            done
        }
    }
}

impl Engine {
    /// Does something on the thread for which nobody waits; it ends with the thread at the latest.
    pub(super) fn leave<F>(&self, work: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        // Where it cannot be sent it is dropped.
        let _ = self.jobs.get_or_init(start).send(work.boxed());
    }
}

/// Ends what nobody waits for.
struct Guard(AbortHandle);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn start() -> mpsc::UnboundedSender<Job> {
    let (give, jobs) = mpsc::unbounded_channel();
    let thread = std::thread::Builder::new().name("caches".to_owned()).spawn(move || work(jobs));
    if let Err(error) = thread {
        tracing::warn!(%error, "no thread for asking caches");
    }
    give
}

fn work(mut jobs: mpsc::UnboundedReceiver<Job>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return tracing::warn!(%error, "no runtime for asking caches"),
    };
    runtime.block_on(async {
        let mut running = JoinSet::new();
        loop {
            tokio::select! {
                job = jobs.recv() => match job {
                    Some(job) => drop(running.spawn(job)),
                    None => return,
                },
                Some(_) = running.join_next() => {}
            }
        }
    });
    runtime.shutdown_background();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_is_done_elsewhere_and_ends_when_nobody_waits() {
        let engine = Engine::default();
        let here = std::thread::current().id();
        let there = engine.run(async { std::thread::current().id() }).await.unwrap();
        assert_ne!(there, here);
        assert_eq!(engine.clone().run(async { std::thread::current().id() }).await, Some(there));
        assert_eq!(engine.run(async { panic!("a test") }).await, None::<()>);
        let (alive, gone) = oneshot::channel::<()>();
        let endless = engine.run(async move {
            let _alive = alive;
            std::future::pending::<()>().await;
        });
        drop(endless);
        assert!(gone.await.is_err(), "it was dropped");
        assert_eq!(engine.run(async { 7 }).await, Some(7));
    }
}
