//! Who evaluates what next, and whose process has to go: the evaluators of one evaluation as a pure state machine.
//! It is told what they did and what they hold, and says what is to be done ([`Crew::next`]); `serve` does it.
//!
//! The rules:
//! - Attrs are taken in the order of the queue. A further one is only begun beside others if the memory is enough for
//!   it, by what the last ones took.
//! - At first only the evaluator that has listed the attrs goes on, if it may be patient: it may have answered them all
//!   before another process has loaded the flake.
//! - An attr that waits for something that is built is gone on with when that is there and nothing is left to be begun.
//! - An evaluator that holds more than its share is replaced between two attrs.
//! - Over the budget, evaluators with nothing to do are replaced. If that is not enough, the one in the middle of an
//!   attr that holds most is killed, and its attr is tried once more when all others are answered: alone, in a fresh
//!   process, with nothing beside it. Over the budget again, it has failed.

use std::collections::VecDeque;

/// How many of the last attrs say what the next one will take.
const RECENT: usize = 8;
/// What a process takes before it has evaluated anything, in bytes; measured 27 to 32 MB.
const START: u64 = 32 << 20;

/// Something to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Do {
    /// Evaluate an attr; if there is no process, start one. Answered by [`Crew::answered`] or [`Crew::stopped`].
    Ask {
        /// Which evaluator.
        worker: usize,
        /// Place of the attr in the list.
        attr: usize,
        /// It is its second try, with nothing beside it.
        alone: bool,
    },
    /// Kill it in the middle of its attr. Answered by [`Crew::stopped`], or by [`Crew::answered`] if it was quicker.
    Stop {
        /// Which evaluator.
        worker: usize,
    },
    /// End its process once its answers are acknowledged. Answered by [`Crew::ended`].
    End {
        /// Which evaluator.
        worker: usize,
        /// Why.
        why: Why,
    },
}

/// Why a process is ended between two attrs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// There is nothing left to ask.
    Over,
    /// There is nothing left but attrs that are tried once more, with nothing beside them.
    Alone,
    /// It holds more than its share: so many bytes.
    Share(u64),
    /// Others need the memory; it holds so many bytes.
    Room(u64),
}

/// What one evaluator holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    /// Which.
    pub(super) worker: usize,
    /// Bytes.
    pub(super) held: u64,
    /// How many of them came with the attr in flight.
    pub(super) grown: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Busy {
        attr: usize,
        alone: bool,
        /// Bytes that came with the attr.
        grown: u64,
        /// It is to be killed.
        stopping: bool,
    },
    Ending,
}

#[derive(Debug, Clone, Copy)]
struct Member {
    state: State,
    /// There is a process, or one may be starting.
    alive: bool,
    /// Bytes that the process holds, as far as it is known.
    held: u64,
}

/// See the module's page.
#[derive(Debug)]
pub(super) struct Crew {
    /// Bytes that all may hold together; 0 is no limit.
    budget: u64,
    /// Bytes that each may hold between two attrs.
    share: u64,
    members: Vec<Member>,
    queue: VecDeque<usize>,
    /// Attrs that are gone on with: what they waited for is there.
    back: VecDeque<usize>,
    /// How many wait for something that is built.
    waiting: usize,
    /// Attrs that are tried once more when the queue is empty.
    alone: VecDeque<usize>,
    /// What the last attrs took.
    recent: VecDeque<u64>,
    /// What a sample asks for.
    urgent: Vec<Do>,
    /// No process is started beside one that is at work.
    patient: bool,
}

impl Crew {
    /// So many evaluators, none of which has a process but, if `started`, the first.
    pub(super) fn new(workers: u32, started: bool, queue: VecDeque<usize>, budget: u64, share: u64) -> Self {
        let member = |number| Member { state: State::Idle, alive: started && number == 0, held: 0 };
        let members = (0..workers.max(1)).map(member).collect();
        let (back, alone, recent) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        let (urgent, patient) = (Vec::new(), false);
        Self { budget, share, members, queue, back, waiting: 0, alone, recent, urgent, patient }
    }

    /// No process is started beside one that is at work, until [`Crew::hurry`].
    pub(super) fn patient(self) -> Self {
        Self { patient: true, ..self }
    }

    /// Whether processes are held back.
    pub(super) fn is_patient(&self) -> bool {
        self.patient
    }

    /// Whoever is at work takes its time: the others begin.
    pub(super) fn hurry(&mut self) {
        self.patient = false;
    }

    /// The attrs that nobody has begun, in their order.
    pub(super) fn queue(&self) -> impl Iterator<Item = usize> {
        self.queue.iter().copied()
    }

    /// Whether an attr is in flight.
    pub(super) fn is_busy(&self) -> bool {
        self.members.iter().any(|member| matches!(member.state, State::Busy { .. }))
    }

    /// All that is to be done now; empty until something else is told.
    pub(super) fn next(&mut self) -> Vec<Do> {
        let mut todo = std::mem::take(&mut self.urgent);
        for worker in 0..self.members.len() {
            let Member { state: State::Idle, alive: true, held } = self.members[worker] else { continue };
            if held > self.share {
                todo.push(self.end(worker, Why::Share(held)));
            }
        }
        for worker in 0..self.members.len() {
            if self.members[worker].state != State::Idle {
                continue;
            }
            if self.queue.is_empty() && self.back.is_empty() {
                // Those that wait will be asked again.
                if self.members[worker].alive && self.waiting == 0 {
                    let why = if self.alone.is_empty() { Why::Over } else { Why::Alone };
                    todo.push(self.end(worker, why));
                }
            } else if self.may_begin(worker)
                && let Some(attr) = self.queue.pop_front().or_else(|| self.back.pop_front())
            {
                todo.push(self.ask(worker, attr, false));
            }
        }
        // Whoever is still there may have answers that nobody has taken over: it is waited for.
        if self.members.iter().all(|member| member.state == State::Idle && !member.alive)
            && self.waiting == 0
            && let Some(attr) = self.alone.pop_front()
        {
            todo.push(self.ask(0, attr, true));
        }
        todo
    }

