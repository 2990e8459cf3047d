//! Sizes and times as people write them.

use std::time::Duration;

/// Bytes of `512MiB`, `512M`, `4G`, `1.5GiB`. A bare number is none: it would be bytes to some and MiB to others.
#[must_use]
pub fn size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim_start().trim_end_matches("iB").trim_end_matches('B') {
        "K" | "k" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return None,
    };
    let number: f64 = number.parse().ok().filter(|number| (0.0..=1e6).contains(number))?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and a million")]
    Some(((number * 1024.0) as u64).saturating_mul(1 << shift) / 1024)
}

/// The time of `90`, which are seconds, `90s`, `10m`, `1h30m`, `2d`; no less than a second.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds)).filter(|time| !time.is_zero());
    }
    let (mut rest, mut seconds) = (text.trim(), 0u64);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let unit = match unit {
            "s" | "sec" => 1,
            "m" | "min" => 60,
            "h" => 60 * 60,
            "d" => 24 * 60 * 60,
            _ => return None,
        };
        seconds = number.parse::<u64>().ok()?.checked_mul(unit)?.checked_add(seconds)?;
        rest = after.trim_start();
    }
    Some(Duration::from_secs(seconds)).filter(|time| !time.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_unit() {
        for (text, bytes) in
            [("512MiB", 512 << 20), ("512M", 512 << 20), ("4G", 4 << 30), ("1.5GiB", 3 << 29), ("2 TB", 2 << 40)]
        {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in ["", "4", "4096", "G", "-1G", "1e3G", "4X", "4GiBs", "9999999999T"] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn times_are_seconds_or_have_units() {
        for (text, seconds) in
            [("90", 90), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("1h 5s", 3605), ("2d", 172_800), ("5min", 300)]
        {
            assert_eq!(duration(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        for text in
            ["", "0", "0s", "m", "1.5h", "10x", "-1", "h1", "99999999999999999999s", "999999999999999999d", "10m5"]
        {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
