//! By how much one side is greater than another.

use super::center::{median, quantile};

/// Draws for the interval.
const DRAWS: usize = 200;

/// By how much `after` is greater than `before`, with the interval in which it lies with the probability asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shift {
    /// The estimate.
    pub by: f64,
    /// The lower end of the interval.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// The median of all differences between a number of `after` and one of `before` (Hodges and Lehmann): what one outlier
/// does not move. `None` if a side is empty.
#[must_use]
pub fn hodges_lehmann(before: &[f64], after: &[f64]) -> Option<f64> {
    let differences: Vec<f64> = after.iter().flat_map(|y| before.iter().map(move |x| y - x)).collect();
    median(&differences)
}

/// The same with its interval, found by drawing both sides anew from themselves. `sure`: 0.95 for the interval that
/// holds it in 95 of 100 cases.
#[must_use]
pub fn shift(before: &[f64], after: &[f64], sure: f64) -> Option<Shift> {
    let by = hodges_lehmann(before, after)?;
    let mut dice = Dice(0x5EED);
    let drawn: Vec<f64> = (0..DRAWS)
        .filter_map(|_| {
            let (before, after) = (dice.draw(before), dice.draw(after));
            hodges_lehmann(&before, &after)
        })
        .collect();
    let outside = (1.0 - sure) / 2.0;
    Some(Shift { by, low: quantile(&drawn, outside)?.min(by), high: quantile(&drawn, 1.0 - outside)?.max(by) })
}

/// Numbers that look random and are always the same (SplitMix64, Steele and others 2014).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// As many of them as there are, each drawn from all.
    fn draw(&mut self, numbers: &[f64]) -> Vec<f64> {
        let count = numbers.len() as u64;
        numbers.iter().map(|_| numbers[(self.next() % count) as usize]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outlier_does_not_move_it() {
        let before = [10.0, 11.0, 12.0, 10.5, 11.5];
        let after = [12.0, 13.0, 14.0, 12.5, 90.0];
        assert_eq!(hodges_lehmann(&before, &after), Some(2.0));
        assert_eq!(hodges_lehmann(&[], &after), None);
        let shift = shift(&before, &after, 0.95).unwrap();
        assert!(shift.low > 0.0 && shift.low < 2.0 && shift.high > 2.0, "{shift:?}");
    }

    #[test]
    fn the_same_numbers_always_give_the_same_interval() {
        let (before, after) = ([1.0, 2.0, 3.0, 5.0, 8.0], [2.0, 3.0, 5.0, 8.0, 13.0]);
        assert_eq!(shift(&before, &after, 0.9), shift(&before, &after, 0.9));
    }
}
