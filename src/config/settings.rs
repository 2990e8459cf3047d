//! [`Words`] (what was typed) + environment + file → [`Settings`] (what it means).

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::env::{DROVER_EVAL_WORKERS, DROVER_MAX_JOBS, DROVER_PUSH_TO};
use super::file::{CacheTable, PushTable, ShareTable, SkipTable};
use super::{Env, File, PullRequest};
use crate::error::{Error, Result};
use crate::id::{Kind, System};

/// Where a setting was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A flag.
    Flag,
    /// A variable `DROVER_*`.
    Env,
    /// `drover.toml`.
    File,
    /// Nobody said; drover's default, or what Nix says.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flag => "command line",
            Self::Env => "environment",
            Self::File => "drover.toml",
            Self::Default => "default",
        })
    }
}

/// What the command line said; `None` and empty where it said nothing.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "each field is the flag of the same name")]
pub struct Words {
    pub what: Vec<String>,
    pub kind: Vec<String>,
    pub only: Vec<String>,
    pub exclude: Vec<String>,
    pub systems: Vec<String>,
    pub all_systems: bool,
    pub override_input: Vec<(String, String)>,
    pub reference_lock_file: Option<PathBuf>,
    pub no_update_lock_file: bool,
    pub impure: bool,
    pub accept_flake_config: bool,
    pub option: Vec<(String, String)>,
    pub eval_workers: Option<u32>,
    pub eval_max_memory_size: Option<u64>,
    pub eval_memory: Option<String>,
    pub refresh: bool,
    pub base: Option<String>,
    pub no_base: bool,
    pub ignore_revision: bool,
    pub no_ifd: bool,
    /// `--eval nix-eval-jobs`.
    pub eval_jobs: bool,
    pub attrs_from: Option<String>,
    pub file: Option<PathBuf>,
    pub arg: Vec<(String, String)>,
    pub argstr: Vec<(String, String)>,
    pub max_jobs: Option<String>,
    pub retries: Option<u32>,
    pub fail_fast: bool,
    pub max_failures: Option<u32>,
    pub timeout: Option<u64>,
    pub max_silent_time: Option<u64>,
    pub out_link: Option<PathBuf>,
    /// `--plan`.
    pub plan: Option<PathBuf>,
    /// `--output` of `plan` and `matrix`.
    pub plan_output: Option<PathBuf>,
    pub download: bool,
    pub push_to: Vec<String>,
    pub no_push: bool,
    pub offline: bool,
    pub store: Option<String>,
    /// `--eval-store`.
    pub eval_store: Option<String>,
    pub events: Option<PathBuf>,
    pub result_file: Option<PathBuf>,
    pub result_format: Option<String>,
    pub state_dir: Option<PathBuf>,
    pub json: bool,
    pub print_out_paths: bool,
    pub print_build_logs: bool,
    pub verbose: u8,
}

/// Which attrs are taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttrSettings {
    /// WHAT, as typed; empty means the flake here.
    pub what: Vec<String>,
    /// Kinds; `None` is [`Kind::DEFAULT`].
    pub kinds: Option<Vec<Kind>>,
    /// Globs of which one must match.
    pub only: Vec<String>,
    /// Globs of which none may match.
    pub exclude: Vec<String>,
    /// Systems; `None` is those that some builder can build.
    pub systems: Option<Vec<System>>,
    /// Take every system.
    pub all_systems: bool,
}

