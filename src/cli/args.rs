//! The words of the command line. Parsing checks words only; what they mean is decided in `config`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::Words;

/// Evaluate a flake once, build what nobody has built yet, push it, and say where the time went
#[derive(Debug, Parser)]
#[command(name = "drover", version, disable_help_subcommand = true, max_term_width = 100, after_help = AFTER)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Option<Command>,
    #[command(flatten)]
    pub(super) place: Place,
}

/// Below the commands.
const AFTER: &str = "Without a command: where am I, what next\n\nMore:\n  drover help COMMAND\n  drover help aliases    \
    flags of nix and nix-fast-build that are taken too";

/// The second help page.
pub(super) const ALIASES: &str = "\
Flags that drover takes because nix and nix-fast-build have them:

  --flake REF                  the same as WHAT: drover run REF
  --copy-to CACHE              the same as --push-to CACHE
  --skip-cached                always on: nothing that a cache has is built
  --no-link                    the default: drover run --out-link PATH makes links
  --result-format json         with --result-file FILE: the document of --json in a file
  --eval-max-memory-size MIB   as in nix-eval-jobs

Flags that mean something else there, and are refused:

  --select FUNCTION            drover run --only GLOB --exclude GLOB --kind KIND
";

/// The verbs.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Evaluate, compare, build, push and record
    #[command(after_help = "Examples:\n  drover run                     everything that is built by default\n  \
        drover run web1 db1            two hosts\n  drover run --push-to acme      and push to [cache.acme] of drover.toml")]
    Run(Box<RunArgs>),
    /// Show what would be built, fetched and pushed, and for how long
    #[command(after_help = "Example:\n  drover plan .#web1 --json")]
    Plan(Box<PlanArgs>),
    /// Pack what must be built into the rows of a CI matrix
    #[command(after_help = "Examples:\n  drover matrix --format github --github-output -o plan.drover\n  \
        drover matrix --format gitlab -o plan.drover > child.yml\n  \
        drover run --plan plan.drover ATTR…      in each row, with its `args`")]
    Matrix(Box<MatrixArgs>),
    /// Say why something has to be built: what changed against a base, or why no cache has it
    #[command(after_help = "Examples:\n  drover why web1 --base main    what makes it differ from main\n  \
        drover why --base main         the same of all that differs, by cause\n  \
        drover why web1                why no cache has it, and what is built for it first")]
    Why(Box<WhyArgs>),
    /// Print the attrs that differ from a base, one a line
    #[command(after_help = "Examples:\n  drover affected --base main             what this branch changes\n  \
        drover affected --base HEAD             what is not committed yet\n  \
        drover affected --base main --hosts     for colmena or deploy-rs: short names of hosts")]
    Affected(Box<AffectedArgs>),
    /// Make caches complete, without evaluating or building anything
    #[command(after_help = "Examples:\n  drover push                     what the last run built or found\n  \
        drover push --run 01KAJX3M      the same of an earlier one\n  \
        drover push ./result            a path with all that it refers to\n  \
        drover push --push-to acme      only to [cache.acme] of drover.toml")]
    Push(PushCommand),
    /// Print the log of the last attempt to build something, of any run
    #[command(after_help = "Examples:\n  drover log nginx-1.29.4                the last attempt\n  \
        drover log nginx-1.29.4 --attempt 1    the first of several")]
    Log(LogArgs),
    /// Show what a recorded run did
    #[command(
        after_help = "Examples:\n  drover report                  the last run\n  drover report list             all runs\n  \
        drover report 01KAJX3M --format json"
    )]
    Report(ReportArgs),
    /// Find everything that is wrong with this environment, and what mends it
    #[command(after_help = "Examples:\n  drover doctor                  of the flake here\n  \
        drover doctor --push-to acme   also whether pushing there would work\n  \
        drover doctor --show-config    every setting in force, and who said it")]
    Doctor(DoctorArgs),
    /// Explain a command; `drover help aliases` lists the flags of other tools that are taken too
    #[command(hide = true)]
    Help(HelpArgs),
}

/// `drover help`.
#[derive(Debug, Args)]
pub(super) struct HelpArgs {
    /// A command, or `aliases`
    pub(super) topic: Option<String>,
}

/// Where records are kept, and where the flake is.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Place {
    /// Keep records, logs and recorded evaluations here
    #[arg(long, value_name = "DIR", global = true)]
    pub(super) state_dir: Option<PathBuf>,
    /// Work on this store instead of Nix's own
    #[arg(long, value_name = "URL", global = true)]
    pub(super) store: Option<String>,
}

