//! The vocabulary of the scheduler: what goes in and what comes out.

use std::sync::Arc;

use crate::event::{AttemptEnd, DrvOutcome, Failure};
use crate::graph::Work;
use crate::id::{AttemptId, BuilderId, DrvId, System};

use super::builders::Builder;

/// One drv that is needed.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Which drv.
    pub drv: DrvId,
    /// Build or fetch.
    pub work: Work,
    /// Other items that have to be there before it can start.
    pub inputs: Vec<DrvId>,
    /// Drvs that it uses and that are no items because their outputs are valid somewhere.
    pub there: Vec<DrvId>,
    /// Its platform; `builtin` runs anywhere.
    pub system: System,
    /// `requiredSystemFeatures`.
    pub features: Vec<String>,
    /// Only the local store can build it (opaque drvs).
    pub local_only: bool,
    /// Its outputs are wanted in the local store itself, only for what is fetched: it is downloaded, imported from, or
    /// used by what only the local store can build.
    pub here: bool,
    /// Its output is known by its content and comes from the network (`outputHash`): it takes no slot, but one of a few
    /// places of its own on a builder.
    pub fixed_output: bool,
    /// Cheaper to build than to send around (`preferLocalBuild`).
    pub prefer_local: bool,
    /// Expected seconds.
    pub cost: f64,
    /// Seconds by which it and what it needs go before others, as if the chain that waits for it took so much longer.
    pub ahead: f64,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// These are needed. An item whose drv is known as a fetch replaces it; anything else known stays as it is.
    Add(Vec<Item>),
    /// These are needed and cannot even be tried (their .drv is unreadable).
    AddFailed(Vec<(DrvId, Failure)>),
    /// Nothing more will be added, but for answers to [`Action::Replan`].
    NoMore,
    /// A builder that is not up yet and may come up, as far as it is known: what only it can build waits for it.
    /// Says nothing new of one that was up.
    BuilderKnown(Builder),
    /// A builder can be used: new, back, or with other properties than before.
    BuilderUp(Builder),
    /// A builder takes nothing new; its attempts go on until the driver says that they ended (as `builder_lost`).
    BuilderDown {
        /// Which.
        builder: BuilderId,
        /// It may come up again: what only it can build waits for it.
        back: bool,
        /// Why, for messages: `connection refused`.
        why: Option<Arc<str>>,
    },
    /// Every builder that was asked for has been up, or will not be: from now on, what none can take has failed.
    NoMoreBuilders,
    /// All that this attempt needs is valid where it is to be built.
    Prepared {
        /// Which attempt.
        attempt: AttemptId,
    },
    /// Somebody else builds the drv of this attempt, or no longer does.
    Waiting {
        /// Which attempt.
        attempt: AttemptId,
        /// It waits; otherwise it builds (again).
        waiting: bool,
    },
    /// An attempt ended, by itself or because it was stopped.
    AttemptEnded {
        /// Which attempt.
        attempt: AttemptId,
        /// How.
        end: AttemptEnd,
        /// Inputs that turned out to be nowhere: fetched ones that no cache has any more, and built ones whose outputs
        /// were on a builder that went away; what was there before the run is planned only now. They are made anew, and
        /// the drv waits for them again; that end does not count as one of its tries.
        gone: Vec<DrvId>,
    },
    /// The outputs of a drv that was there are nowhere, and somebody needs them. See
    /// [`Scheduler::can_make_again`](super::Scheduler::can_make_again).
    Lost {
        /// Which drv.
        drv: DrvId,
    },
    /// How big a drv's outputs are, all together.
    Sized {
        /// Which drv.
        drv: DrvId,
        /// Bytes of their NARs.
        bytes: u64,
        /// Each is signed by somebody, or says itself what it is (content-addressed).
        signed: bool,
    },
    /// A builder's store does not take the outputs of these, for want of a signature by a key that it trusts. Told
    /// before the attempt ends that needs them there.
    Refused {
        /// Which.
        builder: BuilderId,
        /// Whose outputs.
        inputs: Vec<DrvId>,
    },
    /// How long it took to bring something to a builder.
    Transferred {
        /// To which.
        builder: BuilderId,
        /// Bytes of NARs.
        bytes: u64,
        /// From the first to the last of them.
        seconds: f64,
    },
    /// A fetch ended, by itself or because it was stopped.
    FetchEnded {
        /// Whose outputs.
        drv: DrvId,
        /// Why it failed, if it did.
        failure: Option<Failure>,
    },
    /// [`Scheduler::next_deadline`](super::Scheduler::next_deadline) has come.
    Tick,
    /// Somebody wants to stop. 1: nothing new starts, what runs is stopped and its end awaited. 2: now.
    Cancel(u8),
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// An attempt begins: what the drv needs is to be brought there. Takes no slot. Answered by [`Input::Prepared`] or
    /// [`Input::AttemptEnded`].
    Start {
        /// Number of this try.
        attempt: AttemptId,
        /// Of which drv.
        drv: DrvId,
        /// Where.
        builder: BuilderId,
    },
    /// A slot is free for an attempt that is prepared: build. Answered by [`Input::AttemptEnded`].
    Go {
        /// Which attempt.
        attempt: AttemptId,
    },
    /// Stop an attempt, also one that only prepares; answered by [`Input::AttemptEnded`] like any other.
    Stop {
        /// Which attempt.
        attempt: AttemptId,
    },
    /// Fetch a drv's outputs into the local store; answered by [`Input::FetchEnded`].
    Fetch {
        /// Whose outputs.
        drv: DrvId,
    },
    /// Stop a fetch; answered by [`Input::FetchEnded`] like any other.
    StopFetch {
        /// Whose outputs.
        drv: DrvId,
    },
    /// A fetch failed, or what was there is gone: ask the planner, which will add the drv (again). Its users wait.
    Replan {
        /// Which drv.
        drv: DrvId,
    },
    /// The final word on an item, exactly one for each. Only a drv that was fetched and of which more became
    /// wanted later is an item again, with a word of its own; and one whose outputs were gone when they were needed.
    Ended {
        /// Which drv.
        drv: DrvId,
        /// How.
        outcome: DrvOutcome,
    },
}

