//! The middle of some numbers, and how far they lie from it.

/// The number in the middle; of an even number the mean of the two. `None` of none. What is no number is left out.
#[must_use]
pub fn median(numbers: &[f64]) -> Option<f64> {
    quantile(numbers, 0.5)
}

/// The number below which that share of them lies, `0.5` for the median; between two of them, as far as the share says
/// (Hyndman and Fan's seventh definition).
#[must_use]
pub fn quantile(numbers: &[f64], share: f64) -> Option<f64> {
    let mut sorted: Vec<f64> = numbers.iter().copied().filter(|number| !number.is_nan()).collect();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    let at = share.clamp(0.0, 1.0) * last as f64;
    let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    Some(below + (above - below) * at.fract())
}

/// The median distance from the median.
#[must_use]
pub fn mad(numbers: &[f64]) -> Option<f64> {
    let middle = median(numbers)?;
    let distances: Vec<f64> = numbers.iter().map(|number| (number - middle).abs()).collect();
    median(&distances)
}

/// How far a number lies from the others, in units that compare with standard deviations (Iglewicz and Hoaglin): from
/// 3.5 on it does not belong to them. Where more than half of them are equal, their mean distance takes the place of the
/// median one; `None` if all are equal, or there are none.
#[must_use]
pub fn modified_z(number: f64, others: &[f64]) -> Option<f64> {
    let middle = median(others)?;
    let distance = number - middle;
    let mad = mad(others)?;
    if mad > 0.0 {
        return Some(0.6745 * distance / mad);
    }
    let mean = others.iter().map(|other| (other - middle).abs()).sum::<f64>() / others.len() as f64;
    (mean > 0.0).then(|| distance / (1.253_314 * mean))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn middles() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, f64::NAN, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(quantile(&[1.0, 2.0, 3.0, 4.0, 5.0], 0.9), Some(4.6));
        assert_eq!((quantile(&[7.0, 9.0], 0.0), quantile(&[7.0, 9.0], 1.0)), (Some(7.0), Some(9.0)));
    }

    /// The worked example of the NIST handbook's section on outliers (1.3.5.17).
    #[test]
    fn one_that_does_not_belong_to_them() {
        let numbers = [2.1, 2.6, 2.4, 2.5, 2.3, 2.1, 2.3, 2.6, 8.2, 8.3];
        assert_eq!(mad(&[1.0, 1.0, 2.0, 2.0, 4.0, 6.0, 9.0]), Some(1.0));
        assert!(modified_z(8.3, &numbers).unwrap() > 3.5);
        assert!(modified_z(2.6, &numbers).unwrap().abs() < 3.5);
    }

    #[test]
    fn equal_numbers_have_no_spread() {
        assert_eq!(modified_z(5.0, &[2.0, 2.0, 2.0]), None);
        assert!(modified_z(5.0, &[2.0, 2.0, 2.0, 3.0]).unwrap() > 3.5);
    }
}
