//! In which order attrs are evaluated: those that failed last time go first, so that it is soon known whether they still
//! do; then those that took long before, so that none of them is still evaluated when all others are done. Pure.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::id::AttrPath;

/// What is known of attrs from earlier runs, by their full path.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Expected {
    /// Seconds that they took to evaluate.
    pub seconds: BTreeMap<String, f64>,
    /// Those that failed last time.
    pub failed: BTreeSet<String>,
}

impl Expected {
    /// Seconds that an attr is expected to take.
    #[must_use]
    pub fn seconds(&self, path: &AttrPath) -> Option<f64> {
        self.seconds.get(&path.to_string()).copied()
    }

    /// Whether an attr is expected to fail.
    #[must_use]
    pub fn fails(&self, path: &AttrPath) -> bool {
        !self.failed.is_empty() && self.failed.contains(&path.to_string())
    }
}

/// Orders attrs: first those that are expected to fail, then by the seconds that they took before, in powers of two;
/// within one, and where nothing is known of any of them, they keep their order. One that is not known counts as the
/// mean of those that are.
pub(super) fn order(
    attrs: Vec<usize>,
    expected: impl Fn(usize) -> Option<f64>,
    fails: impl Fn(usize) -> bool,
) -> VecDeque<usize> {
    let mut attrs = attrs;
    let known: Vec<f64> =
        attrs.iter().filter_map(|&attr| expected(attr)).filter(|seconds| seconds.is_finite()).collect();
    if known.is_empty() {
        attrs.sort_by_key(|&attr| !fails(attr));
        return attrs.into();
    }
    let mean = known.iter().sum::<f64>() / known.len() as f64;
    // Milliseconds: below that the order does not matter.
    let power = |seconds: f64| ((seconds.max(0.0) * 1000.0) as u64).checked_ilog2().map_or(0, |power| power + 1);
    attrs.sort_by_key(|&attr| {
        let seconds = expected(attr).filter(|seconds| seconds.is_finite()).unwrap_or(mean);
        (!fails(attr), std::cmp::Reverse(power(seconds)))
    });
    attrs.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(expected: &[Option<f64>]) -> Vec<usize> {
        order((0..expected.len()).collect(), |attr| expected[attr], |_| false).into()
    }

    #[test]
    fn slow_ones_go_first_and_the_rest_keeps_its_order() {
        assert_eq!(ordered(&[None, None, None]), [0, 1, 2]);
        assert_eq!(ordered(&[Some(0.1), Some(0.11), Some(9.0), Some(0.1)]), [2, 0, 1, 3]);
        // The mean is 3 s.
        assert_eq!(ordered(&[Some(0.5), None, Some(0.5), Some(8.0), None]), [3, 1, 4, 0, 2]);
        assert_eq!(ordered(&[Some(f64::NAN), Some(-1.0), Some(f64::INFINITY), Some(2.0)]), [3, 0, 2, 1]);
    }

    #[test]
    fn what_failed_goes_before_what_is_slow() {
        let expected = [Some(9.0), Some(0.1), None];
        let with =
            |expected: &dyn Fn(usize) -> Option<f64>| Vec::from(order(vec![0, 1, 2], expected, |attr| attr == 1));
        assert_eq!(with(&|attr| expected[attr]), [1, 0, 2]);
        assert_eq!(with(&|_| None), [1, 0, 2]);
    }

    proptest::proptest! {
        #[test]
        fn every_attr_is_there_once(expected: Vec<Option<f64>>) {
            let mut order = ordered(&expected);
            order.sort_unstable();
            proptest::prop_assert_eq!(order, (0..expected.len()).collect::<Vec<_>>());
        }
    }
}
