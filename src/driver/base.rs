//! The base of a comparison: which commit that is, and what it evaluates to. One effect, which is handed all that it
//! needs and changes nothing but the record of evaluations.
//!
//! A base that somebody asked for (`--base`) is evaluated if it has no record; one that only follows from a pull request
//! is used if its record is at hand, and never evaluated.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::mpsc;

use crate::config::{PullRequest, nearest};
use crate::diff::skip::Skip;
use crate::error::{Error, Fault, Result};
use crate::eval::flake::{self, FlakeOptions, Locked};
use crate::eval::record::{self, Record};
use crate::eval::{Answer, EvalMsg, EvalOptions, Evaluator, Import, Nix, Selection, git};
use crate::id::AttrPath;

use super::context::SharedRoots;
use super::recall::Recall;

/// Characters of a commit that people are shown.
const SHORT: usize = 7;

/// What is to be the base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// What `--base` says: a revision of the flake's repository, or a flake reference.
    Named(String),
    /// What a pull request is to be merged into, where the two parted.
    PullRequest(PullRequest),
}

/// What a base evaluates to.
pub(super) type Answers = BTreeMap<AttrPath, Answer>;

/// A base, and all that it evaluates to.
#[derive(Debug, Clone)]
pub(super) struct Base {
    /// What people call it: `main@a01b77e`.
    pub(super) label: String,
    /// A flake reference that names its source; the locked one, if it had to be locked.
    pub(super) reference: String,
    /// Its commit, if it has one.
    pub(super) rev: Option<String>,
    /// Its source, if it had to be locked: a record is found without.
    pub(super) locked: Option<Locked>,
    /// Its record answered all; nothing was evaluated.
    pub(super) recorded: bool,
    /// Attr → what came out of it.
    pub(super) answers: Answers,
    /// Only these paths have changed since, each named by that glob of `[skip]`: the head is taken to be the same.
    pub(super) skipped: Vec<(String, String)>,
}

/// What became of the search.
pub(super) enum Found {
    /// Here it is.
    Base(Box<Base>),
    /// There is one, and nothing is known of it.
    Missing(Missing),
}

/// Why nothing is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Missing {
    /// One line.
    pub(super) message: String,
    /// What to type.
    pub(super) hint: String,
}

/// How far an evaluation is, for whoever looks.
#[derive(Debug, Default)]
pub(super) struct Progress {
    done: AtomicU32,
    total: AtomicU32,
    label: std::sync::Mutex<String>,
}

impl Progress {
    /// Label, attrs answered, attrs listed; `None` before there is anything to evaluate.
    pub(super) fn look(&self) -> Option<(String, u32, u32)> {
        let label = self.label.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let read = |number: &AtomicU32| number.load(Ordering::Relaxed);
        (!label.is_empty()).then(|| (label, read(&self.done), read(&self.total)))
    }

