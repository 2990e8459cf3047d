//! What a cache says about one path, and whether the receiving store would take it.

use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest as _, Sha256};

use crate::event::{Class, Failure};
use crate::id::{StoreDir, StorePath};
use crate::nix_compat::narinfo::{NarInfo, TrustedPublicKey, nixbase32};

/// What a cache says about one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It has the path, and the receiving store may take it.
    Present(Box<NarInfo>),
    /// It has the path, signed by no key that the receiving store trusts.
    Untrusted(Box<NarInfo>),
    /// It does not have the path.
    Absent,
    /// It gave no usable answer, also not after retries. The message names the cache.
    NoAnswer(Failure),
}

impl Answer {
    /// The record, if the cache has one.
    #[must_use]
    pub fn info(&self) -> Option<&NarInfo> {
        match self {
            Self::Present(info) | Self::Untrusted(info) => Some(info),
            Self::Absent | Self::NoAnswer(_) => None,
        }
    }
}

/// No answer, for this reason.
pub(super) fn no_answer(class: Class, message: impl Into<String>) -> Failure {
    Failure { class, message: message.into().into(), position: None }
}

/// How many paths a cache was asked for in this run, and what it said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Paths asked.
    pub asked: u64,
    /// Present.
    pub present: u64,
    /// Absent.
    pub absent: u64,
    /// There, but signed by no trusted key.
    pub untrusted: u64,
    /// No answer.
    pub no_answer: u64,
}

/// The same, while it grows.
#[derive(Debug, Default)]
pub(super) struct Counters {
    asked: AtomicU64,
    present: AtomicU64,
    absent: AtomicU64,
    untrusted: AtomicU64,
    no_answer: AtomicU64,
}

impl Counters {
    pub(super) fn add<'a>(&self, answers: impl IntoIterator<Item = &'a Answer>) {
        for answer in answers {
            let counter = match answer {
                Answer::Present(_) => &self.present,
                Answer::Untrusted(_) => &self.untrusted,
                Answer::Absent => &self.absent,
                Answer::NoAnswer(_) => &self.no_answer,
            };
            counter.fetch_add(1, Ordering::Relaxed);
            self.asked.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            asked: self.asked.load(Ordering::Relaxed),
            present: self.present.load(Ordering::Relaxed),
            absent: self.absent.load(Ordering::Relaxed),
            untrusted: self.untrusted.load(Ordering::Relaxed),
            no_answer: self.no_answer.load(Ordering::Relaxed),
        }
    }
}

/// Name of the record of a path: its hash part and `.narinfo`.
#[must_use]
pub fn narinfo_name(path: &StorePath) -> String {
    format!("{}.narinfo", nixbase32::encode(path.digest()))
}

/// What the receiving store would take.
#[derive(Debug, Clone)]
pub(super) struct Trust {
    pub(super) store_dir: StoreDir,
    pub(super) keys: Vec<TrustedPublicKey>,
    /// False where the store takes everything from this cache.
    pub(super) check: bool,
}

impl Trust {
    /// A number that is another where other records would be taken.
    pub(super) fn fingerprint(&self) -> i64 {
        let Self { store_dir, keys, check } = self;
        let mut keys: Vec<String> = keys.iter().map(|key| format!("{key:?}")).collect();
        keys.sort_unstable();
        let sum = Sha256::digest(format!("{} {check} {keys:?}", store_dir.as_str()));
        sum.iter().take(8).fold(0, |number, byte| number << 8 | i64::from(*byte))
    }

    /// The record of `path`, if `body` is one. A record of another path under the same hash is no answer.
    pub(super) fn read(&self, path: &StorePath, body: &[u8]) -> Result<NarInfo, Failure> {
        let info = NarInfo::parse_in(&self.store_dir, body).map_err(|error| {
            no_answer(Class::Cache, format!("its record of {} is garbage: {error}", path.to_basename()))
        })?;
        if info.store_path() != path {
            let other = info.store_path().to_basename();
            return Err(no_answer(Class::Cache, format!("its record of {} is one of {other}", path.to_basename())));
        }
        Ok(info)
    }

    /// Turns the body of a record into an answer. Costs a signature check: about 50 µs.
    pub(super) fn judge(&self, path: &StorePath, body: &[u8]) -> Answer {
        match self.read(path, body) {
            Ok(info) if self.takes(&info) => Answer::Present(Box::new(info)),
            Ok(info) => Answer::Untrusted(Box::new(info)),
            Err(failure) => Answer::NoAnswer(failure),
        }
    }

    /// What the reading of a record comes to.
    pub(super) fn answer(&self, path: &StorePath, record: Result<Option<Vec<u8>>, Failure>) -> Answer {
        match record {
            Ok(Some(body)) => self.judge(path, &body),
            Ok(None) => Answer::Absent,
            Err(failure) => Answer::NoAnswer(failure),
        }
    }

    fn takes(&self, info: &NarInfo) -> bool {
        !self.check
            || info.has_valid_signature(&self.store_dir, &self.keys)
            || info.is_content_addressed(&self.store_dir)
    }
}
