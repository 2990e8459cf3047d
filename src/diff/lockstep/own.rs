//! What a derivation says otherwise than its counterpart, by itself: everything that does not follow from an input.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::rewrite::{Rewriter, hashes};
use super::words::{CauseKind, Difference, Masks};
use crate::id::{StorePath, split_name};
use crate::nix_compat::drv::{Derivation, Output};

/// Longest text that is kept of either side, in bytes.
const LONGEST: usize = 16 << 10;

/// Variables that say again what name and outputs say.
const SAID_BY_NAME: [&str; 3] = ["name", "pname", "version"];
const SAID_BY_OUTPUT: [&str; 3] = ["outputHash", "outputHashAlgo", "outputHashMode"];

/// An input that only one side has.
#[derive(Debug)]
pub(super) struct OneSided {
    /// Its name, with the outputs where only those are new.
    pub(super) name: String,
    /// The texts by which its outputs are referred to.
    pub(super) texts: Vec<String>,
}

/// What is compared.
pub(super) struct Sides<'a> {
    pub(super) base: &'a Derivation,
    pub(super) head: &'a Derivation,
    pub(super) removed: Vec<OneSided>,
    pub(super) added: Vec<OneSided>,
    pub(super) masks: &'a Masks,
}

/// Collects what differs.
struct Collector<'a> {
    rewriter: Rewriter,
    masks: &'a Masks,
    found: Vec<Difference>,
    /// Texts that differ in more than the inputs and sources that they name.
    spoken: Vec<u8>,
    /// The texts by which inputs and sources are named that only one side has.
    lone: Vec<Vec<u8>>,
    /// Variables and arguments that differ in nothing but those.
    follow: BTreeSet<String>,
}

/// All that differs, what matters most first. `rewriter` knows the paths of inputs and of own outputs.
pub(super) fn differences(sides: &Sides, rewriter: Rewriter) -> Vec<Difference> {
    let (base, head) = (sides.base, sides.head);
    let lone = sides.removed.iter().chain(&sides.added).flat_map(|input| input.texts.iter().map(|text| last(text)));
    let mut all = Collector {
        rewriter,
        masks: sides.masks,
        found: Vec::new(),
        spoken: Vec::new(),
        lone: lone.collect(),
        follow: BTreeSet::new(),
    };
    let sources = all.sources(base, head);
    let lone = base.input_sources().symmetric_difference(head.input_sources()).filter(|path| !sources.contains(*path));
    all.lone.extend(lone.map(|path| path.to_basename().into_bytes()));
    all.name(base.name(), head.name());
    let by_hash = all.outputs(base, head);
    all.text(CauseKind::System, "system", Some(base.system().as_bytes()), Some(head.system().as_bytes()));
    all.text(CauseKind::Builder, "builder", Some(base.builder().as_bytes()), Some(head.builder().as_bytes()));
    let (ours, theirs) = (base.arguments().join("\n"), head.arguments().join("\n"));
    all.text(CauseKind::Args, "args", Some(ours.as_bytes()), Some(theirs.as_bytes()));
    let left_out = |name: &str| {
        (base.name() != head.name() && SAID_BY_NAME.contains(&name)) || (by_hash && SAID_BY_OUTPUT.contains(&name))
    };
    all.variables(&variables(base), &variables(head), left_out);
    all.lone_sources(base, head, &sources);
    all.inputs(&sides.removed, &sides.added);
    let Collector { mut found, spoken, follow, .. } = all;
    found.sort_by_key(|difference| (difference.revision, rank(difference, &spoken, &follow)));
    found
}

