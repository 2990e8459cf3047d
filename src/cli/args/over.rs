//! Flags of reports over many runs.

use clap::Args;

/// What is asked of many runs.
#[derive(Debug, Args)]
#[command(next_help_heading = "Over many runs")]
pub(in crate::cli) struct OverArgs {
    /// One number of the run and those like it before: duration, evaluation, built, closure, hit-rate, …
    #[arg(long, value_name = "METRIC", conflicts_with_all = ["gate", "goals"])]
    pub(in crate::cli) trend: Option<String>,
    /// Why the run took longer than runs like it usually do, or less, by seconds
    #[arg(long, conflicts_with_all = ["trend", "gate", "goals"])]
    pub(in crate::cli) slow: bool,
    /// Exit 1 if the runs of this branch or commit are worse than those of a baseline
    #[arg(long)]
    pub(in crate::cli) gate: bool,
    /// The branch whose runs are the baseline
    #[arg(long, value_name = "BRANCH", default_value = "main", requires = "gate")]
    pub(in crate::cli) baseline: String,
    /// How much worse they may be
    #[arg(long, value_name = "PERCENT", default_value = "10%", requires = "gate", value_parser = percent)]
    pub(in crate::cli) max_regression: Share,
    /// Look only at this number; may be given again
    #[arg(long, value_name = "METRIC", requires = "gate")]
    pub(in crate::cli) metric: Vec<String>,
    /// Whether the last runs reach the goals of drover.toml; exit 1 if not
    #[arg(long, conflicts_with = "gate")]
    pub(in crate::cli) goals: bool,
}

/// A share of 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::cli) struct Share(pub(in crate::cli) f64);

/// `10%`, or `10`.
fn percent(text: &str) -> Result<Share, String> {
    let number: Option<f64> = text.trim_end_matches('%').trim().parse().ok();
    let percent = number.filter(|number| (0.0..=1000.0).contains(number));
    percent.map(|number| Share(number / 100.0)).ok_or_else(|| "it reads 10%, from 0% to 1000%".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percents() {
        assert_eq!((percent("10%"), percent("2.5")), (Ok(Share(0.1)), Ok(Share(0.025))));
        for bad in ["", "%", "-1%", "ten", "1e9"] {
            assert!(percent(bad).is_err(), "{bad}");
        }
    }
}