    fn begin(&self, label: &str) {
        label.clone_into(&mut self.label.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }
}

/// All that finding a base needs.
pub(super) struct Search {
    pub(super) asked: Asked,
    /// What the head is evaluated with; the base is evaluated with the same, but for the source.
    pub(super) options: EvalOptions,
    /// The head.
    pub(super) head: Locked,
    /// Where records are.
    pub(super) recall: Arc<Recall>,
    /// What holds derivations in the store of the evaluators.
    pub(super) roots: SharedRoots,
    pub(super) progress: Arc<Progress>,
    /// Where what the base imports from derivations is asked for.
    pub(super) imports: mpsc::UnboundedSender<Import>,
    /// `[skip]`.
    pub(super) skip: Skip,
}

/// Which source is the base.
struct Which {
    reference: String,
    /// Its commit, if it is one of the head's own repository.
    rev: Option<String>,
    label: String,
}

/// A base before it is evaluated.
struct Source {
    locked: Locked,
    fingerprint: Option<String>,
    record: Option<Record>,
}

/// The first characters of a commit.
pub(super) fn short(commit: &str) -> &str {
    commit.get(..SHORT).unwrap_or(commit)
}

impl Search {
    /// Finds it, and evaluates it if it was asked for and has no record.
    pub(super) async fn find(&self) -> Result<Found> {
        let (which, evaluate) = match &self.asked {
            Asked::Named(name) => (self.named(name).await?, true),
            Asked::PullRequest(request) => match self.of_request(request).await {
                Ok(which) => (which, false),
                Err(missing) => return Ok(Found::Missing(missing)),
            },
        };
        let skipped = self.skipped(&which).await;
        let recorded = self.recorded(&which).await;
        // Where nothing is evaluated, what is not known is not told either.
        if let Some(answers) = recorded.or_else(|| (!skipped.is_empty()).then(Answers::new)) {
            let Which { reference, rev, label } = which;
            return Ok(Found::Base(Box::new(Base {
                label,
                reference,
                rev,
                locked: None,
                recorded: true,
                answers,
                skipped,
            })));
        }
        if !evaluate {
            return Ok(Found::Missing(self.no_record(&which)));
        }
        let source = self.lock(&which).await.map_err(|error| of_base(&which.label, error))?;
        let rev = source.locked.rev.clone();
        let label = match (&which.rev, &rev) {
            (None, Some(rev)) => format!("{}@{}", which.label, short(rev)),
            _ => which.label.clone(),
        };
        let selection = &self.options.selection;
        let known = source.record.as_ref().and_then(|record| record.all(selection));
        let recorded = known.is_some();
        let answers = match known {
            Some(answers) => answers,
            None => self.evaluate(&which, &label, &source).await.map_err(|error| of_base(&label, error))?,
        };
        let reference = source.locked.locked_ref.clone();
        Ok(Found::Base(Box::new(Base {
            label,
            reference,
            rev,
            locked: Some(source.locked),
            recorded,
            answers,
            skipped,
        })))
    }

    /// The paths that have changed since a commit, if `[skip]` names all of them. Where git cannot tell, nothing is
    /// skipped.
    async fn skipped(&self, which: &Which) -> Vec<(String, String)> {
        let (Some(rev), Some(dir), false) = (&which.rev, self.repository(), self.skip.is_empty()) else {
            return Vec::new();
        };
        let changed = git::changed_paths(self.nix(), &dir, rev, self.head.rev.as_deref()).await;
        changed.ok().and_then(|changed| self.skip.covers(&changed)).unwrap_or_default()
    }

    fn nix(&self) -> &Nix {
        &self.options.nix
    }

    /// The repository that the head is in, if it is one of this machine.
    fn repository(&self) -> Option<PathBuf> {
        self.head.work_tree().filter(|_| self.head.original.starts_with("git+file:"))
    }

    /// What `--base` names.
    async fn named(&self, name: &str) -> Result<Which> {
        if is_reference(name) {
            return Ok(Which { reference: name.to_owned(), rev: None, label: name.to_owned() });
        }
        let Some(dir) = self.repository() else {
            let message =
                format!("--base {name} is a revision, and {} is in no git repository here", self.head.original);
            return Err(Error::usage(message).hint("--base takes a flake reference too: --base github:acme/infra/main"));
        };
        let rev = match git::commit_of(self.nix(), &dir, name).await {
            Some(commit) => commit,
            // What CI checks out has no branches of its own.
            None => self.of_remote(&dir, name).await?,
        };
        let label = if rev.starts_with(name) { short(&rev).to_owned() } else { format!("{name}@{}", short(&rev)) };
        Ok(self.at(&dir, rev, label).await)
    }

    /// The commit of a branch that only a remote has.
    async fn of_remote(&self, dir: &std::path::Path, name: &str) -> Result<String> {
        let names = git::names(self.nix(), dir).await;
        let found = match of_remote(&names, name) {
            Some(remote) => git::commit_of(self.nix(), dir, remote).await,
            None => None,
        };
        match found {
            Some(commit) => Ok(commit),
            None => Err(unknown(name, &names, git::is_shallow(self.nix(), dir).await)),
        }
    }

