//! `--what-if`: what is to be different.

use crate::driver::replay::Change;

/// Changes to a run.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::cli) struct WhatIf(pub(in crate::cli) Vec<Change>);

/// Most builders that may be added.
const MOST: u32 = 1000;

/// `builders=+2,slots=big1:32,without=big2,speed=big1:2,cache=warm`.
pub(super) fn what_if(text: &str) -> Result<WhatIf, String> {
    text.split(',').map(|part| change(part.trim())).collect::<Result<Vec<Change>, String>>().map(WhatIf)
}

fn change(text: &str) -> Result<Change, String> {
    let (word, value) = text.split_once('=').unwrap_or((text, ""));
    let of_builder = || value.rsplit_once(':').filter(|(name, _)| !name.is_empty());
    let change = match word {
        "builders" => value
            .strip_prefix('+')
            .and_then(|more| more.parse().ok())
            .filter(|more| (1..=MOST).contains(more))
            .map(Change::Builders),
        "without" => (!value.is_empty()).then(|| Change::Without(value.to_owned())),
        "slots" => of_builder().and_then(|(name, slots)| Some(Change::Slots(name.to_owned(), slots.parse().ok()?))),
        "speed" => of_builder().and_then(|(name, times)| {
            let times: f64 = times.parse().ok()?;
            (times.is_finite() && times > 0.0).then(|| Change::Speed(name.to_owned(), times))
        }),
        "cache" => (value == "warm").then_some(Change::WarmCache),
        _ => None,
    };
    change.ok_or_else(|| {
        format!("'{text}' is none of builders=+2, without=NAME, slots=NAME:32, speed=NAME:2, cache=warm")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_read() {
        let read = what_if("builders=+2, slots=big1:32,without=big2,speed=a:b:1.5,cache=warm").unwrap();
        let big1 = || "big1".to_owned();
        let expected = [
            Change::Builders(2),
            Change::Slots(big1(), 32),
            Change::Without("big2".to_owned()),
            Change::Speed("a:b".to_owned(), 1.5),
            Change::WarmCache,
        ];
        assert_eq!(read.0, expected);
        let bad = ["", "builders=2", "builders=+0", "builders=+9999", "without=", "slots=big1", "speed=big1:-1"];
        for bad in bad.into_iter().chain(["speed=big1:inf", "cache=cold", "turbo"]) {
            assert!(what_if(bad).is_err(), "{bad}");
        }
    }
}
