//! Whether numbers of one side tend to be greater than those of another: the test of Mann and Whitney.

use std::collections::BTreeMap;

/// Ways to part the numbers up to which all of them are counted.
const EXACT: f64 = 5e5;

/// Pairs up to which the ways are counted where no two numbers are equal.
const PAIRS: usize = 2_500;

/// How many pairs of one number of each side have the greater one on the side of `after`; of equal ones a half.
#[must_use]
pub fn mann_whitney(before: &[f64], after: &[f64]) -> f64 {
    let wins = |x: f64, y: f64| if y > x { 1.0 } else { f64::from(y == x) / 2.0 };
    before.iter().map(|x| after.iter().map(|y| wins(*x, *y)).sum::<f64>()).sum()
}

/// How probable it is that `after` seems to be this much greater, or more, if both are of one kind: small where it is
/// really greater. 1 if a side is empty.
///
/// Exact for few numbers, where all ways to part them are counted; else the normal approximation with corrections for
/// ties and for continuity.
#[must_use]
pub fn p_greater(before: &[f64], after: &[f64]) -> f64 {
    if before.is_empty() || after.is_empty() {
        return 1.0;
    }
    let u = mann_whitney(before, after);
    let mut all: Vec<f64> = before.iter().chain(after).copied().collect();
    all.sort_by(f64::total_cmp);
    let ties = all.windows(2).any(|pair| pair[0] == pair[1]);
    if !ties && before.len() * after.len() <= PAIRS {
        return counted(before.len(), after.len(), u);
    }
    if ways(all.len(), after.len()) <= EXACT {
        return permuted(&all, after);
    }
    approximated(&all, before.len() as f64, after.len() as f64, u)
}

/// Of all orders of `n` and `m` different numbers, the share in which the second side wins at least `u` pairs.
fn counted(n: usize, m: usize, u: f64) -> f64 {
    // Orders of i numbers of the first and j of the second side, by pairs won: the last number is of one or the other.
    let mut rows: Vec<Vec<f64>> = vec![vec![1.0]; m + 1];
    for i in 1..=n {
        let mut next: Vec<Vec<f64>> = vec![vec![1.0]];
        for j in 1..=m {
            let mut counts = vec![0.0; i * j + 1];
            for (won, ways) in rows[j].iter().enumerate() {
                counts[won] += ways;
            }
            for (won, ways) in next[j - 1].iter().enumerate() {
                counts[won + i] += ways;
            }
            next.push(counts);
        }
        rows = next;
    }
    let counts = &rows[m];
    let least = u.ceil().max(0.0) as usize;
    let all: f64 = counts.iter().sum();
    counts.iter().skip(least).sum::<f64>() / all
}

/// The same where some are equal: over all ways to choose the second side, by the sum of its ranks.
fn permuted(sorted: &[f64], after: &[f64]) -> f64 {
    let doubled: Vec<usize> = doubled_ranks(sorted);
    let rank_of = |number: &f64| sorted.iter().position(|other| other == number).map_or(0, |at| doubled[at]);
    let observed: usize = after.iter().map(rank_of).sum();
    // Choices of k numbers, by the sum of their ranks.
    let mut choices: Vec<BTreeMap<usize, f64>> = vec![BTreeMap::new(); after.len() + 1];
    choices[0].insert(0, 1.0);
    for rank in doubled {
        for k in (0..after.len()).rev() {
            let more: Vec<(usize, f64)> = choices[k].iter().map(|(sum, ways)| (sum + rank, *ways)).collect();
            for (sum, ways) in more {
                *choices[k + 1].entry(sum).or_default() += ways;
            }
        }
    }
    let of_all = &choices[after.len()];
    of_all.range(observed..).map(|(_, ways)| ways).sum::<f64>() / of_all.values().sum::<f64>()
}

/// Twice the rank of each: equal numbers share the mean of theirs.
fn doubled_ranks(sorted: &[f64]) -> Vec<usize> {
    let of = |number: &f64| {
        let first = sorted.partition_point(|other| other < number);
        let end = sorted.partition_point(|other| other <= number);
        first + end + 1
    };
    sorted.iter().map(of).collect()
}