/// How the flake is locked and evaluated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EvalSettings {
    /// `--override-input NAME REF`.
    pub override_inputs: Vec<(String, String)>,
    /// Another lock file to read.
    pub reference_lock_file: Option<PathBuf>,
    /// A lock file that is not in step is an error.
    pub no_update_lock_file: bool,
    /// Evaluate impurely.
    pub impure: bool,
    /// Take the flake's `nixConfig`.
    pub accept_flake_config: bool,
    /// `--option NAME VALUE` for Nix.
    pub options: Vec<(String, String)>,
    /// Evaluator processes; `None`: as many as the flake is worth.
    pub workers: Option<u32>,
    /// MiB a worker may hold before it is replaced.
    pub max_memory_mib: Option<u64>,
    /// Bytes that evaluation may take; `None`: a share of the machine's.
    pub memory: Option<u64>,
    /// Do not read a recorded evaluation.
    pub refresh: bool,
    /// An attr that imports from a derivation has failed.
    pub no_ifd: bool,
    /// nix-eval-jobs evaluates.
    pub jobs: bool,
    /// The file of lines of another evaluator, which take the place of evaluating; `-` is standard input.
    pub attrs_from: Option<String>,
    /// The plain Nix file that takes the place of a flake.
    pub file: Option<PathBuf>,
    /// What it is called with: names, and Nix expressions.
    pub args: Vec<(String, String)>,
}

/// What attrs are compared with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BaseSettings {
    /// `--base REF`: it is evaluated if it has no record.
    pub asked: Option<String>,
    /// The pull request that this runs for: what it is compared with is used if there is a record of it.
    pub pull_request: Option<PullRequest>,
    /// `--ignore-revision`: both sides are evaluated with the same revision and time.
    pub ignore_revision: bool,
    /// `[skip]`: globs of paths whose changes affect nothing, as somebody declares.
    pub skip: Vec<String>,
}

/// How drvs are built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildSettings {
    /// Slots of the local store; `None` is Nix's `max-jobs`.
    pub max_jobs: Option<u32>,
    /// Tries after the first, where trying again may help.
    pub retries: u32,
    /// Tries after the first of what failed by itself: 0, unless `retries` is given.
    pub retry_failures: u32,
    /// Stop at the first failed build.
    pub fail_fast: bool,
    /// Stop after so many failed builds.
    pub max_failures: Option<u32>,
    /// A build may take so long.
    pub timeout: Option<Duration>,
    /// A build may be silent so long.
    pub max_silent_time: Option<Duration>,
    /// Bytes that a build may print; one that prints more is stopped.
    pub max_log_size: Option<u64>,
    /// Symlinks to the results, `PREFIX`, `PREFIX-2`, …
    pub out_link: Option<PathBuf>,
    /// Fetch results that caches hold.
    pub download: bool,
}

/// Whether a cache is pushed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushWhen {
    /// Never.
    No,
    /// Yes; a failure is exit 5.
    Yes,
    /// Yes; a failure is a warning.
    Optional,
}

/// One cache that Nix does not already name. Its URL may hold a login, which `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct CacheSettings {
    /// `NAME` of `[cache.NAME]`.
    pub name: Option<String>,
    /// Its URL.
    pub url: String,
    /// Pushed to?
    pub push: PushWhen,
    /// File with the secret key.
    pub secret_key: Option<PathBuf>,
    /// File with a token that is sent with every request.
    pub token_file: Option<PathBuf>,
    /// Keys that may have signed its paths.
    pub public_keys: Vec<String>,
    /// Lower is asked first.
    pub priority: Option<i32>,
    /// Where it was said.
    pub origin: Origin,
}

impl fmt::Debug for CacheSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("CacheSettings");
        shown.field("name", &self.name).field("push", &self.push).field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// Where and how records of evaluations are shared. Its URL may hold a login, which `Debug` does not show.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ShareSettings {
    /// Its URL; `None`: only the folder of the state directory is.
    pub url: Option<String>,
    /// Keys that may have signed records, besides those of caches.
    pub public_keys: Vec<String>,
    /// File with the secret key to sign with, besides those of the caches that are pushed to.
    pub secret_key: Option<PathBuf>,
    /// File with a token that is sent with every request.
    pub token_file: Option<PathBuf>,
    /// This is the pull request of a fork: nothing is signed or written.
    pub read_only: bool,
}

