//! Questions that are typed as one, and answered one after the other: each answer comes on standard error as soon as it is
//! known. The first that has none ends them all; it and those after it are asked by themselves.

use std::collections::VecDeque;

use tokio::io::AsyncWriteExt as _;

use super::{Died, Heard, Reply, Scope, Worker};
use crate::eval::expr::{self, Printed, Question};
use crate::eval::imports::Mode;

/// Most questions at once. All but the first may turn out to be asked for nothing.
const MOST: usize = 16;
/// Most bytes that are typed at once: a pipe takes them whatever its reader does.
const MOST_TYPED: usize = 16 << 10;

/// Questions that are being answered.
#[derive(Debug)]
pub(super) struct Many {
    open: VecDeque<(u64, Question)>,
    /// What says that they are over, as if it were a question.
    end: u64,
    out_over: bool,
    err_over: bool,
}

impl Worker {
    /// The answer to a question that was asked before. Answers to others are kept.
    pub(super) async fn known(&mut self, question: &Question) -> Result<Option<Reply>, Died> {
        while let Some(many) = &self.many {
            let Some((_, next)) = many.open.front() else { break };
            let next = next.clone();
            match self.next_of_many().await? {
                Some(reply) if next == *question => return Ok(Some(reply)),
                Some(reply) => self.ready.push_back((next, reply)),
                // What was said is about this one, or else nobody will ask.
                None if next == *question => return Ok(None),
                None => self.before = None,
            }
        }
        let at = self.ready.iter().position(|(known, _)| known == question);
        Ok(at.and_then(|at| self.ready.remove(at)).map(|(_, reply)| reply))
    }

    /// Asks a question together with others, if that can be.
    pub(super) async fn begin_many(&mut self, question: &Question, ahead: &[Question]) -> bool {
        let loaded = matches!(self.scope, Scope::Given(_)) && !self.masked && self.mode == Mode::Forbidden;
        if !loaded || ahead.is_empty() || !question.is_of_many() {
            return false;
        }
        let ahead = ahead.iter().filter(|question| question.is_of_many()).take(MOST - 1);
        let questions: Vec<Question> = std::iter::once(question).chain(ahead).cloned().collect();
        let first = self.asked + 1;
        self.asked += questions.len() as u64 + 1;
        let text = expr::ask_many(first, &questions);
        if text.len() > MOST_TYPED {
            return false;
        }
        // If the process is gone, its silence says so.
        if self.stdin.write_all(text.as_bytes()).await.is_ok() {
            let _ = self.stdin.flush().await;
        }
        let open = (first..).zip(questions).collect();
        self.many = Some(Many { open, end: self.asked, out_over: false, err_over: false });
        true
    }

    /// The next answer; `None` where there is none, and all are over. What was said meanwhile is kept in that case.
    pub(super) async fn next_of_many(&mut self) -> Result<Option<Reply>, Died> {
        let Some(mut many) = self.many.take() else { return Ok(None) };
        let Some((id, _)) = many.open.pop_front() else { return Ok(None) };
        let mut heard = Heard::default();
        let mut dead = false;
        while !(dead || many.out_over && many.err_over) {
            tokio::select! {
                line = self.stdout.next(), if !many.out_over => match line.as_deref().map(expr::printed) {
                    None => dead = true,
                    Some(said) => many.out_over = said == Some(Printed::End(many.end)),
                },
                line = self.stderr.next(), if !many.err_over => match line {
                    None => { many.err_over = true; dead = !many.out_over; }
                    Some(line) => match heard.hear(id, &line, false) {
                        Some(of) if of == id => {
                            // Nobody waits for the end of the last one: whoever asks next passes over it.
                            self.many = Some(many).filter(|many| !many.open.is_empty());
                            return Ok(Some(heard.reply()));
                        }
                        of => many.err_over = of == Some(many.end),
                    },
                },
            }
        }
        if dead {
            // It is asked again of another process.
            return self.died(id, heard).await.map(Some);
        }
        self.before = Some(heard);
        Ok(None)
    }
}