fn approximated(sorted: &[f64], n: f64, m: f64, u: f64) -> f64 {
    let all = n + m;
    let mut ties = 0.0;
    for group in sorted.chunk_by(|a, b| a == b) {
        let t = group.len() as f64;
        ties += t.powi(3) - t;
    }
    let variance = n * m / 12.0 * (all + 1.0 - ties / (all * (all - 1.0)));
    if variance <= 0.0 {
        return 1.0;
    }
    above((u - n * m / 2.0 - 0.5) / variance.sqrt())
}

/// The share of a normal distribution above a number of standard deviations (Abramowitz and Stegun 7.1.26; the error is
/// below 1.5e-7).
pub(super) fn above(z: f64) -> f64 {
    let x = z.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let terms = [1.061_405_429, -1.453_152_027, 1.421_413_741, -0.284_496_736, 0.254_829_592];
    let sum = terms.iter().fold(0.0, |sum, term| sum * t + term) * t;
    let half = sum * (-x * x).exp() / 2.0;
    if z >= 0.0 { half } else { 1.0 - half }
}

/// In how many ways `k` of `n` can be chosen.
fn ways(n: usize, k: usize) -> f64 {
    (0..k).fold(1.0, |ways, i| ways * (n - i) as f64 / (i + 1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-6
    }

    #[test]
    fn the_fewest_numbers_have_exact_answers() {
        // One of the six ways to choose two of four.
        assert!(close(p_greater(&[1.0, 2.0], &[3.0, 4.0]), 1.0 / 6.0));
        assert!(close(p_greater(&[3.0, 4.0], &[1.0, 2.0]), 1.0));
        assert!(close(p_greater(&[1.0, 2.0, 3.0, 4.0, 5.0], &[6.0, 7.0, 8.0, 9.0, 10.0]), 1.0 / 252.0));
        assert!(close(p_greater(&[], &[1.0]), 1.0));
    }

    /// Critical values of the one-sided test at 1 % from the tables of Mann and Whitney: for 5 and 5 numbers 1, for 8 and
    /// 8 numbers 9, for 8 and 10 numbers 13, for 20 and 20 numbers 114 pairs may be lost.
    #[test]
    fn published_critical_values_are_met() {
        for (n, m, lost) in [(5, 5, 1), (8, 8, 9), (8, 10, 13), (20, 20, 114)] {
            let won = |lost: usize| (n * m - lost) as f64;
            let (last, next) = (counted(n, m, won(lost)), counted(n, m, won(lost + 1)));
            assert!(last <= 0.01 && next > 0.01, "{n} and {m}: {last} {next}");
        }
    }

    #[test]
    fn three_ways_to_reckon_agree() {
        let before: Vec<f64> = (0..9).map(|i| f64::from(i * 7 % 20)).collect();
        let after: Vec<f64> = (0..9).map(|i| f64::from(i * 5 % 19) + 3.5).collect();
        let mut all: Vec<f64> = before.iter().chain(&after).copied().collect();
        all.sort_by(f64::total_cmp);
        let u = mann_whitney(&before, &after);
        let (exact, all_ways) = (counted(9, 9, u), permuted(&all, &after));
        assert!(close(exact, all_ways), "{exact} {all_ways}");
        assert!((exact - approximated(&all, 9.0, 9.0, u)).abs() < 0.01);
    }

    #[test]
    fn equal_numbers_say_nothing() {
        assert!(close(p_greater(&[2.0; 8], &[2.0; 8]), 1.0));
        assert!(close(p_greater(&[2.0; 40], &[2.0; 40]), 1.0));
        // Two of the four are equal: of six choices, the greatest sum of ranks comes up once in two.
        assert!(close(p_greater(&[1.0, 2.0], &[2.0, 3.0]), 2.0 / 6.0));
    }

    #[test]
    fn the_normal_distribution() {
        for (z, p) in [(0.0, 0.5), (1.644_854, 0.05), (2.326_348, 0.01), (-1.959_964, 0.975)] {
            assert!((above(z) - p).abs() < 1e-6, "{z}");
        }
    }
}
