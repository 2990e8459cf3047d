//! A line of a build's log as people should see it in a file or a report.

use crate::nix_compat::ansi;

/// The longest line that is shown; the log itself keeps it whole.
const MAX_SHOWN: usize = 4096;

/// The line without colour and other terminal control, as UTF-8, and of a progress bar that redraws itself with
/// carriage returns only the last state. No newline at the end.
#[must_use]
pub fn clean(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let last = line.split(|byte| *byte == b'\r').rev().map(visible).find(|text| !text.trim().is_empty());
    last.unwrap_or_default()
}

/// One state of the line, with tabs and backspaces done and other controls taken out.
fn visible(bytes: &[u8]) -> String {
    let text = ansi::text(&bytes[..bytes.len().min(MAX_SHOWN * 4)]);
    let mut out = String::with_capacity(text.len().min(MAX_SHOWN));
    for c in text.chars() {
        if out.len() >= MAX_SHOWN {
            out.push('…');
            break;
        }
        match c {
            '\t' => out.push_str("    "),
            '\u{8}' => drop(out.pop()),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out.truncate(out.trim_end().len());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_and_control_go() {
        assert_eq!(clean(b"\x1b[1;31merror:\x1b[0m no\x07 SSL  \n"), "error: no SSL");
        assert_eq!(clean(b"\x1b]0;title\x07text\x1b]8;;url\x1b\\link"), "textlink");
        assert_eq!(clean(b"ab\x08c"), "ac");
        assert_eq!(clean(b"\x1b[31"), "");
    }

    #[test]
    fn of_a_progress_bar_the_last_state_stays() {
        assert_eq!(clean(b" 10%\r 55%\r100% done\r\n"), "100% done");
        assert_eq!(clean(b"gcc -O2\r"), "gcc -O2");
        assert_eq!(clean(b"\r\r"), "");
    }

    #[test]
    fn bytes_need_not_be_utf8_nor_short() {
        assert_eq!(clean(b"caf\xe9"), "caf\u{fffd}");
        assert!(clean(&vec![b'x'; 1 << 20]).len() < 5000);
    }
}