/// `drover run`.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    pub(super) select: Select,
    #[command(flatten)]
    pub(super) base: BaseArgs,
    #[command(flatten)]
    pub(super) source: SourceArgs,
    #[command(flatten)]
    pub(super) flake: FlakeArgs,
    #[command(flatten)]
    pub(super) build: BuildArgs,
    #[command(flatten)]
    pub(super) push: PushArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
    /// Take only what failed in the last run
    #[arg(long, conflicts_with_all = ["what", "plan"], help_heading = "Selection")]
    pub(super) failed: bool,
    #[command(flatten)]
    pub(super) from: FromPlan,
}

/// A plan in a file instead of a flake.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct FromPlan {
    /// Work from this plan instead of a flake (`drover plan -o`); WHAT is attrs of it
    #[arg(
        long,
        value_name = "FILE",
        help_heading = "Selection",
        conflicts_with_all = [
            "flake_alias", "override_input", "reference_lock_file", "no_update_lock_file", "impure",
            "accept_flake_config", "no_ifd", "base", "eval_workers", "eval_max_memory_size", "eval_memory", "refresh", "eval_store",
        ]
    )]
    pub(super) plan: Option<PathBuf>,
}

/// `drover plan`.
#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    #[command(flatten)]
    pub(super) select: Select,
    #[command(flatten)]
    pub(super) base: BaseArgs,
    #[command(flatten)]
    pub(super) source: SourceArgs,
    #[command(flatten)]
    pub(super) flake: FlakeArgs,
    #[command(flatten)]
    pub(super) push: PushArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
    /// Assume so many slots on the local store, for the estimate [default: Nix's max-jobs]
    #[arg(short = 'j', long, value_name = "N|auto", help_heading = "Building")]
    pub(super) max_jobs: Option<String>,
    #[command(flatten)]
    pub(super) from: FromPlan,
    /// Write the plan with all that it takes to build it to this file, for `drover run --plan FILE`
    #[arg(short = 'o', long = "output", value_name = "FILE", help_heading = "Output")]
    pub(super) output_file: Option<PathBuf>,
}

/// `drover matrix`.
#[derive(Debug, Args)]
pub(super) struct MatrixArgs {
    #[command(flatten)]
    pub(super) select: Select,
    #[command(flatten)]
    pub(super) base: BaseArgs,
    #[command(flatten)]
    pub(super) flake: FlakeArgs,
    #[command(flatten)]
    pub(super) push: PushArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
    #[command(flatten)]
    pub(super) from: FromPlan,
    /// Print what this forge takes
    #[arg(long, value_enum, default_value_t = Forge::Json, hide_possible_values = true, value_name = "github|gitlab|forgejo|json", help_heading = "Rows")]
    pub(super) format: Forge,
    /// Make at most so many rows [default: 256]
    #[arg(long, value_name = "N", help_heading = "Rows")]
    pub(super) max_rows: Option<usize>,
    /// Make one more row only for so much work more [default: 60]
    #[arg(long, value_name = "SECONDS", help_heading = "Rows")]
    pub(super) min_seconds: Option<f64>,
    /// Expect this of a drv that was never built before [default: 10]
    #[arg(long, value_name = "SECONDS", help_heading = "Rows")]
    pub(super) assume: Option<f64>,
    /// Also split attrs that share drvs that must be built, where that is quicker; what is built twice is said
    #[arg(long, help_heading = "Rows")]
    pub(super) split: bool,
    /// Give rows of this system (that need this feature) this label: SYSTEM[+FEATURE]=LABEL (repeatable)
    #[arg(long, value_name = "SYSTEM=LABEL", help_heading = "Rows")]
    pub(super) runs_on: Vec<String>,
    /// Also write has_work and matrix to $GITHUB_OUTPUT
    #[arg(long, help_heading = "Output")]
    pub(super) github_output: bool,
    /// Write the plan to this file, for `drover run --plan FILE` in each row
    #[arg(short = 'o', long = "output", value_name = "FILE", help_heading = "Output")]
    pub(super) output_file: Option<PathBuf>,
}

/// Who takes the matrix; the help of the flag says which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Forge {
    Github,
    Gitlab,
    Forgejo,
    Json,
}

