//! The screen of bare `drover`: where am I, what next. From plain facts, so that it needs neither an evaluation nor
//! the network; the caller finds them.

use crate::id::Kind;

use super::number::{count, duration};
use super::text::{Line, Paint, listed, wrapped};

/// Lines of a warning that are shown.
const TROUBLE: usize = 6;

/// What the screen says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Facts {
    /// drover's version.
    pub drover: String,
    /// Nix's version; `None` if there is no Nix.
    pub nix: Option<String>,
    /// The flake of this directory, with its scheme.
    pub flake: Option<String>,
    /// Files that differ from the revision; `Some(0)` is a clean tree.
    pub dirty_files: Option<u32>,
    /// How many attrs of each kind the last evaluation found.
    pub attrs: Vec<(Kind, usize)>,
    /// Which evaluation that was: a short revision.
    pub attrs_from: Option<String>,
    /// Builders of the config in force.
    pub builders: Vec<Builder>,
    /// Where they are said: `/etc/nix/machines`.
    pub builders_from: Option<String>,
    /// Caches of the config in force.
    pub caches: Vec<Cache>,
    /// Where they are said: `nix.conf`.
    pub caches_from: Option<String>,
    /// The last run of this flake.
    pub last: Option<LastRun>,
    /// What is in the way: shown as warnings, each with what to type.
    pub troubles: Vec<(String, String)>,
    /// A host to take as the example.
    pub example: Option<String>,
}

/// A builder of the config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Builder {
    /// `local`, `big1`.
    pub name: String,
    /// Slots, where they are said.
    pub slots: Option<u32>,
    /// Systems, as Nix writes them.
    pub systems: Vec<String>,
}

/// A cache of the config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    /// `cache.nixos.org`.
    pub name: String,
    /// It is read from.
    pub pull: bool,
    /// It is pushed to.
    pub push: bool,
}

/// The last run.
#[derive(Debug, Clone, PartialEq)]
pub struct LastRun {
    /// Its id as shown.
    pub run: String,
    /// `2h ago`.
    pub ago: String,
    /// How long it took; `None` if it did not end.
    pub seconds: Option<f64>,
    /// `39 of 40 hosts ok, web3 failed`.
    pub verdict: String,
    /// Something failed in it.
    pub failed: bool,
    /// All was built and not all was pushed.
    pub unpushed: bool,
}

/// The screen.
#[must_use]
pub fn screen(facts: &Facts, width: usize) -> Vec<Line> {
    let mut lines = vec![head(facts, width)];
    let mut row = |label: &str, items: Vec<String>, separator: &str, source: Option<&str>| {
        let line = Line::from(format!("  {label:<10} "));
        let left = width.saturating_sub(line.width());
        // What is no list is cut where it ends.
        let text = if items.len() == 1 { items.concat() } else { listed(&items, separator, left) };
        let line = line.text(text).fit(width);
        let source = source.map(|text| Line::new().paint(Paint::Dim, format!("     {text}")));
        lines.push(source.into_iter().fold(line, |line, source| line.then_if_fits(source, width)));
    };
    if facts.flake.is_some() {
        let kinds: Vec<String> =
            facts.attrs.iter().map(|(kind, n)| format!("{} {}", count(*n), kind.noun(*n))).collect();
        let from = facts.attrs_from.as_ref().map(|rev| format!("names from the evaluation of {rev}"));
        match kinds.is_empty() {
            true => row("attrs", vec!["not evaluated yet".to_owned()], ", ", None),
            false => row("attrs", kinds, ", ", from.as_deref()),
        }
    }
    row("builders", builders(facts), " · ", facts.builders_from.as_deref());
    let caches: Vec<String> = facts.caches.iter().map(cache).collect();
    let caches = if caches.is_empty() { vec!["none".to_owned()] } else { caches };
    row("caches", caches, " · ", Some(&caches_from(facts)));
    if let Some(last) = &facts.last {
        let took = last.seconds.map_or_else(|| "did not end".to_owned(), duration);
        row("last run", vec![[&last.ago, &last.run, &took, &last.verdict].map(String::as_str).join("  ")], "", None);
    }
    for (trouble, hint) in &facts.troubles {
        let mut texts = wrapped(trouble, width.saturating_sub(9), TROUBLE).into_iter();
        let first = texts.next().unwrap_or_default();
        lines.push(Line::new().paint(Paint::Warn, "warning").text(format!("  {first}")));
        lines.extend(texts.map(|more| Line::from(format!("         {more}"))));
        if !hint.is_empty() {
            lines.push(Line::from(format!("         hint: {hint}")));
        }
    }
    lines.push(Line::new().paint(Paint::Bold, "Next:"));
    lines.extend(next(facts, width));
    lines
}