impl fmt::Debug for ShareSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShareSettings").field("read_only", &self.read_only).finish_non_exhaustive()
    }
}

/// What is shown and written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutputSettings {
    /// One JSON document on stdout.
    pub json: bool,
    /// Output paths on stdout.
    pub print_out_paths: bool,
    /// Log lines of builds on the screen.
    pub logs: bool,
    /// How much more is said.
    pub verbose: u8,
    /// Where the document of `--json` is written as well.
    pub result_file: Option<PathBuf>,
    /// A second place for the events.
    pub events: Option<PathBuf>,
    /// Where records are kept.
    pub state_dir: PathBuf,
}

/// Plans in files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlanSettings {
    /// Read instead of a flake.
    pub read: Option<PathBuf>,
    /// Where the plan is written.
    pub write: Option<PathBuf>,
}

/// All that a run is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Which attrs.
    pub attrs: AttrSettings,
    /// Evaluation.
    pub eval: EvalSettings,
    /// What attrs are compared with.
    pub base: BaseSettings,
    /// Building.
    pub build: BuildSettings,
    /// Plans in files.
    pub plan: PlanSettings,
    /// Caches beyond Nix's own.
    pub caches: Vec<CacheSettings>,
    /// Sharing evaluations.
    pub share: ShareSettings,
    /// No network: no cache is asked.
    pub offline: bool,
    /// `--store`.
    pub store: Option<String>,
    /// `--eval-store`.
    pub eval_store: Option<String>,
    /// Screen and files.
    pub output: OutputSettings,
}

/// The first that was said, of flag, environment and file.
fn first<T>(flag: Option<T>, env: Option<T>, file: Option<T>) -> Option<T> {
    flag.or(env).or(file)
}

/// A number from the environment.
fn number<T: std::str::FromStr>(env: &Env, name: &str) -> Result<Option<T>> {
    let Some(text) = env.get(name) else { return Ok(None) };
    text.parse()
        .map(Some)
        .map_err(|_| Error::usage(format!("{name}='{text}' is no number")).hint(format!("unset {name}")))
}

impl Settings {
    /// Puts the words, the environment and the file together.
    pub fn resolve(words: Words, env: &Env, file: File) -> Result<Self> {
        let Some(state_dir) = words.state_dir.clone().or_else(|| env.state_dir()) else {
            return Err(Error::usage("no place for records: neither HOME nor DROVER_STATE_DIR is set")
                .hint("drover run --state-dir DIR"));
        };
        let caches = caches(&words, env, &file)?;
        let share = share(file.share, env)?;
        if let Some(file) = words.reference_lock_file.as_deref().filter(|file| !file.is_file()) {
            return Err(Error::usage(format!("--reference-lock-file {}: there is no such file", file.display()))
                .hint("nix flake lock --output-lock-file FILE    makes one"));
        }
        let kinds = if words.kind.is_empty() { file.attrs.kinds } else { Some(words.kind) };
        let systems = if words.systems.is_empty() { file.attrs.systems } else { Some(words.systems) };
        Ok(Self {
            attrs: AttrSettings {
                what: words.what,
                kinds: kinds.map(|names| names.iter().map(|name| kind_named(name)).collect()).transpose()?,
                only: or_else_list(words.only, file.attrs.only),
                exclude: [words.exclude, file.attrs.exclude].concat(),
                systems: systems.map(|list| list.into_iter().map(system_named).collect()).transpose()?,
                all_systems: words.all_systems,
            },
            eval: EvalSettings {
                override_inputs: words.override_input,
                reference_lock_file: words.reference_lock_file,
                no_update_lock_file: words.no_update_lock_file,
                impure: words.impure,
                accept_flake_config: words.accept_flake_config,
                options: words.option,
                workers: first(words.eval_workers, number(env, DROVER_EVAL_WORKERS)?, file.eval.workers),
                max_memory_mib: words.eval_max_memory_size,
                memory: eval_memory(words.eval_memory.as_deref(), file.eval.max_memory.as_deref())?,
                refresh: words.refresh,
                no_ifd: words.no_ifd,
                args: arguments(words.arg, words.argstr)?,
                jobs: words.eval_jobs,
                attrs_from: words.attrs_from,
                file: words.file,
            },
            base: BaseSettings {
                asked: words.base,
                // A plan has been compared when it was made.
                pull_request: env.pull_request().filter(|_| !words.no_base && words.plan.is_none()),
                ignore_revision: words.ignore_revision,
                skip: skip(file.skip)?,
            },
            build: BuildSettings {
                max_jobs: max_jobs(words.max_jobs.as_deref(), env)?,
                retries: first(words.retries, None, file.build.retries).unwrap_or(2),
                retry_failures: first(words.retries, None, file.build.retries).unwrap_or(0),
                fail_fast: words.fail_fast,
                max_failures: words.max_failures,
                timeout: seconds(first(words.timeout, None, file.build.timeout)),
                max_silent_time: seconds(first(words.max_silent_time, None, file.build.max_silent_time)),
                max_log_size: file.build.max_log_size.filter(|&bytes| bytes > 0),
                out_link: words.out_link,
                download: words.download,
            },
            plan: PlanSettings { read: words.plan, write: words.plan_output },
            caches,
            share,
            offline: words.offline,
            store: words.store,
            eval_store: words.eval_store,
            output: OutputSettings {
                json: words.json,
                print_out_paths: words.print_out_paths,
                logs: words.print_build_logs,
                verbose: words.verbose,
                result_file: result_file(words.result_file, words.result_format.as_deref())?,
                events: words.events,
                state_dir,
            },
        })
    }
}