/// `drover why`.
#[derive(Debug, Args)]
pub(super) struct WhyArgs {
    #[command(flatten)]
    pub(super) select: Select,
    /// Say what differs from this branch, tag, commit or flake, which is evaluated if it has no record
    /// [default: in a pull request, where it parted from its target, if that has a record]
    #[arg(long, value_name = "REF", help_heading = "Comparison")]
    pub(super) base: Option<String>,
    /// Say why no cache has it, in a pull request too
    #[arg(long, conflicts_with = "base", help_heading = "Comparison")]
    pub(super) no_base: bool,
    #[command(flatten)]
    pub(super) flake: FlakeArgs,
    /// Ask no cache
    #[arg(long, help_heading = "Caches")]
    pub(super) offline: bool,
    #[command(flatten)]
    pub(super) output: OutputArgs,
}

/// `drover affected`.
#[derive(Debug, Args)]
pub(super) struct AffectedArgs {
    #[command(flatten)]
    pub(super) select: Select,
    #[command(flatten)]
    pub(super) base: BaseArgs,
    /// Look at the last N commits instead: which changes would `[skip]` of drover.toml have hidden?
    #[arg(long, value_name = "N", conflicts_with_all = ["base", "hosts"], help_heading = "Comparison")]
    pub(super) audit: Option<u32>,
    /// Print only NixOS hosts, by their short names
    #[arg(long, help_heading = "Output")]
    pub(super) hosts: bool,
    #[command(flatten)]
    pub(super) flake: FlakeArgs,
    /// Ask no cache
    #[arg(long, hide = true)]
    pub(super) offline: bool,
    /// Print one JSON document on stdout
    #[arg(long, help_heading = "Output")]
    pub(super) json: bool,
    /// Write every event as a JSON line to this file
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub(super) events: Option<PathBuf>,
    /// Say more
    #[arg(short = 'v', long, action = clap::ArgAction::Count, help_heading = "Output")]
    pub(super) verbose: u8,
}

/// What attrs are compared with.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Comparison")]
pub(super) struct BaseArgs {
    /// Take only what differs from this branch, tag, commit or flake, which is evaluated if it has no record
    /// [default: in a pull request, where it parted from its target, if that has a record]
    #[arg(long, value_name = "REF")]
    pub(super) base: Option<String>,
    /// Compare with nothing, in a pull request neither
    #[arg(long, conflicts_with = "base")]
    pub(super) no_base: bool,
    /// Do not count what differs only because it embeds the commit or the source tree
    #[arg(long)]
    pub(super) ignore_revision: bool,
}

/// Which attrs.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Select {
    /// Flake references with an optional fragment, or attr names: `.`, `.#web1`, `web1`
    #[arg(value_name = "WHAT")]
    pub(super) what: Vec<String>,
    /// Take this kind of flake output (repeatable)
    #[arg(long, value_name = "KIND", value_delimiter = ',', help_heading = "Selection")]
    pub(super) kind: Vec<String>,
    /// Take only attrs that match this glob (repeatable)
    #[arg(long, value_name = "GLOB", help_heading = "Selection")]
    pub(super) only: Vec<String>,
    /// Leave out attrs that match this glob (repeatable)
    #[arg(long, value_name = "GLOB", help_heading = "Selection")]
    pub(super) exclude: Vec<String>,
    /// Take attrs of these systems, separated by commas or blanks [default: what some builder can build]
    #[arg(long, value_name = "SYSTEMS", help_heading = "Selection")]
    pub(super) systems: Vec<String>,
    /// Take attrs of every system
    #[arg(long, conflicts_with = "systems", help_heading = "Selection")]
    pub(super) all_systems: bool,
    /// (a Nix function elsewhere; drover takes globs)
    #[arg(long, value_name = "FUNCTION", hide = true)]
    pub(super) select: Option<String>,
    /// Alias of WHAT
    #[arg(long = "flake", value_name = "REF", hide = true)]
    pub(super) flake_alias: Option<String>,
}

/// Who evaluates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum EvalBy {
    Drover,
    NixEvalJobs,
}

