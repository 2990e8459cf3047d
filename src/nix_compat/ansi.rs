//! Takes colours and cursor movements out of what Nix and builders print.

use std::borrow::Cow;

const ESC: u8 = 0x1b;
const BEL: u8 = 0x07;

/// The bytes without CSI sequences (`ESC [ … letter`), OSC and other strings (`ESC ] … BEL` or `ESC \`), two-byte
/// escapes, carriage returns and bells. A sequence that the input cuts off is taken out too.
#[must_use]
pub fn strip(bytes: &[u8]) -> Cow<'_, [u8]> {
    let noise = |byte: &u8| matches!(*byte, ESC | BEL | b'\r');
    let Some(first) = bytes.iter().position(noise) else { return Cow::Borrowed(bytes) };
    let mut out = Vec::with_capacity(bytes.len());
    out.extend_from_slice(&bytes[..first]);
    let mut rest = &bytes[first..];
    while let [byte, after @ ..] = rest {
        rest = match *byte {
            ESC => after_escape(after),
            BEL | b'\r' => after,
            plain => {
                out.push(plain);
                after
            }
        };
    }
    Cow::Owned(out)
}

/// What follows an escape sequence whose ESC has been read.
fn after_escape(bytes: &[u8]) -> &[u8] {
    let after = |end: Option<usize>| end.map_or(&[][..], |end| &bytes[end + 1..]);
    match bytes.first() {
        // CSI: parameters and intermediates are 0x20 to 0x3f, the final byte is 0x40 to 0x7e. Anything else does not
        // belong to it.
        Some(b'[') => match bytes.iter().skip(1).position(|byte| !(0x20..=0x3f).contains(byte)) {
            Some(at) if (0x40..=0x7e).contains(&bytes[at + 1]) => &bytes[at + 2..],
            Some(at) => &bytes[at + 1..],
            None => &[],
        },
        // OSC, DCS, SOS, PM, APC: up to BEL or ESC \; a line's end also ends them, so that one stray escape does not
        // swallow a log.
        Some(b']' | b'P' | b'X' | b'^' | b'_') => {
            match bytes.iter().position(|byte| matches!(*byte, BEL | ESC | b'\n')) {
                Some(at) if bytes[at] == b'\n' => &bytes[at..],
                Some(at) if bytes[at] == ESC && bytes.get(at + 1) == Some(&b'\\') => &bytes[at + 2..],
                Some(at) if bytes[at] == ESC => &bytes[at..],
                end => after(end),
            }
        }
        // Intermediates (character sets), then one more.
        Some(0x20..=0x2f) => after(bytes.iter().position(|byte| !(0x20..=0x2f).contains(byte))),
        Some(b'\n') | None => bytes,
        Some(_) => &bytes[1..],
    }
}

/// [`strip`] as text; what is not UTF-8 becomes `�`.
#[must_use]
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&strip(bytes)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escapes_go_and_text_stays() {
        for (input, wanted) in [
            ("plain", "plain"),
            ("\x1b[31;1merror:\x1b[0m no", "error: no"),
            ("a\x1b]8;;http://x\x07link\x1b]8;;\x1b\\b", "alinkb"),
            ("a\rb\x07", "ab"),
            ("\x1b(Bx\x1b7y\x1b=z", "xyz"),
            ("\x1b[2K\x1b[1Gdone", "done"),
            ("cut \x1b[3", "cut "),
            ("cut \x1b", "cut "),
            ("\x1b]0;title without end\nnext", "\nnext"),
            ("\x1b[3\nnext", "\nnext"),
            ("ü\x1b[0mß", "üß"),
        ] {
            assert_eq!(text(input.as_bytes()), wanted, "{input:?}");
        }
        assert_eq!(strip(b"\xff\x1b[0m\xfe").as_ref(), b"\xff\xfe");
    }

    proptest! {
        #[test]
        fn no_escape_survives_and_twice_is_once(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let once = strip(&bytes).into_owned();
            prop_assert!(!once.contains(&ESC));
            let twice = strip(&once).into_owned();
            prop_assert_eq!(twice, once);
        }
    }
}
