//! Answers for many paths, in pieces as they come: nobody waits for the slowest of a batch.

use std::fmt;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Fuse};
use tokio::sync::mpsc;

use super::answer::{Answer, Counters, no_answer};
use crate::event::Class;
use crate::id::StorePath;

/// Some answers, each with the place of its path in the question.
pub(super) type Piece = Vec<(usize, Answer)>;

/// Where the one who asks leaves what has come.
pub(super) type Pieces = mpsc::UnboundedSender<Piece>;

/// What a cache says about many paths, in pieces as it says it: each path comes once, in any order. Dropping it ends
/// the asking.
pub struct Answers {
    /// Paths that no piece had yet.
    open: Vec<bool>,
    left: usize,
    pieces: mpsc::UnboundedReceiver<Piece>,
    counters: Arc<Counters>,
    /// Whoever asks; it goes on while somebody waits for answers.
    asking: Fuse<BoxFuture<'static, ()>>,
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers").field("left", &self.left).finish_non_exhaustive()
    }
}

impl Answers {
    /// `ask` asks for `count` paths and leaves what it hears.
    pub(super) fn new<F>(count: usize, counters: Arc<Counters>, ask: impl FnOnce(Pieces) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (give, pieces) = mpsc::unbounded_channel();
        Self { open: vec![true; count], left: count, pieces, counters, asking: ask(give).boxed().fuse() }
    }

    /// What has come since the last time, each answer with the place of its path in the question; waits for it. `None`
    /// once every path is answered.
    pub async fn next(&mut self) -> Option<Vec<(usize, Answer)>> {
        while self.left > 0 {
            let piece = tokio::select! {
                biased;
                piece = self.pieces.recv() => piece,
                () = &mut self.asking => continue,
            };
            let Some(mut piece) = piece else { return Some(self.give_up()) };
            while let Ok(more) = self.pieces.try_recv() {
                piece.extend(more);
            }
            piece.retain(|(at, _)| self.open.get_mut(*at).is_some_and(std::mem::take));
            if !piece.is_empty() {
                return Some(self.counted(piece));
            }
        }
        None
    }

    /// All that comes, in the order of the question.
    pub(super) async fn all(mut self) -> Vec<Answer> {
        let mut all = Vec::with_capacity(self.left);
        while let Some(piece) = self.next().await {
            all.extend(piece);
        }
        all.sort_unstable_by_key(|(at, _)| *at);
        all.into_iter().map(|(_, answer)| answer).collect()
    }

    /// Whoever asked has ended before all was answered.
    fn give_up(&mut self) -> Piece {
        let open = std::mem::take(&mut self.open).into_iter().enumerate().filter(|(_, open)| *open);
        let lost = || Answer::NoAnswer(no_answer(Class::Internal, "asking it ended before it answered"));
        let lost = open.map(|(at, _)| (at, lost())).collect();
        self.counted(lost)
    }

    fn counted(&mut self, piece: Piece) -> Piece {
        self.left = self.left.saturating_sub(piece.len());
        self.counters.add(piece.iter().map(|(_, answer)| answer));
        piece
    }
}

/// Lets something answer all paths at once, on a thread that may wait.
pub(super) async fn at_once(pieces: Pieces, answer: impl FnOnce() -> Vec<Answer> + Send + 'static) {
    if let Ok(answers) = tokio::task::spawn_blocking(answer).await {
        // Nobody may be listening any more.
        let _ = pieces.send(answers.into_iter().enumerate().collect());
    }
}

/// The paths of a question, which those who ask share.
pub(super) type Paths = Arc<[StorePath]>;

#[cfg(test)]
mod tests {
    use super::*;

    fn start(pieces: Vec<Piece>) -> Answers {
        Answers::new(3, Arc::default(), |give| async move {
            pieces.into_iter().for_each(|piece| give.send(piece).unwrap());
        })
    }

    #[tokio::test]
    async fn every_path_is_answered_once() {
        let lost = |answer: &Answer| matches!(answer, Answer::NoAnswer(failure) if failure.class == Class::Internal);
        let twice = start(vec![vec![(2, Answer::Absent)], vec![(2, Answer::Absent), (9, Answer::Absent)]]);
        let counters = Arc::clone(&twice.counters);
        let all = twice.all().await;
        assert!(all.len() == 3 && lost(&all[0]) && lost(&all[1]) && all[2] == Answer::Absent, "{all:?}");
        let counts = counters.counts();
        assert_eq!((counts.asked, counts.absent, counts.no_answer), (3, 1, 2));
        let mut whole = start(vec![vec![(2, Answer::Absent)], vec![(0, Answer::Absent), (1, Answer::Absent)]]);
        let mut heard = 0;
        while let Some(piece) = whole.next().await {
            heard += piece.len();
        }
        assert_eq!((heard, whole.next().await), (3, None));
    }
}
