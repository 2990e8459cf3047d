//! Shares, and what many tests at once are worth.

/// A share with the interval in which it lies in 95 of 100 cases.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// How many of them.
    pub hit: u64,
    /// All of them.
    pub of: u64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl Rate {
    /// The share itself; 0 of none.
    #[must_use]
    pub fn share(&self) -> f64 {
        if self.of == 0 { 0.0 } else { self.hit as f64 / self.of as f64 }
    }
}

/// The interval of Wilson (1927), which also holds for few and for shares near 0 and 1.
#[must_use]
pub fn wilson(hit: u64, of: u64) -> Rate {
    const Z: f64 = 1.959_964;
    if of == 0 {
        return Rate { hit, of, low: 0.0, high: 1.0 };
    }
    let (n, p) = (of as f64, hit.min(of) as f64 / of as f64);
    let middle = p + Z * Z / (2.0 * n);
    let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    Rate { hit, of, low: ((middle - half) / scale).max(0.0), high: ((middle + half) / scale).min(1.0) }
}

/// Which of many tests hold if at most that share of those that are said to hold may be wrong (Benjamini and Hochberg
/// 1995), in the order given.
#[must_use]
pub fn benjamini_hochberg(ps: &[f64], share: f64) -> Vec<bool> {
    let mut order: Vec<usize> = (0..ps.len()).collect();
    order.sort_by(|a, b| ps[*a].total_cmp(&ps[*b]));
    let holds = |(rank, at): (usize, &usize)| ps[*at] <= share * (rank + 1) as f64 / ps.len() as f64;
    let last = order.iter().enumerate().rposition(holds);
    let mut out = vec![false; ps.len()];
    for at in order.iter().take(last.map_or(0, |last| last + 1)) {
        out[*at] = true;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of Newcombe's comparison of intervals (1998), table I, method 3.
    #[test]
    fn published_intervals() {
        for (hit, of, low, high) in [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)] {
            let rate = wilson(hit, of);
            assert!((rate.low - low).abs() < 6e-5 && (rate.high - high).abs() < 6e-5, "{rate:?}");
        }
        assert_eq!(wilson(0, 0).share(), 0.0);
    }

    /// The example of the paper of 1995: of fifteen tests, four hold.
    #[test]
    fn of_fifteen_tests_four_hold() {
        let ps = [
            0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528,
            0.7590, 1.0,
        ];
        let hold = benjamini_hochberg(&ps, 0.05);
        assert_eq!(hold.iter().filter(|holds| **holds).count(), 4);
        assert!(hold[..4].iter().all(|holds| *holds));
        assert!(benjamini_hochberg(&[], 0.05).is_empty());
    }
}
