//! Numbers in the order in which they came: whether they creep, and where they jump.

use super::center::median;
use super::rank::{above, p_greater};

/// The fewest numbers on either side of a jump.
const SIDE: usize = 5;

/// How numbers creep.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Drift {
    /// From one number to the next (Theil and Sen: the median of all slopes).
    pub slope: f64,
    /// How probable so much creeping is where there is none (Mann and Kendall, either way).
    pub p: f64,
}

/// How numbers creep; `None` of fewer than four.
#[must_use]
pub fn drift(numbers: &[f64]) -> Option<Drift> {
    if numbers.len() < 4 {
        return None;
    }
    let mut slopes = Vec::with_capacity(numbers.len() * numbers.len() / 2);
    let mut sum = 0.0;
    for (i, early) in numbers.iter().enumerate() {
        for (j, late) in numbers.iter().enumerate().skip(i + 1) {
            slopes.push((late - early) / (j - i) as f64);
            sum += if late > early { 1.0 } else { -f64::from(late < early) };
        }
    }
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = numbers.len() as f64;
    let spread = |t: f64| t * (t - 1.0) * (2.0 * t + 5.0);
    let ties: f64 = sorted.chunk_by(|a, b| a == b).map(|group| spread(group.len() as f64)).sum();
    let variance = (spread(n) - ties) / 18.0;
    let z = if variance > 0.0 { (sum.abs() - 1.0).max(0.0) / variance.sqrt() } else { 0.0 };
    Some(Drift { slope: median(&slopes)?, p: (2.0 * above(z)).min(1.0) })
}

/// Where the numbers jump: the index of the first after the latest jump. Found by parting them where the sides differ
/// most, and the newer side again.
#[must_use]
pub fn change_point(numbers: &[f64], p: f64) -> Option<usize> {
    let count = numbers.len();
    let mut best: Option<(f64, usize)> = None;
    for at in SIDE..=count.saturating_sub(SIDE) {
        let (before, after) = numbers.split_at(at);
        let either = 2.0 * p_greater(before, after).min(p_greater(after, before));
        if best.is_none_or(|(known, _)| either < known) {
            best = Some((either, at));
        }
    }
    // As many places were tried.
    let tried = (count + 1).saturating_sub(2 * SIDE).max(1) as f64;
    let (_, at) = best.filter(|(found, _)| found * tried < p)?;
    Some(change_point(&numbers[at..], p).map_or(at, |later| at + later))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_creeps_is_told_from_what_does_not() {
        let creeping: Vec<f64> = (0..12).map(|i| 100.0 + f64::from(i) + f64::from(i * 7 % 5)).collect();
        let drift_of = drift(&creeping).unwrap();
        assert!(drift_of.p < 0.01 && (drift_of.slope - 1.0).abs() < 0.3, "{drift_of:?}");
        let still: Vec<f64> = (0..12).map(|i| 100.0 + f64::from(i * 7 % 5)).collect();
        assert!(drift(&still).unwrap().p > 0.05);
        assert_eq!(drift(&[1.0, 2.0, 3.0]), None);
        let equal = drift(&[2.0; 6]).unwrap();
        assert!(equal.slope == 0.0 && equal.p > 0.99, "{equal:?}");
    }

    #[test]
    fn the_latest_jump_is_found() {
        let mut numbers: Vec<f64> = (0..12).map(|i| 100.0 + f64::from(i * 7 % 5)).collect();
        assert_eq!(change_point(&numbers, 0.01), None);
        numbers.extend((0..12).map(|i| 130.0 + f64::from(i * 7 % 5)));
        assert_eq!(change_point(&numbers, 0.01), Some(12));
        numbers.extend((0..12).map(|i| 110.0 + f64::from(i * 7 % 5)));
        assert_eq!(change_point(&numbers, 0.01), Some(24));
    }
}
