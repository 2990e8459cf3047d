//! What differs from the base: names, the `--json` document of `drover affected`, and its screen.

use serde::Serialize;

use crate::event::{Difference, Evaluated, Failure};
use crate::id::{AttrId, AttrPath, Kind};

use super::failure;
use super::number::{count, duration, plural};
use super::plan;
use super::summary::{Attr, Base, Compared, Summary};
use super::text::{Line, Paint, listed, wrapped};

/// Version of the document.
const VERSION: u32 = 1;

/// Columns of the words in front of names.
const WORD: usize = 16;

/// Skipped paths that the screen names.
const SKIPPED: usize = 8;

/// Whether an attr of the head differs: it is there, and not as it was on the base.
#[must_use]
pub fn is_affected(compared: &Compared) -> bool {
    matches!(compared.difference, Difference::Added | Difference::Changed | Difference::Fixed | Difference::NewlyBroken)
}

/// The affected attrs, in their order.
#[must_use]
pub fn affected(s: &Summary) -> Vec<AttrId> {
    let affected = s.attrs.iter().filter(|(_, attr)| attr.compared.as_ref().is_some_and(is_affected));
    affected.map(|(id, _)| *id).collect()
}

/// The affected attrs by name, one a line; with `hosts` the short names of NixOS configurations, and no others.
#[must_use]
pub fn names(s: &Summary, hosts: bool) -> String {
    let attrs = affected(s).into_iter().filter_map(|id| s.attrs.get(&id));
    let lines = attrs.filter(|attr| !hosts || attr.kind == Kind::NixosConfigurations).map(|attr| match hosts {
        true => format!("{}\n", attr.path.last()),
        false => format!("{}\n", attr.path),
    });
    lines.collect()
}

/// The document (design §2): fields may be added, not renamed.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names are the documented contract")]
pub struct Document {
    pub version: u32,
    pub base: Option<Source>,
    pub head: Option<Source>,
    pub attrs: Vec<AttrDocument>,
    /// Paths that `[skip]` names, where nothing else has changed since the base.
    pub skipped: Vec<Skipped>,
    /// What ended the comparison early.
    pub error: Option<super::json::RunError>,
    pub exit: Option<u8>,
}

/// One of the two sources.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names are the documented contract")]
pub struct Source {
    #[serde(rename = "ref")]
    pub reference: String,
    pub locked: String,
    pub rev: Option<String>,
    /// An earlier evaluation answered.
    pub from_record: bool,
}

/// One attr of either source.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names are the documented contract")]
pub struct AttrDocument {
    pub attr: String,
    pub kind: Kind,
    pub name: String,
    pub status: Difference,
    pub revision_only: bool,
    pub base_drv: Option<String>,
    pub head_drv: Option<String>,
    /// `false` where the drvs differ and what they give is known to be the same.
    pub outputs_differ: bool,
    pub error: Option<super::json::Error>,
}

/// A changed path that `[skip]` names.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names are the documented contract")]
pub struct Skipped {
    pub path: String,
    pub glob: String,
}

/// The document of a folded comparison.
#[must_use]
pub fn document(s: &Summary) -> Document {
    let attrs = s.attrs.values().filter_map(|attr| Some(attr_document(attr, attr.compared.as_ref()?)));
    let removed = s.removed.iter().map(|(path, base_drv)| AttrDocument {
        attr: path.to_string(),
        kind: path.kind(),
        name: name_of(path),
        status: Difference::Removed,
        revision_only: false,
        base_drv: base_drv.as_ref().map(ToString::to_string),
        head_drv: None,
        outputs_differ: true,
        error: None,
    });
    Document {
        version: VERSION,
        base: s.base.as_ref().map(|base| Source {
            reference: base.label.to_string(),
            locked: base.locked.to_string(),
            rev: base.rev.as_ref().map(ToString::to_string),
            from_record: base.recorded,
        }),
        head: s.flake.as_ref().map(|flake| Source {
            reference: flake.original.to_string(),
            locked: flake.locked.to_string(),
            rev: flake.rev.as_ref().map(ToString::to_string),
            from_record: flake.recorded,
        }),
        attrs: attrs.chain(removed).collect(),
        skipped: s
            .skipped
            .iter()
            .map(|skipped| Skipped { path: skipped.path.to_string(), glob: skipped.glob.to_string() })
            .collect(),
        error: s.error.as_ref().map(|error| super::json::RunError {
            message: error.message.to_string(),
            hint: error.hint.as_ref().map(ToString::to_string),
        }),
        exit: s.exit,
    }
}

fn attr_document(attr: &Attr, compared: &Compared) -> AttrDocument {
    let head_drv = match &attr.evaluated {
        Some((_, Evaluated::Drv { drv, .. })) => Some(drv.to_string()),
        _ => None,
    };
    let differ = compared.difference != Difference::Unchanged && !compared.same_outputs;
    AttrDocument {
        attr: attr.path.to_string(),
        kind: attr.kind,
        name: attr.name.to_string(),
        status: compared.difference,
        revision_only: compared.revision_only,
        base_drv: compared.base_drv.as_ref().map(ToString::to_string),
        head_drv,
        outputs_differ: differ,
        error: failure_of(attr).map(|failure| super::json::Error {
            class: Some(failure.class),
            message: failure.message.to_string(),
            position: failure.position.as_ref().map(ToString::to_string),
            root_drv: None,
        }),
    }
}

