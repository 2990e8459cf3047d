//! What can happen to a run from outside: the one type that the loop handles.

use crate::build::{Brought, FetchError, News, NotBrought};
use crate::diff::load::LoadError;
use crate::diff::presence::{Fact as CacheFact, Facts};
use crate::error::Error;
use crate::eval::flake::beside::OfNix;
use crate::eval::{Import, Imported, Locked};
use crate::event::{AttemptEnd, Fact, Failure};
use crate::graph::DrvInfo;
use crate::id::{AttemptId, AttrId, BuilderId, CacheId, DrvId, StorePath};
use crate::process::ProcessError;
use crate::report::before::Before;
use crate::store::roots::Made;

use super::base::Found;
use super::caches::Opened;
use super::evaluate::EvalInput;
use super::farm::FarmInput;
use super::keeping::Kept;
use super::pushing::PushInput;

/// One thing that happened.
pub(super) enum Input {
    /// Locking, listing, evaluating.
    Eval(EvalInput),
    /// The base is found and evaluated, or not.
    Base(Result<Found, Error>),
    /// What there is of the base to say why.
    BaseAgain(Option<Box<Locked>>),
    /// What recorded runs of the base say of builds.
    OnBase(Before),
    /// The attrs that differ from the base only by the revision.
    OnlyRevision(Vec<AttrId>),
    /// .drv files were read.
    Loaded(Vec<(DrvId, Result<DrvInfo, LoadError>)>),
    /// The store said which paths are valid.
    Valid(Result<Vec<(Asked, bool)>, Failure>),
    /// The caches that are read from are open, as far as they can be.
    CachesOpen(Vec<Opened>),
    /// The caches answered some of what they were asked; the rest is still to come.
    Facts(Vec<(StorePath, CacheFact)>, Facts),
    /// What an attempt needs is at its builder, or cannot be brought there.
    Prepared(AttemptId, Result<Brought, NotBrought>),
    /// An attempt has something to say.
    News(AttemptId, News),
    /// An attempt ended.
    AttemptEnded(AttemptId, AttemptEnd, Tail),
    /// A fetch ended.
    Fetched(DrvId, Result<(), FetchError>),
    /// About pushing to one cache.
    Push(CacheId, PushInput),
    /// An evaluation beside that of the run imports from a derivation.
    Import(Import),
    /// What an attr imports from was brought into the store that evaluates.
    Imported(AttrId, Imported),
    /// Links to results were made, or not.
    Linked(Result<(), Error>),
    /// A plan was written to a file, or not.
    Written(Result<Fact, Error>),
    /// Something happened to a builder.
    Farm(BuilderId, FarmInput),
    /// A builder was asked which paths it holds; `None`: it did not answer.
    BuilderAnswered(BuilderId, Vec<StorePath>, Option<Vec<bool>>),
    /// How big the outputs of a drv are, and whether they are signed.
    Sized(DrvId, Made),
    /// Results have come into the local store, or not.
    Returned(DrvId, Vec<StorePath>, Result<Brought, NotBrought>),
    /// `nix flake check` has run beside the check, or could not.
    NixChecked(Result<OfNix, ProcessError>),
    /// A builder has made roots for what could not be pushed, or cannot.
    Kept(Kept),
    /// Something is done of which nobody waits for the end.
    Idle,
    /// Somebody wants to stop.
    Stop(u8),
    /// Time has come: a deadline of the scheduler, or to look at the screen.
    Tick,
    /// An effect panicked.
    Broken(String),
}

impl Input {
    /// Whether it says what is asked for or what is there: many of these can be handled before anything is done.
    pub(super) fn is_of_planning(&self) -> bool {
        matches!(
            self,
            Self::Eval(EvalInput::Message(_) | EvalInput::Held(_)) | Self::Loaded(_) | Self::Valid(_) | Self::Facts(..)
        )
    }
}

/// A path that is asked about, and whether caches may be asked next.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) path: StorePath,
    pub(super) caches: bool,
}

/// What is left of an attempt's log.
#[derive(Debug, Default)]
pub(super) struct Tail {
    pub(super) lines: u64,
    pub(super) last: Vec<String>,
}