/// What the run wants of the scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Stop at the first drv that failed.
    pub fail_fast: bool,
    /// Stop when this many drvs have failed themselves; 0 counts as 1.
    pub max_failures: Option<u32>,
    /// How often a drv is tried again, where what happened says nothing about it.
    pub retries: u32,
    /// How often a drv is tried again that failed by itself: 0, unless somebody asked for it.
    pub retry_failures: u32,
    /// How many fetches run at once; 0 counts as 1.
    pub fetch_slots: u32,
    /// There are builders besides the local one: what is fetched and not wanted in the local store itself is done as
    /// soon as its inputs are, without an [`Action::Fetch`]; whoever builds with it brings it to its builder.
    pub fetch_where_needed: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            fail_fast: false,
            max_failures: None,
            retries: 2,
            retry_failures: 0,
            fetch_slots: 8,
            fetch_where_needed: false,
        }
    }
}

/// How many items there are in each state. The sum is the number of items.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// For an input, a planner's answer, or until it may be tried again.
    pub waiting: u32,
    /// For a slot.
    pub ready: u32,
    /// On a builder.
    pub running: u32,
    /// From a cache.
    pub fetching: u32,
    /// Ended as built.
    pub built: u32,
    /// Ended as fetched.
    pub fetched: u32,
    /// Ended as valid.
    pub valid: u32,
    /// Ended by a failure of its own.
    pub failed: u32,
    /// Ended by a failure of an input.
    pub dependency_failed: u32,
    /// Ended by stopping.
    pub cancelled: u32,
}