fn failure_of(attr: &Attr) -> Option<&Failure> {
    match &attr.evaluated {
        Some((_, Evaluated::Failed(failure))) => Some(failure),
        _ => None,
    }
}

/// What people call an attr that the head does not have.
fn name_of(path: &AttrPath) -> String {
    match path.kind() {
        Kind::NixosConfigurations | Kind::DarwinConfigurations | Kind::HomeConfigurations => path.last().to_owned(),
        _ => path.to_string(),
    }
}

/// The branch, tag or commit of a base, without the commit that it stood for.
#[must_use]
pub fn bare(base: &Base) -> &str {
    base.label.split_once('@').map_or(&*base.label, |(name, _)| name)
}

/// `9 hosts, 2 packages affected, 31 unaffected`, if there is a base. What gives the same outputs by another drv has
/// nothing to be built, and is not among the affected here.
#[must_use]
pub fn counted(s: &Summary) -> Option<String> {
    s.base.as_ref()?;
    let same = |id: &AttrId| s.attrs.get(id).and_then(|attr| attr.compared.as_ref()).is_some_and(|c| c.same_outputs);
    let affected: Vec<AttrId> = affected(s).into_iter().filter(|id| !same(id)).collect();
    let compared = s.attrs.values().filter(|attr| attr.compared.is_some()).count();
    let what = if affected.is_empty() { "nothing".to_owned() } else { failure::kinds(s, &affected) };
    Some(format!("{what} affected, {} unaffected", count(compared - affected.len())))
}

/// `main@a01b77e from the record`, or why there is no base.
#[must_use]
pub fn base_line(s: &Summary) -> Option<String> {
    let Some(base) = &s.base else {
        let missing = s.base_missing.as_ref()?;
        let hint = missing.hint.as_ref().map_or_else(String::new, |hint| format!(": {}", hint.replace("    ", " ")));
        return Some(format!("{}{hint}", missing.message));
    };
    let since = s.base_progress.as_ref().map(|progress| base.at.since(progress.since));
    Some(match (base.recorded, since) {
        (true, _) => format!("{} from record", base.label),
        (false, Some(seconds)) => format!("{} evaluated in {}", base.label, duration(seconds)),
        (false, None) => format!("{} evaluated", base.label),
    })
}

/// What is evaluated again so as to tell what differs only by the revision.
#[must_use]
pub fn masked(attrs: u32) -> String {
    format!("{} once more on both sides, with the revision masked", plural(attrs as usize, "attr", "attrs"))
}

/// The screen of `drover affected`; its last line is the verdict.
#[must_use]
pub fn screen(s: &Summary, width: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    if !s.attrs.is_empty() || s.skipped.is_empty() {
        lines.push(plan::eval(s, width));
    }
    lines.extend(
        base_line(s).map(|text| Line::new().paint(Paint::Bold, "base").text(format!("     {text}")).fit(width)),
    );
    let rows = rows(s, width);
    if !rows.is_empty() {
        lines.push(Line::new());
        lines.extend(rows);
    }
    for part in [skipped(s, width), plan::not_evaluated(s, width)] {
        if !part.is_empty() {
            lines.push(Line::new());
            lines.extend(part);
        }
    }
    for warning in &s.warnings {
        lines.push(Line::new().paint(Paint::Warn, "warning").text(format!("  {}", warning.message)).fit(width));
    }
    lines.push(Line::new());
    lines.push(verdict(s, width).fit(width));
    lines
}

/// `affected  9 of 40 hosts, 2 of 6 packages · 35 unaffected`.
fn verdict(s: &Summary, width: usize) -> Line {
    let affected = affected(s);
    let all: Vec<AttrId> = s.attrs.iter().filter(|(_, attr)| attr.compared.is_some()).map(|(id, _)| *id).collect();
    let unaffected = all.len() - affected.len();
    let line = Line::new().paint(Paint::Bold, "affected").text("  ");
    let removed = (!s.removed.is_empty()).then(|| Line::from(format!(" · {} removed", count(s.removed.len()))));
    let with_removed = |line: Line| removed.into_iter().fold(line, |line, part| line.then_if_fits(part, width));
    if affected.is_empty() && all.is_empty() && !s.skipped.is_empty() {
        return line.text("nothing, as [skip] says");
    }
    if affected.is_empty() {
        return with_removed(line.text(format!("nothing: {} as on the base", plural(all.len(), "attr", "attrs"))));
    }
    let parts = s.kinds(|attr| affected.contains(&attr)).into_iter().map(|(kind, n)| {
        let of = all.iter().filter(|id| s.attrs.get(id).is_some_and(|attr| attr.kind == kind)).count();
        format!("{} of {} {}", count(n), count(of), kind.noun(of))
    });
    let what = parts.collect::<Vec<_>>().join(", ");
    with_removed(line.text(format!("{what} · {} unaffected", count(unaffected))))
}