/// What takes the place of a flake, or of drover's evaluators.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Evaluation")]
pub(super) struct SourceArgs {
    /// Let nix-eval-jobs of the same minor version as Nix evaluate derivations, never hosts; nothing of it is recorded
    /// [default: drover]
    #[arg(long, value_name = "EVALUATOR", value_enum, conflicts_with_all = ["attrs_from", "file", "plan"])]
    pub(super) eval: Option<EvalBy>,
    /// Evaluate nothing: take the JSON lines of nix-eval-jobs from this file, or from standard input (-)
    #[arg(long, value_name = "FILE|-", conflicts_with_all = ["file", "plan"])]
    pub(super) attrs_from: Option<String>,
    /// Take attrs of this Nix file instead of a flake; names are attrs in it (implies --impure)
    #[arg(short = 'f', long, value_name = "FILE", conflicts_with = "plan")]
    pub(super) file: Option<PathBuf>,
    /// Call the function in that file with this Nix expression as NAME
    #[arg(long, num_args = 2, value_names = ["NAME", "EXPR"], allow_hyphen_values = true, requires = "file")]
    pub(super) arg: Vec<String>,
    /// Call the function in that file with this text as NAME
    #[arg(long, num_args = 2, value_names = ["NAME", "TEXT"], allow_hyphen_values = true, requires = "file")]
    pub(super) argstr: Vec<String>,
}

impl SourceArgs {
    /// Said on top of what all commands that evaluate share.
    fn add(self, words: Words) -> Words {
        let Self { eval, attrs_from, file, arg, argstr } = self;
        let eval_jobs = eval == Some(EvalBy::NixEvalJobs);
        Words { eval_jobs, attrs_from, file, arg: pairs(&arg), argstr: pairs(&argstr), ..words }
    }
}

/// How the flake is locked and evaluated.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Evaluation")]
pub(super) struct FlakeArgs {
    /// Use this flake for that input
    #[arg(long, num_args = 2, value_names = ["INPUT", "REF"])]
    pub(super) override_input: Vec<String>,
    /// Read this lock file instead of the flake's
    #[arg(long, value_name = "FILE")]
    pub(super) reference_lock_file: Option<PathBuf>,
    /// Fail if the lock file is not in step with flake.nix
    #[arg(long)]
    pub(super) no_update_lock_file: bool,
    /// Let the evaluation see the environment
    #[arg(long)]
    pub(super) impure: bool,
    /// Take the settings in the flake's nixConfig
    #[arg(long)]
    pub(super) accept_flake_config: bool,
    /// Set an option of Nix
    #[arg(long, num_args = 2, value_names = ["NAME", "VALUE"])]
    pub(super) option: Vec<String>,
    /// Evaluate in so many processes [default: by the size of the flake]
    #[arg(long, value_name = "N")]
    pub(super) eval_workers: Option<u32>,
    /// Replace an evaluator that holds more than so many MiB
    #[arg(long, value_name = "MIB")]
    pub(super) eval_max_memory_size: Option<u64>,
    /// Let all evaluators together take so much memory, `4GiB`, if the machine has it; an attr that needs more by itself
    /// fails [default: 3/4 of what is free]
    #[arg(long, value_name = "SIZE")]
    pub(super) eval_memory: Option<String>,
    /// Evaluate again what is on record for the same commit
    #[arg(long)]
    pub(super) refresh: bool,
    /// Fail attrs that import from derivations, instead of building these
    #[arg(long)]
    pub(super) no_ifd: bool,
    /// Evaluate into this store; what builds need of it is copied
    #[arg(long, value_name = "URL")]
    pub(super) eval_store: Option<String>,
}

/// How drvs are built.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Building")]
pub(super) struct BuildArgs {
    /// Build so many drvs at once here [default: Nix's max-jobs]
    #[arg(short = 'j', long, value_name = "N|auto")]
    pub(super) max_jobs: Option<String>,
    /// Try again so often where that may help: lost builder, network, full disk [default: 2]
    #[arg(long, value_name = "N")]
    pub(super) retries: Option<u32>,
    /// Go on with all that does not need what failed (the default)
    #[arg(short = 'k', long, conflicts_with_all = ["fail_fast", "max_failures"])]
    pub(super) keep_going: bool,
    /// Stop at the first failed build
    #[arg(long)]
    pub(super) fail_fast: bool,
    /// Stop after so many failed builds
    #[arg(long, value_name = "N")]
    pub(super) max_failures: Option<u32>,
    /// Fail a build that takes longer (0: no limit)
    #[arg(long, value_name = "SECONDS")]
    pub(super) timeout: Option<u64>,
    /// Fail a build that says nothing for so long (0: no limit)
    #[arg(long, value_name = "SECONDS")]
    pub(super) max_silent_time: Option<u64>,
    /// Link the results here; fetches those that only a cache has
    #[arg(short = 'o', long, value_name = "PATH")]
    pub(super) out_link: Option<PathBuf>,
    /// Make no link (the default)
    #[arg(long, hide = true)]
    pub(super) no_link: bool,
    /// Fetch results that only a cache has
    #[arg(long)]
    pub(super) download: bool,
    /// Print the output paths of what was asked for
    #[arg(long)]
    pub(super) print_out_paths: bool,
    /// Always on: nothing that a cache has is built
    #[arg(long, hide = true)]
    pub(super) skip_cached: bool,
}