/// The globs of `[skip]`, which have to be globs.
fn skip(table: SkipTable) -> Result<Vec<String>> {
    for glob in &table.paths {
        if let Err(error) = globset::Glob::new(glob) {
            let message = format!("drover.toml: cannot read the glob '{glob}' of [skip]: {}", error.kind());
            return Err(Error::usage(message).hint("paths = [\"docs/**\", \"*.md\"]"));
        }
    }
    Ok(table.paths)
}

/// Less than this no Nix starts with.
const LEAST_EVAL_MEMORY: u64 = 32 << 20;

/// What the evaluation may take, in bytes.
fn eval_memory(flag: Option<&str>, file: Option<&str>) -> Result<Option<u64>> {
    let (name, text) = match (flag, file) {
        (Some(text), _) => ("--eval-memory ", text),
        (None, Some(text)) => ("drover.toml: max-memory = ", text),
        (None, None) => return Ok(None),
    };
    match size(text) {
        Some(bytes) if bytes >= LEAST_EVAL_MEMORY => Ok(Some(bytes)),
        Some(_) => Err(Error::usage(format!("{name}'{text}' is less than any evaluation takes"))
            .hint("drover run --eval-memory 2GiB")),
        None => Err(Error::usage(format!("{name}'{text}' is no size")).hint("drover run --eval-memory 2GiB")),
    }
}