/// What matters most comes first: an input that is new before the variable that names it and nothing else new, but after
/// a text that has changed besides.
fn rank(difference: &Difference, spoken: &[u8], follow: &BTreeSet<String>) -> u8 {
    let is_spoken = |name: &str| names(spoken, &format!("-{name}"));
    match difference.kind {
        CauseKind::Variable | CauseKind::Args if follow.contains(&difference.name) => 12,
        CauseKind::AddedInput | CauseKind::RemovedInput if is_spoken(&difference.name) => 11,
        CauseKind::Dependency => 0,
        CauseKind::Patch => 1,
        CauseKind::Source => 2,
        CauseKind::Output => 3,
        CauseKind::System => 4,
        CauseKind::Builder => 5,
        CauseKind::AddedInput => 6,
        CauseKind::RemovedInput => 7,
        CauseKind::Variable => 8,
        CauseKind::Args => 9,
        CauseKind::Revision | CauseKind::Unreadable => 10,
    }
}

/// Environment and structured attrs in one: name → text.
pub(super) fn variables(drv: &Derivation) -> BTreeMap<String, Cow<'_, [u8]>> {
    let plain = drv.environment().iter().map(|(name, value)| (name.clone(), Cow::Borrowed(value.as_slice())));
    let structured = drv.structured_attrs().into_iter().flat_map(|attrs| attrs.iter());
    let structured = structured.map(|(name, value)| {
        let text = match value {
            serde_json::Value::String(text) => text.clone(),
            // One line for each word of a list, so that a diff shows the one that differs.
            other => serde_json::to_string_pretty(other).unwrap_or_default(),
        };
        (name.to_owned(), Cow::Owned(text.into_bytes()))
    });
    plain.chain(structured).collect()
}

/// For each input, by the texts that stand for its outputs: the variable that names it first, and how far into all
/// texts that is.
pub(super) fn places<'a>(
    user: &Derivation,
    inputs: impl Iterator<Item = impl Iterator<Item = &'a str>>,
) -> Vec<(String, usize)> {
    let mut wanted: HashMap<&[u8], usize> = HashMap::new();
    let mut places = Vec::new();
    for (input, texts) in inputs.enumerate() {
        places.push((String::new(), usize::MAX));
        for text in texts {
            let last = text.rsplit('/').next().unwrap_or(text).as_bytes();
            wanted.insert(hashes(last).next().map_or(last, |(at, len)| &last[at..at + len]), input);
        }
    }
    let mut count = 0;
    let arguments = user.arguments().iter().map(|text| ("args".to_owned(), Cow::Borrowed(text.as_bytes())));
    for (name, text) in variables(user).into_iter().chain(arguments) {
        for (at, len) in hashes(&text) {
            count += 1;
            let Some(input) = wanted.get(&text[at..at + len]) else { continue };
            if let Some(place) = places.get_mut(*input).filter(|place| place.1 == usize::MAX) {
                *place = (name.clone(), count);
            }
        }
    }
    places
}

/// What tells a path or a placeholder from others, without the directory.
fn last(text: &str) -> Vec<u8> {
    text.rsplit('/').next().unwrap_or(text).as_bytes().to_vec()
}

/// The text of the variable that names patches.
pub(super) fn patches(drv: &Derivation) -> Vec<u8> {
    variables(drv).remove("patches").map(Cow::into_owned).unwrap_or_default()
}

/// Whether a text names one of these.
pub(super) fn names(text: &[u8], wanted: &str) -> bool {
    let wanted = wanted.rsplit('/').next().unwrap_or(wanted).as_bytes();
    !wanted.is_empty() && text.windows(wanted.len()).any(|window| window == wanted)
}