/// Where results go.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Caches")]
pub(super) struct PushArgs {
    /// Push to this cache: a name of drover.toml or a URL, `https://host?secret-key=FILE` (repeatable)
    #[arg(long, value_name = "CACHE", alias = "copy-to")]
    pub(super) push_to: Vec<String>,
    /// Push nothing
    #[arg(long, conflicts_with = "push_to")]
    pub(super) no_push: bool,
    /// Ask no cache
    #[arg(long)]
    pub(super) offline: bool,
}

/// What is shown and written.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Output")]
pub(super) struct OutputArgs {
    /// Print one JSON document on stdout
    #[arg(long)]
    pub(super) json: bool,
    /// Alias of --json, into this file
    #[arg(long, value_name = "FILE", hide = true)]
    pub(super) result_file: Option<PathBuf>,
    /// What --result-file holds
    #[arg(long, value_name = "FORMAT", requires = "result_file", hide = true)]
    pub(super) result_format: Option<String>,
    /// Write every event as a JSON line to this file
    #[arg(long, value_name = "FILE")]
    pub(super) events: Option<PathBuf>,
    /// Show the log lines of builds
    #[arg(short = 'L', long)]
    pub(super) print_build_logs: bool,
    /// Say more: every drv, and where the time went
    #[arg(short = 'v', long, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
}

/// `drover push`.
#[derive(Debug, Args)]
pub(super) struct PushCommand {
    /// Store paths, or links to them such as ./result, each with all that it refers to
    #[arg(value_name = "PATH")]
    pub(super) paths: Vec<String>,
    /// Push what this run built or found for its attrs [default: the last run]
    #[arg(long, value_name = "RUN", conflicts_with = "paths")]
    pub(super) run: Option<String>,
    /// Push to this cache and no other: a name of drover.toml or a URL [default: those with push = true] (repeatable)
    #[arg(long, value_name = "CACHE", alias = "copy-to")]
    pub(super) push_to: Vec<String>,
    /// Print one JSON document on stdout
    #[arg(long)]
    pub(super) json: bool,
    /// Write every event as a JSON line to this file
    #[arg(long, value_name = "FILE")]
    pub(super) events: Option<PathBuf>,
}

/// `drover log`.
#[derive(Debug, Args)]
pub(super) struct LogArgs {
    /// An attr, a .drv path, or a name with version: web1, nginx-1.29.4
    #[arg(value_name = "ATTR|DRV|NAME-VERSION")]
    pub(super) what: String,
    /// Of several attempts the log of this one, the first being 1; else of the last
    #[arg(long, value_name = "N")]
    pub(super) attempt: Option<usize>,
}

/// `drover report`.
#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    /// A run, `last`, or `list`
    #[arg(value_name = "RUN", default_value = "last")]
    pub(super) run: String,
    /// How: the closing lines of the run, the document of `run --json`, or the folder of its record
    #[arg(long, value_enum, default_value_t = Format::Summary, hide_possible_values = true, value_name = "summary|json|path")]
    pub(super) format: Format,
    /// The same as `--format json`
    #[arg(long, conflicts_with = "format")]
    pub(super) json: bool,
}

/// `drover doctor`.
#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// The flake to look at [default: the one here]
    #[arg(value_name = "FLAKE")]
    pub(super) flake: Option<String>,
    /// Show every setting in force with its value and where it comes from, instead
    #[arg(long)]
    pub(super) show_config: bool,
    /// Print one JSON document on stdout
    #[arg(long)]
    pub(super) json: bool,
    /// Set an option of Nix
    #[arg(long, num_args = 2, value_names = ["NAME", "VALUE"])]
    pub(super) option: Vec<String>,
    #[command(flatten)]
    pub(super) push: PushArgs,
}

/// The formats of a report; the help of the flag says what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Summary,
    Json,
    Path,
}

/// Two values a flag, repeated → pairs.
fn pairs(flat: &[String]) -> Vec<(String, String)> {
    flat.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
}