fn head(facts: &Facts, width: usize) -> Line {
    let nix = facts.nix.as_ref().map_or_else(|| "no nix found".to_owned(), |nix| format!("nix {nix}"));
    let flake = facts.flake.as_ref().map_or_else(|| "no flake here".to_owned(), |flake| format!("flake {flake}"));
    let dirty = match facts.dirty_files {
        None | Some(0) => String::new(),
        Some(1) => " (dirty: 1 file)".to_owned(),
        Some(n) => format!(" (dirty: {} files)", count(n as usize)),
    };
    let start = Line::new().paint(Paint::Bold, format!("drover {}", facts.drover)).text(format!(" · {nix} · "));
    let whole = start.clone().text(&flake).text(&dirty);
    if whole.width() <= width {
        return whole;
    }
    // Of a long reference the end says more than the scheme.
    let room = width.saturating_sub(start.width() + dirty.len() + 1);
    let from = flake.char_indices().rev().take(room.max(1)).last().map_or(0, |(at, _)| at);
    start.text("…").text(&flake[from..]).text(dirty).fit(width)
}

fn builders(facts: &Facts) -> Vec<String> {
    if facts.builders.is_empty() {
        return vec!["none".to_owned()];
    }
    let one = |(i, builder): (usize, &Builder)| {
        // The operating system is said once where it is always the same; `-linux` goes without saying.
        let systems: Vec<&str> = builder.systems.iter().map(|s| s.strip_suffix("-linux").unwrap_or(s)).collect();
        let unit = if i == 0 { if builder.slots == Some(1) { " slot" } else { " slots" } } else { "" };
        let slots = builder.slots.map_or_else(String::new, |slots| format!(" {slots}{unit}"));
        format!("{}{slots} {}", builder.name, systems.join(", ")).trim_end().to_owned()
    };
    facts.builders.iter().enumerate().map(one).collect()
}

fn cache(cache: &Cache) -> String {
    let use_of = match (cache.pull, cache.push) {
        (true, true) => "pull+push",
        (true, false) => "pull",
        (false, true) => "push",
        (false, false) => "not used",
    };
    format!("{} {use_of}", cache.name)
}

fn caches_from(facts: &Facts) -> String {
    let from = facts.caches_from.as_deref().unwrap_or_default();
    let push = if facts.caches.iter().any(|cache| cache.push) { "" } else { "nothing is pushed to" };
    let separator = if from.is_empty() || push.is_empty() { "" } else { "; " };
    format!("{from}{separator}{push}")
}

/// What to type next, the likeliest first.
fn next(facts: &Facts, width: usize) -> Vec<Line> {
    let mut rows: Vec<(String, &str)> = Vec::new();
    // Builders are what Nix says: without any, there is no Nix to work with.
    if facts.builders.is_empty() && !facts.troubles.is_empty() {
        rows.push(("drover doctor".to_owned(), "everything that is wrong here, and what mends it"));
    } else if facts.flake.is_none() {
        rows.push(("drover plan FLAKE".to_owned(), "what would be built of a flake elsewhere"));
    } else {
        if let Some(last) = facts.last.as_ref().filter(|last| last.unpushed) {
            rows.push((format!("drover push --run {}", last.run), "what the last run could not push"));
        } else if facts.last.as_ref().is_some_and(|last| last.failed) {
            rows.push(("drover run --failed".to_owned(), "only what failed in the last run"));
        }
        rows.push(("drover plan".to_owned(), "what a run would do, and for how long"));
        if let Some(example) = &facts.example {
            rows.push((format!("drover run {example}"), "build one host"));
        }
        rows.push(("drover run".to_owned(), "build everything"));
    }
    if !rows.iter().any(|(command, _)| command == "drover doctor") {
        rows.push(("drover doctor".to_owned(), "check nix, builders, caches, keys"));
    }
    match &facts.last {
        Some(last) => rows.push((format!("drover report {}", last.run), "what the last run did")),
        None => rows.push(("drover --help".to_owned(), "all commands")),
    }
    let column = rows.iter().map(|(command, _)| Line::from(command.as_str()).width()).max().unwrap_or(0) + 2;
    let line = |(command, about): (String, &str)| {
        Line::from(format!("  {command}")).pad(column).text("  ").paint(Paint::Dim, about).fit(width)
    };
    rows.into_iter().map(line).collect()
}
