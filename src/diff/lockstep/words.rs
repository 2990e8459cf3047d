//! The vocabulary of the comparison: what differs, of which kind, and by which way it is reached.

use std::sync::Arc;

use crate::id::StorePath;

pub use crate::event::CauseKind;

/// One thing that a derivation says otherwise than its counterpart, by itself: what follows from other inputs is not
/// among them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Difference {
    /// What sort of thing. Never [`CauseKind::Revision`]: see `revision`.
    pub kind: CauseKind,
    /// Its name: of the variable, the file, the input, the output.
    pub name: String,
    /// What the base has; `None` if it has nothing of that name. Long texts are cut to where they differ.
    pub base: Option<String>,
    /// What the head has, in the words of the base: paths of inputs and outputs that merely follow are the base's.
    pub head: Option<String>,
    /// It is gone once the revision and the source tree are masked.
    pub revision: bool,
}

/// A pair of derivations that differ by themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// The .drv of the base.
    pub base: StorePath,
    /// The .drv of the head.
    pub head: StorePath,
    /// Of what matters most.
    pub kind: CauseKind,
    /// The name of what matters most: of the package, file, variable, input.
    pub name: String,
    /// What the base has of it.
    pub from: Option<String>,
    /// What the head has of it.
    pub to: Option<String>,
    /// All that differs, what matters most first.
    pub differences: Vec<Difference>,
    /// All outputs have the same paths on both sides: whoever needs them gets the same.
    pub same_outputs: bool,
}

/// A cause, wherever it is found, and the way to the nearest place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// What differs, in the nearest pair.
    pub cause: Arc<Cause>,
    /// (base, head), from what was compared down to the nearest pair; a shortest one.
    pub chain: Vec<(StorePath, StorePath)>,
    /// A number that all causes of one comparison share that say the same.
    pub fold: usize,
    /// The pairs that say the same, the nearest first; not necessarily all.
    pub drvs: Vec<(StorePath, StorePath)>,
    /// How many there are.
    pub count: usize,
}

/// Why two derivations differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Why {
    /// The causes, the nearest first.
    pub causes: Vec<Reached>,
    /// There are more causes than are named.
    pub more: bool,
    /// There were too many pairs, and not all were compared: each count is the least that it can be.
    pub cut: bool,
    /// Every cause is of kind [`CauseKind::Revision`], also those that are not named.
    pub revision_only: bool,
    /// All outputs have the same paths on both sides.
    pub same_outputs: bool,
}

/// What two evaluations may differ in without meaning anything: each text of the base stands for that of the head.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Masks {
    /// `rev`, `shortRev`, `lastModified`, `narHash`, …
    pub texts: Vec<(String, String)>,
    /// The source trees.
    pub sources: Vec<(StorePath, StorePath)>,
}

impl Masks {
    /// Whether two texts are equal but for these.
    #[must_use]
    pub fn equal(&self, base: &[u8], head: &[u8]) -> bool {
        if base == head {
            return true;
        }
        let sources = self.sources.iter().map(|(base, head)| (digest(base), digest(head)));
        let pairs = self.texts.iter().cloned().chain(sources);
        let pairs: Vec<(String, String)> = pairs.filter(|(b, h)| b != h && !b.is_empty() && !h.is_empty()).collect();
        if pairs.is_empty() {
            return false;
        }
        let numbered = |side: fn(&(String, String)) -> &String| {
            let mut texts: Vec<(usize, &[u8])> =
                pairs.iter().enumerate().map(|(number, pair)| (number, side(pair).as_bytes())).collect();
            // The short revision is the beginning of the long one.
            texts.sort_by_key(|(_, text)| std::cmp::Reverse(text.len()));
            texts
        };
        masked(base, &numbered(|pair| &pair.0)) == masked(head, &numbered(|pair| &pair.1))
    }

    /// Whether these are the source trees of both sides.
    #[must_use]
    pub(super) fn are_sources(&self, base: &StorePath, head: &StorePath) -> bool {
        self.sources.iter().any(|(b, h)| b == base && h == head)
    }
}

/// The 32 characters that tell a path from all others.
fn digest(path: &StorePath) -> String {
    path.to_basename().chars().take(32).collect()
}

/// A text as its masks and what is between them.
fn masked<'a>(text: &'a [u8], masks: &[(usize, &[u8])]) -> Vec<(&'a [u8], Option<usize>)> {
    let mut parts = Vec::new();
    let (mut from, mut at) = (0, 0);
    while at < text.len() {
        match masks.iter().find(|(_, mask)| text[at..].starts_with(mask)) {
            Some((number, mask)) => {
                parts.push((&text[from..at], Some(*number)));
                at += mask.len();
                from = at;
            }
            None => at += 1,
        }
    }
    parts.push((&text[from..], None));
    parts
}