/// Bytes of `512MiB`, `512M`, `4G`, `1.5GiB`. A bare number is none: it would be bytes to some and MiB to others.
fn size(text: &str) -> Option<u64> {
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

/// The flag's list, or the file's where the flag said nothing.
fn or_else_list(flag: Vec<String>, file: Vec<String>) -> Vec<String> {
    if flag.is_empty() { file } else { flag }
}

/// Seconds, where 0 means no limit, as in Nix.
fn seconds(value: Option<u64>) -> Option<Duration> {
    value.filter(|&s| s > 0).map(Duration::from_secs)
}

/// `-j auto` is what Nix means by it: the number of cores, found later.
fn max_jobs(flag: Option<&str>, env: &Env) -> Result<Option<u32>> {
    let name = if flag.is_some() { "--max-jobs " } else { "DROVER_MAX_JOBS=" };
    match flag.or_else(|| env.get(DROVER_MAX_JOBS)) {
        None => Ok(None),
        Some("auto") => Ok(std::thread::available_parallelism().ok().and_then(|n| u32::try_from(n.get()).ok())),
        Some(text) => match text.parse() {
            Ok(jobs) => Ok(Some(jobs)),
            Err(_) => Err(Error::usage(format!("{name}'{text}' is neither a number nor 'auto'"))
                .hint("drover run --max-jobs auto    as many as there are cores")),
        },
    }
}

/// `--result-file` holds what `--result-format` says; there is one format so far.
fn result_file(file: Option<PathBuf>, format: Option<&str>) -> Result<Option<PathBuf>> {
    match (&file, format) {
        (Some(_), None | Some("json")) | (None, _) => Ok(file),
        (Some(_), Some(other)) => Err(Error::usage(format!("there is no --result-format '{other}' yet, only 'json'"))
            .hint("drover run --result-file FILE --result-format json")),
    }
}

/// A system as Nix writes it: `x86_64-linux`.
fn system_named(name: String) -> Result<System> {
    let fits = name.split_once('-').is_some_and(|(cpu, os)| {
        let word = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
        word(cpu) && word(os)
    });
    match fits {
        true => Ok(System(name)),
        false => {
            Err(Error::usage(format!("'{name}' is no system")).hint("drover run --systems x86_64-linux,aarch64-linux"))
        }
    }
}

/// A kind by the name of its flake output.
fn kind_named(name: &str) -> Result<Kind> {
    if let Some(kind) = Kind::of_output(name) {
        return Ok(kind);
    }
    let names = Kind::LISTED.map(Kind::output);
    let error = Error::usage(format!("no kind is called '{name}'"));
    let by_noun = Kind::LISTED.into_iter().find(|kind| [1, 2].iter().any(|n| kind.noun(*n) == name));
    if let Some(kind) = by_noun {
        return Err(error.hint(format!("drover run --kind {}", kind.output())));
    }
    Err(error.hint(match nearest(name, names) {
        Some(near) => format!("did you mean '{near}'?"),
        None => format!("kinds are {}", names.join(", ")),
    }))
}

/// `--arg` and `--argstr` as Nix expressions.
fn arguments(exprs: Vec<(String, String)>, texts: Vec<(String, String)>) -> Result<Vec<(String, String)>> {
    let quoted = |text: &str| {
        let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$");
        format!("\"{}\"", text.replace('\n', "\\n"))
    };
    let mut args: Vec<(String, String)> = Vec::new();
    let exprs = exprs.into_iter().map(|(name, expr)| (name, format!("({expr}\n)")));
    let texts = texts.into_iter().map(|(name, text)| (name, quoted(&text)));
    for (name, value) in exprs.chain(texts) {
        if args.iter().any(|(known, _)| *known == name) {
            return Err(Error::usage(format!("the argument '{name}' is given twice"))
                .hint("drover run --file FILE --arg NAME EXPR"));
        }
        args.push((name, value));
    }
    Ok(args)
}

/// The name that looks most like the given one, if any looks like it.
pub(crate) fn nearest<'a>(given: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    names
        .into_iter()
        .map(|name| {
            let (given, known) = (given.to_lowercase(), name.to_lowercase());
            // Of a short word, two letters swapped are much.
            let typo = known.len() > 2 && strsim::damerau_levenshtein(&given, &known) == 1;
            (strsim::jaro_winkler(&given, &known).max(if typo { 0.9 } else { 0.0 }), name)
        })
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// The caches of the file, with `--push-to` said on top: a name of the file, or a URL of its own.
fn caches(words: &Words, env: &Env, file: &File) -> Result<Vec<CacheSettings>> {
    let mut caches: Vec<_> = file.cache.iter().map(|(name, table)| from_table(name, table)).collect();
    let from_env = env.get(DROVER_PUSH_TO).map(|list| list.split_whitespace().map(str::to_owned).collect());
    let (asked, origin) = match words.push_to.is_empty() {
        false => (words.push_to.clone(), Origin::Flag),
        true => (from_env.unwrap_or_default(), Origin::Env),
    };
    for word in asked {
        if let Some(cache) = caches.iter_mut().find(|cache| cache.name.as_deref() == Some(&word)) {
            cache.push = PushWhen::Yes;
            cache.origin = origin;
        } else if word.contains("://") {
            caches.push(pushed_to(word, origin));
        } else {
            return Err(unknown_cache(&word, file));
        }
    }
    if words.no_push {
        for cache in &mut caches {
            cache.push = PushWhen::No;
        }
    }
    Ok(caches)
}

/// What `[share]` says, where drover can do it.
fn share(table: ShareTable, env: &Env) -> Result<ShareSettings> {
    let ShareTable { url, public_keys, secret_key, token_file } = table;
    if let Some(url) = &url {
        let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
        let hint =
            "url = \"file:///srv/drover\"    or https://…; without one, carry the folder share/ of the state directory";
        if !url.contains("://") && matches!(scheme, "" | "http" | "https" | "file") {
            let url = super::public_url(url);
            return Err(Error::usage(format!("drover.toml: [share] url = '{url}' is no URL")).hint(hint));
        }
        if !matches!(scheme, "http" | "https" | "file") {
            return Err(Error::usage(format!(
                "drover.toml: [share] takes no '{scheme}' URL yet, only file://, http:// and https://"
            ))
            .hint(hint));
        }
    }
    Ok(ShareSettings { url, public_keys, secret_key, token_file, read_only: env.is_foreign_pull_request() })
}

fn from_table(name: &str, table: &CacheTable) -> CacheSettings {
    CacheSettings {
        name: Some(name.to_owned()),
        url: table.url.clone(),
        push: match table.push {
            PushTable::No => PushWhen::No,
            PushTable::Yes => PushWhen::Yes,
            PushTable::Optional => PushWhen::Optional,
        },
        secret_key: table.secret_key.clone(),
        token_file: table.token_file.clone(),
        public_keys: table.public_keys.clone(),
        priority: table.priority,
        origin: Origin::File,
    }
}

fn pushed_to(url: String, origin: Origin) -> CacheSettings {
    CacheSettings {
        name: None,
        url,
        push: PushWhen::Yes,
        secret_key: None,
        token_file: None,
        public_keys: Vec::new(),
        priority: None,
        origin,
    }
}

fn unknown_cache(word: &str, file: &File) -> Error {
    if let Some(kind) =
        ["cachix", "attic", "niks3", "nix"].into_iter().find(|kind| word.starts_with(&format!("{kind}:")))
    {
        return Error::usage(format!("cannot push to '{word}': '{kind}' caches are not supported yet"))
            .hint("drover run --push-to 'file:///path?secret-key=FILE'    or --no-push");
    }
    let error = Error::usage(format!("--push-to '{word}' is neither a URL nor a cache of drover.toml"));
    error.hint(match nearest(word, file.cache.keys().map(String::as_str)) {
        Some(near) => format!("did you mean '{near}'?    drover run --push-to {near}"),
        None => format!("a URL has a scheme: --push-to file://{}", if word.starts_with('/') { word } else { "/path" }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn resolve(words: Words, env: &[(&str, &str)], file: &str) -> Result<Settings> {
        let mut vars = vec![("HOME", "/home/me")];
        vars.extend_from_slice(env);
        Settings::resolve(words, &Env::of(vars), File::parse(file, Path::new("drover.toml")).unwrap())
    }

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
        let words = |size: &str| Words { eval_memory: Some(size.to_owned()), ..Words::default() };
        let file = "[eval]\nmax-memory = '2GiB'\n";
        assert_eq!(resolve(words("1GiB"), &[], file).unwrap().eval.memory, Some(1 << 30));
        assert_eq!(resolve(Words::default(), &[], file).unwrap().eval.memory, Some(2 << 30));
        assert_eq!(resolve(Words::default(), &[], "").unwrap().eval.memory, None);
        assert!(resolve(words("1MiB"), &[], "").unwrap_err().message.contains("less than any evaluation takes"));
        assert!(resolve(words("much"), &[], "").unwrap_err().message.contains("is no size"));
    }

    #[test]
    fn flags_win_over_environment_and_file() {
        let file = "[eval]\nworkers = 3\n[build]\nretries = 7\n";
        let words = Words { eval_workers: Some(1), ..Words::default() };
        let settings = resolve(words, &[("DROVER_EVAL_WORKERS", "2")], file).unwrap();
        assert_eq!((settings.eval.workers, settings.build.retries), (Some(1), 7));
        let settings = resolve(Words::default(), &[("DROVER_EVAL_WORKERS", "2")], file).unwrap();
        assert_eq!(settings.eval.workers, Some(2));
    }

    #[test]
    fn push_to_takes_a_name_or_a_url_and_helps_with_others() {
        let file = "[cache.acme]\nurl = 'file:///c'\n";
        let push = |word: &str| Words { push_to: vec![word.to_owned()], ..Words::default() };
        assert_eq!(resolve(push("acme"), &[], file).unwrap().caches[0].push, PushWhen::Yes);
        assert_eq!(resolve(push("file:///d"), &[], file).unwrap().caches[1].url, "file:///d");
        assert_eq!(
            resolve(push("acne"), &[], file).unwrap_err().hint.as_deref(),
            Some("did you mean 'acme'?    drover run --push-to acme")
        );
        assert!(resolve(push("/tmp/c"), &[], "").unwrap_err().hint.unwrap().contains("file:///tmp/c"));
    }

    #[test]
    fn no_push_wins() {
        let words = Words { push_to: vec!["file:///d".into()], no_push: true, ..Words::default() };
        assert_eq!(resolve(words, &[], "").unwrap().caches[0].push, PushWhen::No);
    }

    #[test]
    fn a_share_is_a_directory_or_a_server() {
        let url = |url: &str| resolve(Words::default(), &[], &format!("[share]\nurl = '{url}'\n"));
        for good in ["file:///srv/x", "http://h/x", "https://me:pw@h"] {
            assert_eq!(url(good).unwrap().share.url.as_deref(), Some(good));
        }
        for (bad, what) in
            [("s3://bucket", "no 's3' URL yet"), ("cachix:x", "no 'cachix' URL yet"), ("/srv/x", "is no URL")]
        {
            let error = url(bad).unwrap_err();
            assert!(error.message.contains(what) && error.hint.is_some(), "{error:?}");
        }
        assert!(!format!("{:?}", url("https://me:hunter2@h").unwrap()).contains("hunter2"));
    }

    #[test]
    fn a_forks_pull_request_writes_to_no_share() {
        let file = "[share]\nurl = 'file:///srv/x'\n";
        let read_only = |env: &[(&str, &str)]| resolve(Words::default(), env, file).unwrap().share.read_only;
        let gitlab = |source| [("CI_MERGE_REQUEST_PROJECT_ID", "1"), ("CI_MERGE_REQUEST_SOURCE_PROJECT_ID", source)];
        assert!(!read_only(&[("CI", "true"), ("GITLAB_CI", "true")]));
        assert!(read_only(&gitlab("2")) && !read_only(&gitlab("1")));
    }

    #[test]
    fn kinds_are_checked() {
        let words = Words { kind: vec!["nixosConfiguration".into()], ..Words::default() };
        assert_eq!(resolve(words, &[], "").unwrap_err().hint.as_deref(), Some("did you mean 'nixosConfigurations'?"));
    }
}