/// What every command that evaluates shares.
fn shared(place: &Place, select: Select, flake: FlakeArgs, push: PushArgs, output: OutputArgs) -> Words {
    Words {
        what: [select.flake_alias.into_iter().collect(), select.what].concat(),
        kind: select.kind,
        only: select.only,
        exclude: select.exclude,
        systems: select.systems.iter().flat_map(|list| list.split([',', ' '])).map(str::to_owned).collect(),
        all_systems: select.all_systems,
        override_input: pairs(&flake.override_input),
        reference_lock_file: flake.reference_lock_file,
        no_update_lock_file: flake.no_update_lock_file,
        impure: flake.impure,
        accept_flake_config: flake.accept_flake_config,
        option: pairs(&flake.option),
        eval_workers: flake.eval_workers,
        eval_max_memory_size: flake.eval_max_memory_size,
        eval_memory: flake.eval_memory,
        refresh: flake.refresh,
        no_ifd: flake.no_ifd,
        push_to: push.push_to,
        no_push: push.no_push,
        offline: push.offline,
        store: place.store.clone(),
        eval_store: flake.eval_store,
        state_dir: place.state_dir.clone(),
        events: output.events,
        result_file: output.result_file,
        result_format: output.result_format,
        json: output.json,
        print_build_logs: output.print_build_logs,
        verbose: output.verbose,
        ..Words::default()
    }
}

impl RunArgs {
    /// As settings' words.
    pub(super) fn words(self, place: &Place) -> Words {
        let build = self.build;
        self.source.add(Words {
            max_jobs: build.max_jobs,
            retries: build.retries,
            fail_fast: build.fail_fast,
            max_failures: build.max_failures,
            timeout: build.timeout,
            max_silent_time: build.max_silent_time,
            out_link: build.out_link,
            download: build.download,
            print_out_paths: build.print_out_paths,
            plan: self.from.plan,
            base: self.base.base,
            no_base: self.base.no_base,
            ignore_revision: self.base.ignore_revision,
            ..shared(place, self.select, self.flake, self.push, self.output)
        })
    }
}

impl PushCommand {
    /// As settings' words; what is pushed is none of them.
    pub(super) fn words(&self, place: &Place) -> Words {
        Words {
            push_to: self.push_to.clone(),
            json: self.json,
            events: self.events.clone(),
            store: place.store.clone(),
            state_dir: place.state_dir.clone(),
            ..Words::default()
        }
    }
}

impl PlanArgs {
    /// As settings' words.
    pub(super) fn words(self, place: &Place) -> Words {
        self.source.add(Words {
            max_jobs: self.max_jobs,
            plan: self.from.plan,
            plan_output: self.output_file,
            base: self.base.base,
            no_base: self.base.no_base,
            ignore_revision: self.base.ignore_revision,
            ..shared(place, self.select, self.flake, self.push, self.output)
        })
    }
}

impl MatrixArgs {
    /// As settings' words; what the rows look like is none of them.
    pub(super) fn words(self, place: &Place) -> Words {
        Words {
            plan: self.from.plan,
            plan_output: self.output_file,
            base: self.base.base,
            no_base: self.base.no_base,
            ignore_revision: self.base.ignore_revision,
            ..shared(place, self.select, self.flake, self.push, self.output)
        }
    }
}

impl AffectedArgs {
    /// As settings' words.
    pub(super) fn words(self, place: &Place) -> Words {
        let output =
            OutputArgs { json: self.json, events: self.events, verbose: self.verbose, ..OutputArgs::default() };
        Words {
            base: self.base.base,
            no_base: self.base.no_base,
            ignore_revision: self.base.ignore_revision,
            ..shared(place, self.select, self.flake, PushArgs { offline: self.offline, ..PushArgs::default() }, output)
        }
    }
}

impl WhyArgs {
    /// As settings' words.
    pub(super) fn words(self, place: &Place) -> Words {
        // A question needs no credential.
        let push = PushArgs { no_push: true, offline: self.offline, ..PushArgs::default() };
        let (base, no_base) = (self.base, self.no_base);
        Words { base, no_base, ..shared(place, self.select, self.flake, push, self.output) }
    }
}

impl DoctorArgs {
    /// As settings' words.
    pub(super) fn words(self, place: &Place) -> Words {
        Words {
            what: self.flake.into_iter().collect(),
            option: pairs(&self.option),
            push_to: self.push.push_to,
            no_push: self.push.no_push,
            offline: self.push.offline,
            store: place.store.clone(),
            state_dir: place.state_dir.clone(),
            json: self.json,
            ..Words::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }
}
