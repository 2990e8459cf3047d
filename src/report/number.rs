//! How numbers are written (screens.md rule 8): times, sizes, counts, and names of store paths. The only such place.

/// A time as `7m12s`, under a minute `48s`, under 10 s `0.9s`, from an hour on `1h02m`.
#[must_use]
pub fn duration(seconds: f64) -> String {
    let seconds = if seconds.is_finite() { seconds.max(0.0) } else { 0.0 };
    if seconds < 9.95 {
        return format!("{seconds:.1}s");
    }
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{whole}s"),
        60..3600 => format!("{}m{:02}s", whole / 60, whole % 60),
        _ => format!("{}h{:02}m", whole / 3600, whole % 3600 / 60),
    }
}

/// A time as `0m52s`, for columns of times; whole seconds are cut, not rounded, as on a clock.
#[must_use]
pub fn clock(seconds: f64) -> String {
    let whole = if seconds.is_finite() { seconds.max(0.0) as u64 } else { 0 };
    if whole < 3600 {
        format!("{}m{:02}s", whole / 60, whole % 60)
    } else {
        format!("{}h{:02}m", whole / 3600, whole % 3600 / 60)
    }
}

/// An estimate, no more exact than it deserves: `5s`, `40s`, `7m`, `1h20m`.
#[must_use]
pub fn about(seconds: f64) -> String {
    let seconds = if seconds.is_finite() { seconds.max(0.0) } else { 0.0 };
    if seconds < 10.0 {
        return format!("{}s", seconds.round().max(1.0));
    }
    if seconds < 57.5 {
        return format!("{}s", (seconds / 5.0).round() * 5.0);
    }
    let minutes = (seconds / 60.0).round() as u64;
    if minutes < 60 {
        return format!("{minutes}m");
    }
    let minutes = (seconds / 300.0).round() as u64 * 5;
    format!("{}h{:02}m", minutes / 60, minutes % 60)
}

/// How long ago: `just now`, `5m ago`, `2h ago`, `3 days ago`.
#[must_use]
pub fn ago(seconds: i64) -> String {
    match seconds {
        ..60 => "just now".to_owned(),
        60..3600 => format!("{}m ago", seconds / 60),
        3600..172_800 => format!("{}h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// A size in MiB or GiB; in KiB what is under 0.1 MiB.
#[must_use]
pub fn size(bytes: u64) -> String {
    const KIB: f64 = 1024.0;
    const MIB: f64 = KIB * 1024.0;
    const GIB: f64 = MIB * 1024.0;
    let size = bytes as f64;
    if size >= 0.88 * GIB {
        format!("{:.1} GiB", size / GIB)
    } else if size >= 9.95 * MIB {
        format!("{:.0} MiB", size / MIB)
    } else if size >= 0.1 * MIB {
        format!("{:.1} MiB", size / MIB)
    } else {
        format!("{:.0} KiB", (size / KIB).ceil())
    }
}

/// A count with commas: `30,112`.
#[must_use]
pub fn count(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A count with its noun: `1 drv`, `212 drvs`.
#[must_use]
pub fn plural(n: usize, one: &str, many: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { many })
}

/// `nginx-1.29.4` of `/nix/store/HASH-nginx-1.29.4` or `….drv`; other texts stay.
#[must_use]
pub fn name_version(path: &str) -> &str {
    let base = path.rsplit('/').next().unwrap_or(path);
    let name = match base.split_at_checked(32) {
        Some((hash, rest)) if hash.bytes().all(|b| b.is_ascii_alphanumeric()) => rest.strip_prefix('-').unwrap_or(base),
        _ => base,
    };
    name.strip_suffix(".drv").unwrap_or(name)
}

/// The package that a derivation's name belongs to.
#[must_use]
pub fn pname(name: &str) -> &str {
    crate::id::split_name(name).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_follow_the_rule() {
        let cases = [(0.0, "0.0s"), (0.94, "0.9s"), (9.96, "10s"), (48.2, "48s"), (59.6, "1m00s"), (432.0, "7m12s")];
        for (seconds, text) in cases {
            assert_eq!(duration(seconds), text);
        }
        assert_eq!(duration(3720.0), "1h02m");
        assert_eq!(duration(f64::NAN), "0.0s");
        assert_eq!((clock(52.9), clock(432.0), clock(0.0)), ("0m52s".into(), "7m12s".into(), "0m00s".into()));
    }

    #[test]
    fn estimates_are_round() {
        let cases = [(0.2, "1s"), (7.6, "8s"), (41.0, "40s"), (59.0, "1m"), (432.0, "7m"), (4900.0, "1h20m")];
        for (seconds, text) in cases {
            assert_eq!(about(seconds), text);
        }
    }

    #[test]
    fn sizes_and_counts() {
        assert_eq!(size(214 << 20), "214 MiB");
        assert_eq!(size(966_367_641), "0.9 GiB");
        assert_eq!(size(300_000), "0.3 MiB");
        assert_eq!((size(1), size(0)), ("1 KiB".into(), "0 KiB".into()));
        assert_eq!((count(30_112), count(999), count(1_000_000)), ("30,112".into(), "999".into(), "1,000,000".into()));
        assert_eq!((plural(1, "drv", "drvs"), plural(212, "drv", "drvs")), ("1 drv".into(), "212 drvs".into()));
    }

    #[test]
    fn store_paths_shrink_to_their_names() {
        let drv = "/nix/store/7d4kq0fz1v3c8b2n5m6l9x0y1w2r3s4d-nginx-1.29.4.drv";
        assert_eq!(name_version(drv), "nginx-1.29.4");
        assert_eq!(name_version("plain"), "plain");
        assert_eq!((pname("linux-6.12.58"), pname("system-path"), pname("gcc-13")), ("linux", "system-path", "gcc"));
        assert_eq!(pname("é-1"), "é");
    }
}
