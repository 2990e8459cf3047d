//! What is asked of runs.

use super::super::File;
use super::super::amount::duration;
use crate::error::{Error, Result};

/// What `[goals]` asks of runs; times in seconds, shares of 1.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct GoalSettings {
    /// The share of paths that caches are to have.
    pub hit_rate: Option<f64>,
    /// How long a run may take.
    pub duration: Option<f64>,
    /// The share of runs that are to end well.
    pub success_rate: Option<f64>,
    /// How long it may take until what failed for no fault of its own is built.
    pub recovery: Option<f64>,
    /// How long it may take until the first failure is told.
    pub first_failure: Option<f64>,
}

impl GoalSettings {
    /// What the file says.
    pub(super) fn of(file: &File) -> Result<Self> {
        let table = &file.goals;
        Ok(Self {
            hit_rate: share("hit-rate", table.hit_rate)?,
            duration: time("duration", table.duration.as_deref())?,
            success_rate: share("success-rate", table.success_rate)?,
            recovery: time("recovery", table.recovery.as_deref())?,
            first_failure: time("first-failure", table.first_failure.as_deref())?,
        })
    }
}

fn share(key: &str, value: Option<f64>) -> Result<Option<f64>> {
    match value {
        Some(share) if !(0.0..=1.0).contains(&share) => {
            let message = format!("drover.toml: [goals] {key} = {share} is no share of 1");
            Err(Error::usage(message).hint(format!("{key} = 0.9    for 90 %")))
        }
        share => Ok(share),
    }
}

fn time(key: &str, value: Option<&str>) -> Result<Option<f64>> {
    let Some(text) = value else { return Ok(None) };
    let time = duration(text).ok_or_else(|| {
        let message = format!("drover.toml: [goals] {key} = '{text}' is no time");
        Error::usage(message).hint(format!("{key} = \"10m\"    or 90s, 1h30m"))
    })?;
    Ok(Some(time.as_secs_f64()))
}

#[cfg(test)]
mod tests {
    use super::super::Words;
    use super::super::testing::resolve;

    #[test]
    fn goals_are_shares_and_times() {
        let goals = |text: &str| resolve(Words::default(), &[], &format!("[goals]\n{text}\n"));
        let both = goals("hit-rate = 0.9\nduration = '10m'").unwrap().goals;
        assert_eq!((both.hit_rate, both.duration, both.recovery), (Some(0.9), Some(600.0), None));
        for (bad, what) in [("hit-rate = 90.0", "is no share of 1"), ("recovery = 'soon'", "is no time")] {
            let error = goals(bad).unwrap_err();
            assert!(error.message.contains(what) && error.hint.is_some(), "{error:?}");
        }
    }
}
