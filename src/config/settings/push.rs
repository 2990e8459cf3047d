//! What is pushed, and how it is made sure of.

use std::time::Duration;

use super::super::amount::duration;
use super::Words;
use crate::error::{Error, Result};

/// How it is looked at, once all is pushed, whether a cache has it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ReadBack {
    /// The records are read, and the NARs must be there with their sizes.
    #[default]
    Records,
    /// NARs are downloaded and hashed, too.
    Deep,
}

/// What is pushed, and how it is made sure of; the same for all caches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PushSettings {
    /// Nothing is pushed, whatever else says so.
    pub off: bool,
    /// How it is looked at afterwards.
    pub read_back: ReadBack,
    /// Pushing takes so long at most from the start of the run; what is not pushed by then is told.
    pub deadline: Option<Duration>,
    /// What has nothing to build is pushed again if the cache has lost some of it.
    pub require_complete: bool,
}

impl PushSettings {
    /// What flags say.
    pub(super) fn of(words: &Words) -> Result<Self> {
        let deadline = words.push_deadline.as_deref().map(|text| {
            let error = || Error::usage(format!("--push-deadline '{text}' is no time"));
            duration(text).ok_or_else(|| error().hint("drover run --push-deadline 30m    or 90s, 1h30m"))
        });
        let read_back = if words.verify_push_deep { ReadBack::Deep } else { ReadBack::Records };
        let (deadline, require_complete) = (deadline.transpose()?, words.require_complete);
        Ok(Self { off: words.no_push, read_back, deadline, require_complete })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::resolve;
    use super::*;

    #[test]
    fn a_deadline_is_a_time() {
        let of = |text: &str| resolve(Words { push_deadline: Some(text.to_owned()), ..Words::default() }, &[], "");
        assert_eq!(of("30m").unwrap().push.deadline, Some(Duration::from_secs(1800)));
        assert_eq!(of("soon").unwrap_err().message, "--push-deadline 'soon' is no time");
    }
}