/// A line for each way to differ and kind: `changed         3 hosts     web1 web2 web3`.
fn rows(s: &Summary, width: usize) -> Vec<Line> {
    type Which = fn(&Compared) -> bool;
    let words: [(&str, Paint, Which); 7] = [
        ("newly broken", Paint::Bad, |c| c.difference == Difference::NewlyBroken),
        ("fixed", Paint::Good, |c| c.difference == Difference::Fixed),
        ("added", Paint::Good, |c| c.difference == Difference::Added),
        ("changed", Paint::Bold, |c| c.difference == Difference::Changed && !c.revision_only && !c.same_outputs),
        ("same outputs", Paint::Plain, |c| c.difference == Difference::Changed && c.same_outputs && !c.revision_only),
        ("only revision", Paint::Dim, |c| c.revision_only),
        ("still broken", Paint::Warn, |c| c.difference == Difference::StillBroken),
    ];
    let mut rows: Vec<(&str, Paint, Kind, Vec<String>)> = Vec::new();
    for (word, paint, which) in words {
        let of = |attr: &Attr| attr.compared.as_ref().is_some_and(which);
        let ids: Vec<AttrId> = s.attrs.iter().filter(|(_, attr)| of(attr)).map(|(id, _)| *id).collect();
        for (kind, _) in s.kinds(|attr| ids.contains(&attr)) {
            let of: Vec<AttrId> =
                ids.iter().copied().filter(|id| s.attrs.get(id).is_some_and(|attr| attr.kind == kind)).collect();
            rows.push((word, paint, kind, s.names(&of)));
        }
    }
    let mut kinds: Vec<Kind> = s.removed.iter().map(|(path, _)| path.kind()).collect();
    kinds.sort_unstable();
    kinds.dedup();
    for kind in kinds {
        let of = s.removed.iter().filter(|(path, _)| path.kind() == kind).map(|(path, _)| name_of(path)).collect();
        rows.push(("removed", Paint::Plain, kind, of));
    }
    let label = |kind: Kind, names: &[String]| format!("{} {}", count(names.len()), kind.noun(names.len()));
    let widest = rows.iter().map(|(_, _, kind, names)| label(*kind, names).len()).max().unwrap_or(0);
    let mut last = "";
    let mut lines = Vec::new();
    for (word, paint, kind, names) in rows {
        let head = Line::from("  ").paint(paint, if word == last { "" } else { word }).pad(WORD).text("  ");
        let head = head.text(label(kind, &names)).pad(WORD + 2 + widest).text("  ");
        let left = width.saturating_sub(head.width());
        lines.push(head.text(listed(&names, " ", left)).fit(width));
        last = word;
    }
    lines
}

/// Why nothing was evaluated, and the changed paths with the globs that name them.
#[must_use]
pub fn skipped(s: &Summary, width: usize) -> Vec<Line> {
    let base = s.base.as_ref().map_or("the base", |base| &base.label);
    let (first, rest) = match s.skipped.len() {
        0 => return Vec::new(),
        1 => ("the only path", String::new()),
        n => ("all", format!(" {} paths", count(n))),
    };
    let text = format!("{first}{rest} changed since {base}: named by [skip], so that nothing is evaluated");
    let mut texts = wrapped(&text, width.saturating_sub(9), 3).into_iter();
    let mut lines =
        vec![Line::new().paint(Paint::Warn, "skipped").text(format!("  {}", texts.next().unwrap_or_default()))];
    lines.extend(texts.map(|more| Line::from(format!("         {more}"))));
    let paths = s.skipped.iter().take(SKIPPED).map(|skipped| {
        Line::from(format!("         {}", skipped.path)).paint(Paint::Dim, format!("   {}", skipped.glob)).fit(width)
    });
    lines.extend(paths);
    if s.skipped.len() > SKIPPED {
        lines.push(Line::from(format!("         {} more    drover affected --json", count(s.skipped.len() - SKIPPED))));
    }
    lines
}

/// How far the evaluation of a base is, while it goes on: `base main@a01b77e 12/40`.
#[must_use]
pub fn progress(s: &Summary) -> Option<(String, crate::event::Moment)> {
    let progress = s.base_progress.as_ref().filter(|_| s.base.is_none() && s.base_missing.is_none())?;
    let done = match progress.total {
        0 => String::new(),
        total => format!(" {}/{}", count(progress.done as usize), count(total as usize)),
    };
    Some((format!("base {}{done}", progress.label), progress.since))
}

/// Whether this is a `drover affected`.
#[must_use]
pub fn is_asked(s: &Summary) -> bool {
    s.header.as_ref().is_some_and(|header| &*header.command == "affected")
}