    /// Where a pull request parted from its target.
    async fn of_request(&self, request: &PullRequest) -> std::result::Result<Which, Missing> {
        let missing = |message: String, hint: String| Missing { message, hint };
        let Some(dir) = self.repository() else {
            let message = format!("the flake is in no git repository here, so that {} is not at hand", request.target);
            return Err(missing(message, "drover affected --base FLAKE".to_owned()));
        };
        let nix = self.nix();
        let head = self.head.rev.as_deref().unwrap_or("HEAD");
        let merged = request.merge.as_deref() == Some(head);
        let parents = if merged { git::parents(nix, &dir, head).await } else { Vec::new() };
        let target = &request.target;
        let rev = match (&request.base, parents.as_slice()) {
            (Some(base), _) => base.clone(),
            (None, [base, _]) => base.clone(),
            _ => {
                let names = git::names(nix, &dir).await;
                let here =
                    of_remote(&names, target).or_else(|| names.iter().find(|name| *name == target).map(String::as_str));
                let Some(branch) = here else {
                    let message = format!("the branch {target} is not in this clone");
                    return Err(missing(message, format!("git fetch origin {target}    or {}", request.whole)));
                };
                match git::merge_base(nix, &dir, head, branch).await {
                    Some(base) => base,
                    None => {
                        let message = format!("the history here is too short to hold where this parted from {target}");
                        let hint = format!("git fetch --unshallow origin {target}    or {}", request.whole);
                        return Err(missing(message, hint));
                    }
                }
            }
        };
        let label = format!("{target}@{}", short(&rev));
        Ok(self.at(&dir, rev, label).await)
    }

    /// A commit of the head's own repository.
    async fn at(&self, dir: &std::path::Path, rev: String, label: String) -> Which {
        let shallow = git::is_shallow(self.nix(), dir).await;
        Which { reference: at_commit(&self.head.original, &rev, shallow), rev: Some(rev), label }
    }

    /// What the record of a commit of the head's own repository answers, if that is all. Nothing is locked for it, and
    /// the commit need not be there.
    async fn recorded(&self, which: &Which) -> Option<Answers> {
        let rev = which.rev.as_deref().filter(|_| !self.options.flake.changes_lock())?;
        let counted = self.head.rev_count.is_some();
        // How many ancestors a commit has is no difference that matters.
        for counted in [counted, !counted] {
            let source = record::beside(&self.head, rev, counted)?;
            let fingerprint = record::fingerprint(&source, self.recall.context());
            let record = self.record(&fingerprint).await;
            if let Some(answers) = record.and_then(|record| record.all(&self.options.selection)) {
                return Some(answers);
            }
        }
        None
    }

    /// What is remembered under a fingerprint, here or where evaluations are shared.
    async fn record(&self, fingerprint: &str) -> Option<Record> {
        let mut warnings = Vec::new();
        let known = self.recall.find(fingerprint, &self.options.selection, &mut warnings).await;
        warnings.into_iter().for_each(|warning| self.recall.note(warning));
        known.record
    }

    /// Locks it, and takes what is recorded of it.
    async fn lock(&self, which: &Which) -> Result<Source> {
        let options = self.flake(which);
        let locked = flake::lock(self.nix(), &options).await.map_err(flake::LockError::into_error)?;
        let fingerprint = self.recall.fingerprint(&locked, &options);
        let record = match &fingerprint {
            Some(fingerprint) => self.record(fingerprint).await,
            None => None,
        };
        Ok(Source { locked, fingerprint, record })
    }

    /// The source of a base, which is locked now if it was not before; `None` if it is not there any more.
    pub(super) async fn locked(&self, base: &Base) -> Option<Locked> {
        if let Some(locked) = &base.locked {
            return Some(locked.clone());
        }
        let options = FlakeOptions { reference: base.reference.clone(), ..self.options.flake.clone() };
        let key = base.rev.as_deref().and_then(|rev| self.recall.pinned(&options, rev));
        if let Some(known) = key.as_deref().and_then(|key| self.recall.locked(key)) {
            return Some(known);
        }
        let locked = flake::lock(self.nix(), &options).await.ok()?;
        if let Some(key) = key.filter(|_| Record::may_hold(&locked, &options)) {
            self.recall.keep_locked(&key, &locked);
        }
        Some(locked)
    }

    fn flake(&self, which: &Which) -> FlakeOptions {
        FlakeOptions { reference: which.reference.clone(), ..self.options.flake.clone() }
    }

