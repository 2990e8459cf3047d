//! Says the texts of the head in the words of the base, so that only what a derivation changes by itself is left.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::id::StorePath;

/// Characters of a store path's hash.
const HASH: usize = 32;

/// Characters of a placeholder's hash.
const PLACEHOLDER: usize = 52;

/// What stands in the head's texts for what stands in the base's.
#[derive(Debug, Default)]
pub(super) struct Rewriter {
    /// Hash → what follows it in the head, if it follows; what takes the place of the hash, and of all of it.
    words: HashMap<Vec<u8>, Word>,
}

#[derive(Debug)]
struct Word {
    tail: Vec<u8>,
    hash: Vec<u8>,
    whole: Vec<u8>,
}

impl Rewriter {
    /// A path of the head stands for one of the base.
    pub(super) fn path(&mut self, base: &StorePath, head: &StorePath) {
        self.text(&base.to_basename(), &head.to_basename());
    }

    /// The same for texts that end in a path's last part, or that are placeholders.
    pub(super) fn text(&mut self, base: &str, head: &str) {
        let last = |text: &str| text.rsplit('/').next().unwrap_or(text).as_bytes().to_vec();
        let (base, head) = (last(base), last(head));
        if base == head {
            return;
        }
        let cut = |text: &[u8]| if text.len() == PLACEHOLDER && is_hash(text) { PLACEHOLDER } else { HASH };
        let (base_cut, head_cut) = (cut(&base), cut(&head));
        let (Some(hash), Some(key), Some(tail)) = (base.get(..base_cut), head.get(..head_cut), head.get(head_cut..))
        else {
            return;
        };
        let word = Word { tail: tail.to_vec(), hash: hash.to_vec(), whole: base.clone() };
        self.words.insert(key.to_vec(), word);
    }

    /// A text of the head in the words of the base.
    pub(super) fn rewrite<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        if self.words.is_empty() {
            return Cow::Borrowed(text);
        }
        let mut out: Option<Vec<u8>> = None;
        let mut done = 0;
        for (at, len) in hashes(text) {
            if at < done {
                continue;
            }
            let Some(word) = self.words.get(&text[at..at + len]) else { continue };
            let out = out.get_or_insert_with(Vec::new);
            out.extend_from_slice(&text[done..at]);
            done = at + len;
            if text[done..].starts_with(&word.tail) {
                out.extend_from_slice(&word.whole);
                done += word.tail.len();
            } else {
                out.extend_from_slice(&word.hash);
            }
        }
        match out {
            None => Cow::Borrowed(text),
            Some(mut out) => {
                out.extend_from_slice(&text[done..]);
                Cow::Owned(out)
            }
        }
    }
}

/// Whether a character occurs in hashes: digits and letters without e, o, t, u.
fn in_hash(byte: u8) -> bool {
    byte.is_ascii_digit() || (byte.is_ascii_lowercase() && !matches!(byte, b'e' | b'o' | b't' | b'u'))
}

fn is_hash(text: &[u8]) -> bool {
    text.iter().all(|byte| in_hash(*byte))
}

/// Where a text may have the hash of a path or of a placeholder: position and length.
pub(super) fn hashes(text: &[u8]) -> impl Iterator<Item = (usize, usize)> {
    runs(text).flat_map(|(from, to)| {
        let places = (from..=to.saturating_sub(HASH))
            .map(move |at| (at, if to - at == PLACEHOLDER { PLACEHOLDER } else { HASH }));
        places.filter(move |(at, len)| at + len <= to)
    })
}

/// The longest pieces of characters that occur in hashes, if a hash fits.
fn runs(text: &[u8]) -> impl Iterator<Item = (usize, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < text.len() {
            let from = at;
            while at < text.len() && in_hash(text[at]) {
                at += 1;
            }
            let to = at;
            at += 1;
            if to - from >= HASH {
                return Some((from, to));
            }
        }
        None
    })
}

/// The text without its hashes.
pub(super) fn blanked(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut done = 0;
    for (from, to) in runs(text) {
        out.extend_from_slice(&text[done..from]);
        done = to;
    }
    out.extend_from_slice(&text[done..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "/nix/store/0c1d2f3g4h5i6j7k8l9m0n1p2q3r4s5v-nginx-1.29.3";
    const HEAD: &str = "/nix/store/1c1d2f3g4h5i6j7k8l9m0n1p2q3r4s5v-nginx-1.29.4";

    #[test]
    fn paths_of_the_head_become_those_of_the_base_whole_or_by_hash() {
        let mut rewriter = Rewriter::default();
        rewriter.text(BASE, HEAD);
        let text = format!("a {HEAD}/bin:{HEAD} 1c1d2f3g4h5i6j7k8l9m0n1p2q3r4s5v! nginx-1.29.4");
        let rewritten = String::from_utf8(rewriter.rewrite(text.as_bytes()).into_owned()).unwrap();
        assert_eq!(rewritten, format!("a {BASE}/bin:{BASE} 0c1d2f3g4h5i6j7k8l9m0n1p2q3r4s5v! nginx-1.29.4"));
    }

    #[test]
    fn placeholders_are_rewritten_too() {
        let (base, head) = (format!("/{}", "a".repeat(52)), format!("/{}", "b".repeat(52)));
        let mut rewriter = Rewriter::default();
        rewriter.text(&base, &head);
        assert_eq!(&*rewriter.rewrite(format!("x{head}/y").as_bytes()), format!("x{base}/y").as_bytes());
    }

    #[test]
    fn texts_without_hashes_stay_as_they_are() {
        let mut rewriter = Rewriter::default();
        rewriter.text(BASE, HEAD);
        for text in ["", "short", "0c1d2f3g4h5i6j7k8l9m0n1p2q3r4s5", BASE] {
            assert!(matches!(rewriter.rewrite(text.as_bytes()), Cow::Borrowed(same) if same == text.as_bytes()));
        }
        assert_eq!(blanked(format!("-I{HEAD}/include").as_bytes()), b"-I/nix/store/-nginx-1.29.4/include");
    }
}