impl Collector<'_> {
    /// Sources of equal name and another hash are one that has changed. Gives those that have a counterpart.
    fn sources(&mut self, base: &Derivation, head: &Derivation) -> BTreeSet<StorePath> {
        let (ours, theirs) = (base.input_sources(), head.input_sources());
        let mut matched = BTreeSet::new();
        let (in_base, in_head) = (patches(base), patches(head));
        // .drv files among the sources are inputs, too, and are compared as those.
        let left = |of: &BTreeSet<StorePath>, than: &BTreeSet<StorePath>| -> Vec<StorePath> {
            of.difference(than).filter(|path| !path.is_derivation()).cloned().collect()
        };
        let (ours, mut theirs) = (left(ours, theirs), left(theirs, ours));
        for source in ours {
            let twin = theirs.iter().position(|other| self.masks.are_sources(&source, other));
            let Some(at) = twin.or_else(|| theirs.iter().position(|other| other.name() == source.name())) else {
                continue;
            };
            let other = theirs.remove(at);
            let patch = names(&in_base, &source.to_basename()) || names(&in_head, &other.to_basename());
            let revision = self.masks.are_sources(&source, &other);
            self.rewriter.path(&source, &other);
            self.found.push(Difference {
                kind: if patch { CauseKind::Patch } else { CauseKind::Source },
                name: source.name().to_owned(),
                base: Some(source.to_absolute_path_in(base.store_dir())),
                head: Some(other.to_absolute_path_in(head.store_dir())),
                revision,
            });
            matched.extend([source, other]);
        }
        matched
    }

    /// Sources that only one side has.
    fn lone_sources(&mut self, base: &Derivation, head: &Derivation, matched: &BTreeSet<StorePath>) {
        let (in_base, in_head) = (patches(base), patches(head));
        let mut lone = |of: &Derivation, than: &Derivation, patches: &[u8], is_base: bool| {
            for source in of.input_sources().difference(than.input_sources()) {
                if source.is_derivation() || matched.contains(source) {
                    continue;
                }
                let path = Some(source.to_absolute_path_in(of.store_dir()));
                let (base, head) = if is_base { (path, None) } else { (None, path) };
                let patch = names(patches, &source.to_basename());
                let kind = if patch { CauseKind::Patch } else { CauseKind::Source };
                // A variable that names it says less than this does.
                self.found.push(Difference { kind, name: source.name().to_owned(), base, head, revision: false });
            }
        };
        lone(base, head, &in_base, true);
        lone(head, base, &in_head, false);
    }

    fn name(&mut self, base: &str, head: &str) {
        if base == head {
            return;
        }
        let whole = (Some(base.to_owned()), Some(head.to_owned()));
        if self.masks.equal(base.as_bytes(), head.as_bytes()) {
            let (kind, name) = (CauseKind::Variable, "name".to_owned());
            return self.found.push(Difference { kind, name, base: whole.0, head: whole.1, revision: true });
        }
        let ((package, from), (other, to)) = (split_name(base), split_name(head));
        let same = package == other && !from.is_empty() && !to.is_empty();
        let name = if same { package } else { other };
        let (base, head) = if same { (Some(from.to_owned()), Some(to.to_owned())) } else { whole };
        let kind = CauseKind::Dependency;
        self.found.push(Difference { kind, name: name.to_owned(), base, head, revision: false });
    }

    /// Names of outputs, and hashes of fixed ones; whether such a hash differs.
    fn outputs(&mut self, base: &Derivation, head: &Derivation) -> bool {
        let list = |drv: &Derivation| drv.outputs().keys().cloned().collect::<Vec<_>>().join(" ");
        let (ours, theirs) = (list(base), list(head));
        self.text(CauseKind::Output, "outputs", Some(ours.as_bytes()), Some(theirs.as_bytes()));
        let kind = |drv: &Derivation, name: &str| {
            drv.outputs().get(name).map(|output| match output {
                Output::Fixed { ca } => ca.hash().to_sri_string(),
                Output::InputAddressed { .. } | Output::Deferred => "by its inputs".to_owned(),
                Output::Floating { .. } => "by its content".to_owned(),
                Output::Impure { .. } => "impure".to_owned(),
            })
        };
        let mut differs = false;
        for name in base.outputs().keys().filter(|name| head.outputs().contains_key(*name)) {
            let (ours, theirs) = (kind(base, name), kind(head, name));
            if ours != theirs {
                differs = true;
                let fixed = drv_is_fixed(base) && drv_is_fixed(head);
                // The derivation has one output then, and people know it by the name of the file.
                let name = if fixed { head.name() } else { name };
                let (base, head) = (ours, theirs);
                let difference =
                    Difference { kind: CauseKind::Output, name: name.to_owned(), base, head, revision: false };
                self.found.push(difference);
            }
        }
        differs
    }

    fn variables(
        &mut self,
        base: &BTreeMap<String, Cow<[u8]>>,
        head: &BTreeMap<String, Cow<[u8]>>,
        left_out: impl Fn(&str) -> bool,
    ) {
        let names: BTreeSet<&String> = base.keys().chain(head.keys()).collect();
        for name in names {
            if !left_out(name) {
                self.text(CauseKind::Variable, name, base.get(name).map(|v| &**v), head.get(name).map(|v| &**v));
            }
        }
    }

    /// Inputs that only one side has.
    fn inputs(&mut self, removed: &[OneSided], added: &[OneSided]) {
        let removed = removed.iter().map(|input| (input, CauseKind::RemovedInput));
        for (input, kind) in removed.chain(added.iter().map(|input| (input, CauseKind::AddedInput))) {
            let name = Some(input.name.clone());
            let (base, head) = if kind == CauseKind::RemovedInput { (name, None) } else { (None, name) };
            self.found.push(Difference { kind, name: input.name.clone(), base, head, revision: false });
        }
    }

    /// A text without the words that name an input or source that only one side has.
    fn without_lone(&self, text: Option<&[u8]>) -> Vec<u8> {
        let words = text.unwrap_or_default().split(|byte| byte.is_ascii_whitespace());
        let kept = words.filter(|word| {
            let named = |lone: &Vec<u8>| !lone.is_empty() && word.windows(lone.len()).any(|window| window == lone);
            !word.is_empty() && !self.lone.iter().any(named)
        });
        kept.collect::<Vec<_>>().join(&b' ')
    }

    /// One text of each side.
    fn text(&mut self, kind: CauseKind, name: &str, base: Option<&[u8]>, head: Option<&[u8]>) {
        if base == head {
            return;
        }
        let rewritten = head.map(|head| self.rewriter.rewrite(head));
        if base == rewritten.as_deref() {
            return;
        }
        let revision = match (base, rewritten.as_deref()) {
            (Some(base), Some(head)) => self.masks.equal(base, head),
            // `self.rev or null`: a variable that a dirty tree does not have.
            _ => false,
        };
        let follows = !self.lone.is_empty() && self.without_lone(base) == self.without_lone(rewritten.as_deref());
        if follows {
            self.follow.insert(name.to_owned());
        } else {
            for text in base.into_iter().chain(head) {
                self.spoken.extend_from_slice(text);
                self.spoken.push(b'\n');
            }
        }
        let (base, head) = cut(base, rewritten.as_deref());
        self.found.push(Difference { kind, name: name.to_owned(), base, head, revision });
    }
}

fn drv_is_fixed(drv: &Derivation) -> bool {
    crate::nix_compat::drv::is_fixed_output(drv)
}

/// Texts for people, cut to where they differ if they are long.
fn cut(base: Option<&[u8]>, head: Option<&[u8]>) -> (Option<String>, Option<String>) {
    let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let long = |text: Option<&[u8]>| text.is_some_and(|text| text.len() > LONGEST);
    if !long(base) && !long(head) {
        return (base.map(shown), head.map(shown));
    }
    let (ours, theirs) = (base.unwrap_or_default(), head.unwrap_or_default());
    let equal = ours.iter().zip(theirs).take_while(|(a, b)| a == b).count();
    // From the beginning of a line, or of something like one.
    let line = ours[..equal].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let from = line.max(equal.saturating_sub(400));
    let part = |text: &[u8]| shown(&text[from.min(text.len())..text.len().min(from + LONGEST)]);
    (base.map(part), head.map(part))
}