    /// Evaluates what its record does not answer.
    async fn evaluate(&self, which: &Which, label: &str, source: &Source) -> Result<Answers> {
        let options = EvalOptions { flake: self.flake(which), ..self.options.clone() };
        self.progress.begin(label);
        let names = options.selection.names.clone();
        match self.answers(options.clone(), source).await {
            // The base may not have all that is asked for by name: what it has is asked for one by one.
            Err(error) if error.fault == Fault::Usage && !names.is_empty() => {
                let mut all = BTreeMap::new();
                for name in names {
                    let selection = Selection { names: vec![name], ..options.selection.clone() };
                    let options = EvalOptions { selection, ..options.clone() };
                    match self.answers(options, source).await {
                        Ok(answers) => all.extend(answers),
                        Err(error) if error.fault == Fault::Usage => {}
                        Err(error) => return Err(error),
                    }
                }
                Ok(all)
            }
            done => done,
        }
    }

    async fn answers(&self, options: EvalOptions, source: &Source) -> Result<Answers> {
        let mut evaluator = Evaluator::start(options, source.locked.clone(), source.record.clone());
        let (mut paths, mut answers) = (Vec::new(), BTreeMap::new());
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        while let Some(message) = evaluator.next().await {
            match message {
                EvalMsg::Listed(listed) => {
                    paths = listed.into_iter().map(|listed| listed.path).collect();
                    self.progress.total.store(count(paths.len()), Ordering::Relaxed);
                }
                // Its attrs have no numbers here. If the run has ended, nobody answers.
                EvalMsg::Import(import) => drop(self.imports.send(Import { attr: None, ..import })),
                EvalMsg::Ended { attr, answer, ack, .. } => {
                    if let (Answer::Drv(drv), Some(ack)) = (&answer, ack) {
                        // If the store cannot be reached, whoever needs the derivation says so.
                        let _ = self.roots.lock().await.hold(std::slice::from_ref(&drv.drv)).await;
                        drop(ack);
                    }
                    if let Some(path) = paths.get(attr.index()) {
                        answers.insert(path.clone(), answer);
                    }
                    self.progress.done.store(count(answers.len()), Ordering::Relaxed);
                }
                EvalMsg::Finished { record: Some(record) } => self.remember(source, &record).await,
                EvalMsg::Fatal(error) => return Err(error),
                _ => {}
            }
        }
        Ok(answers)
    }

    /// Stores what was learned, here and where evaluations are shared.
    async fn remember(&self, source: &Source, record: &Record) {
        if let Some(fingerprint) = &source.fingerprint
            && let Some(sealed) = self.recall.store(fingerprint, record)
            && let Err(warning) = self.recall.share(fingerprint, sealed).await
        {
            self.recall.note(warning);
        }
    }

    /// The line about a base that would have to be evaluated.
    fn no_record(&self, which: &Which) -> Missing {
        let rev = which.rev.as_deref().unwrap_or(&which.reference);
        let rev = short(rev);
        Missing {
            message: format!("no record of the merge base {rev}"),
            hint: format!("drover affected --base {rev}    evaluates it"),
        }
    }
}

/// An error about the base, which is not the flake that somebody looks at.
fn of_base(label: &str, error: Error) -> Error {
    Error { message: format!("the base {label}: {}", error.message), ..error }
}

/// Whether `--base` was given a flake reference: revisions have no scheme and are no paths.
fn is_reference(name: &str) -> bool {
    name == "."
        || name == ".."
        || name.contains(':')
        || name.starts_with(['/', '~'])
        || name.starts_with("./")
        || name.starts_with("../")
}

/// The branch of a remote with this name, `origin` first.
fn of_remote<'a>(names: &'a [String], name: &str) -> Option<&'a str> {
    let of = |remote: &&String| remote.split_once('/').is_some_and(|(_, branch)| branch == name);
    let origin = names.iter().find(|remote| of(remote) && remote.starts_with("origin/"));
    origin.or_else(|| names.iter().find(of)).map(String::as_str)
}

/// A reference to another commit of the same repository: without what says which commit or tree it is.
fn at_commit(original: &str, rev: &str, shallow: bool) -> String {
    const OF_COMMIT: [&str; 8] =
        ["ref=", "rev=", "narHash=", "lastModified=", "revCount=", "shallow=", "dirtyRev=", "dirtyShortRev="];
    let (place, query) = original.split_once('?').unwrap_or((original, ""));
    let kept = query.split('&').filter(|pair| !pair.is_empty() && !OF_COMMIT.iter().any(|name| pair.starts_with(name)));
    let mut pairs: Vec<String> = kept.map(str::to_owned).collect();
    pairs.push(format!("rev={rev}"));
    if shallow {
        pairs.push("shallow=1".to_owned());
    }
    format!("{place}?{}", pairs.join("&"))
}