    fn ask(&mut self, worker: usize, attr: usize, alone: bool) -> Do {
        self.members[worker].state = State::Busy { attr, alone, grown: 0, stopping: false };
        self.members[worker].alive = true;
        Do::Ask { worker, attr, alone }
    }

    fn end(&mut self, worker: usize, why: Why) -> Do {
        self.members[worker].state = State::Ending;
        Do::End { worker, why }
    }

    /// Whether there is time and memory for one more attr. Where nothing is in flight there has to be.
    fn may_begin(&self, worker: usize) -> bool {
        if self.patient && !self.members[worker].alive && self.is_busy() {
            return false;
        }
        if self.budget == 0 || !self.is_busy() {
            return true;
        }
        let typical = self.typical();
        let fresh = if self.members[worker].alive { 0 } else { START };
        let expected = self.members.iter().map(|member| match member.state {
            State::Busy { grown, .. } => member.held.max(START).saturating_add(typical.saturating_sub(grown)),
            State::Idle | State::Ending => member.held,
        });
        expected.fold(typical.saturating_add(fresh), u64::saturating_add) <= self.budget
    }

    /// What an attr takes, by the last ones: three of four took no more.
    fn typical(&self) -> u64 {
        let mut recent: Vec<u64> = self.recent.iter().copied().collect();
        recent.sort_unstable();
        recent.get(recent.len() * 3 / 4).copied().unwrap_or(0)
    }

    fn learn(&mut self, grown: u64) {
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(grown);
    }

    /// An attr is answered; its evaluator holds so much now, `None` if its process is gone.
    pub(super) fn answered(&mut self, worker: usize, held: Option<u64>, grown: u64) {
        self.learn(grown);
        if let Some(member) = self.members.get_mut(worker) {
            *member = Member { state: State::Idle, alive: held.is_some(), held: held.unwrap_or(0) };
        }
    }

    /// Its attr waits for something that is built; its evaluator holds so much now, if there is a process.
    pub(super) fn waits(&mut self, worker: usize, held: Option<u64>) {
        if let Some(member) = self.members.get_mut(worker) {
            *member = Member { state: State::Idle, alive: held.is_some(), held: held.unwrap_or(0) };
            self.waiting += 1;
        }
    }

    /// An attr waits no longer: it is asked again, or has been answered without.
    pub(super) fn returned(&mut self, attr: Option<usize>) {
        self.waiting = self.waiting.saturating_sub(1);
        self.back.extend(attr);
    }

    /// Its process was killed in the middle of an attr. One that had its second try is answered by that.
    pub(super) fn stopped(&mut self, worker: usize) {
        let Some(member) = self.members.get_mut(worker) else { return };
        let was = std::mem::replace(&mut member.state, State::Idle);
        (member.alive, member.held) = (false, 0);
        if let State::Busy { attr, alone, grown, .. } = was {
            self.learn(grown);
            if !alone {
                self.alone.push_back(attr);
            }
        }
    }

    /// Its process has ended.
    pub(super) fn ended(&mut self, worker: usize) {
        if let Some(member) = self.members.get_mut(worker) {
            *member = Member { state: State::Idle, alive: false, held: 0 };
        }
    }

    /// What the evaluators hold at one moment.
    pub(super) fn sampled(&mut self, samples: &[Sample]) {
        for sample in samples {
            let Some(member) = self.members.get_mut(sample.worker) else { continue };
            member.held = if member.alive { sample.held } else { 0 };
            if let State::Busy { grown, .. } = &mut member.state {
                *grown = sample.grown;
            }
        }
        if self.budget > 0 {
            self.relieve();
        }
    }

    /// Brings the sum below the budget: by those with nothing to do, if that is enough; else by the largest.
    fn relieve(&mut self) {
        let stays = |member: &Member| matches!(member.state, State::Busy { stopping: false, .. });
        let sum = |which: &dyn Fn(&Member) -> bool| -> u64 {
            let held = self.members.iter().filter(|member| which(member)).map(|member| member.held);
            held.fold(0, u64::saturating_add)
        };
        let mut busy = sum(&stays);
        let idle = sum(&|member| member.state == State::Idle);
        while busy > self.budget {
            let members = self.members.iter_mut().enumerate();
            let largest = members.filter(|(_, member)| stays(member)).max_by_key(|(_, member)| match member.state {
                State::Busy { grown, .. } => (member.held, grown),
                State::Idle | State::Ending => (0, 0),
            });
            let Some((worker, Member { state: State::Busy { stopping, .. }, held, .. })) = largest else { break };
            *stopping = true;
            busy = busy.saturating_sub(*held);
            self.urgent.push(Do::Stop { worker });
        }
        let mut over = busy.saturating_add(idle).saturating_sub(self.budget);
        while over > 0 {
            let idle = self.members.iter().enumerate().filter(|(_, member)| member.state == State::Idle);
            let Some((worker, held)) = idle
                .map(|(worker, member)| (worker, member.held))
                .max_by_key(|(_, held)| *held)
                .filter(|(_, held)| *held > 0)
            else {
                break;
            };
            over = over.saturating_sub(held);
            let end = self.end(worker, Why::Room(held));
            self.urgent.push(end);
        }
    }
}

#[cfg(test)]
mod tests;