/// There is no such revision: what it may be meant to be, or how it can be had.
fn unknown(name: &str, names: &[String], shallow: bool) -> Error {
    if shallow {
        let error = Error::usage(format!("the clone here is shallow and does not hold {name}"));
        return error.hint(match steps_back(name) {
            Some(steps) => format!("git fetch --deepen={steps}    or fetch-depth: {} where CI checks out", steps + 1),
            None => format!("git fetch --depth=1 origin {name}    or fetch-depth: 0 where CI checks out"),
        });
    }
    let bare = names.iter().flat_map(|name| [Some(name.as_str()), name.split_once('/').map(|(_, branch)| branch)]);
    let mut near: Vec<&str> = Vec::new();
    let mut left: Vec<&str> = bare.flatten().filter(|name| *name != "HEAD").collect();
    while let Some(found) = nearest(name, left.iter().copied()).filter(|_| near.len() < 3) {
        near.push(found);
        left.retain(|name| *name != found);
    }
    Error::usage(format!("--base {name}: there is no such branch, tag or commit here")).hint(match near.as_slice() {
        [] => format!("git fetch origin {name}    or --base with one of: git branch --all"),
        near => format!("did you mean {}?", near.join(" or ")),
    })
}

/// How many commits back `HEAD~3` and `HEAD^^` lead.
fn steps_back(name: &str) -> Option<u32> {
    let at = name.find(['~', '^'])?;
    let mut steps = 0_u32;
    let mut rest = &name[at..];
    while let Some(sign) = rest.chars().next() {
        let digits = rest[1..].find(|c: char| !c.is_ascii_digit()).map_or(rest.len(), |end| end + 1);
        let number = &rest[1..digits];
        steps = steps.checked_add(match sign {
            '~' if !number.is_empty() => number.parse().ok()?,
            '~' | '^' => 1,
            _ => return None,
        })?;
        rest = &rest[digits..];
    }
    Some(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_commit_keeps_what_is_no_commit() {
        for (original, expected) in [
            ("git+file:///a%20b", "git+file:///a%20b?rev=c"),
            ("git+file:///a?dir=sub&ref=refs/heads/x&rev=d", "git+file:///a?dir=sub&rev=c"),
            ("git+file:///a?submodules=1&shallow=1", "git+file:///a?submodules=1&rev=c"),
        ] {
            assert_eq!(at_commit(original, "c", false), expected);
        }
        assert_eq!(at_commit("git+file:///a", "c", true), "git+file:///a?rev=c&shallow=1");
    }

    #[test]
    fn a_revision_is_no_reference() {
        for (name, reference) in [
            ("main", false),
            ("HEAD~1", false),
            ("feature/x", false),
            ("v1.2", false),
            ("github:a/b", true),
            ("git+file:///a?rev=b", true),
            ("./a", true),
            ("/a", true),
            (".", true),
        ] {
            assert_eq!(is_reference(name), reference, "{name}");
        }
    }

    #[test]
    fn what_is_not_here_is_explained() {
        let names = ["main", "feature/login", "origin/HEAD", "origin/maintenance", "v1.2"].map(str::to_owned);
        let hint = |name: &str, shallow| unknown(name, &names, shallow).hint.unwrap();
        assert!(hint("mian", false).starts_with("did you mean main"), "{}", hint("mian", false));
        assert!(hint("maintenence", false).starts_with("did you mean maintenance"), "{}", hint("maintenence", false));
        assert!(hint("qqq", false).starts_with("git fetch origin qqq"));
        assert_eq!(hint("HEAD~3", true), "git fetch --deepen=3    or fetch-depth: 4 where CI checks out");
        assert!(hint("main", true).starts_with("git fetch --depth=1 origin main"));
        assert_eq!(steps_back("HEAD^^~2"), Some(4));
        assert_eq!(steps_back("main"), None);
        assert_eq!(of_remote(&names, "maintenance"), Some("origin/maintenance"));
    }
}
