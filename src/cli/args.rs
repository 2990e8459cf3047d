//! The words of the command line. Parsing checks words only; what they mean is decided in `config`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

mod cache;
mod groups;
mod over;
mod said;
mod what_if;

pub(super) use cache::{CacheArgs, CacheCommand, PruneArgs, StatusArgs, VerifyArgs, WarmArgs};
pub(super) use groups::Select;
use groups::{
    BaseArgs, BuildArgs, BuildersArgs, FlakeArgs, FromPlan, OutputArgs, PushAliases, PushArgs, PushedArgs, SourceArgs,
};
pub(super) use over::OverArgs;
pub(super) use what_if::WhatIf;

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
const AFTER: &str = "Without a command: where am I, what next\n\nMore:\n  drover help COMMAND\n  \
    drover help aliases         flags of nix and nix-fast-build that are taken too\n  \
    drover completions SHELL    completions for bash, zsh or fish\n  \
    drover man                  the manual page";

/// The second help page.
pub(super) const ALIASES: &str = "\
Flags that drover takes because nix and nix-fast-build have them:

  --flake REF                  the same as WHAT: drover run REF
  --copy-to CACHE              the same as --push-to CACHE; --copy-to ssh-ng://HOST is --push-to nix:ssh-ng://HOST
  --cachix-cache NAME          the same as --push-to cachix:NAME
  --attic-cache [SERVER:]NAME  the same as --push-to attic:[SERVER:]NAME
  --niks3-server URL           the same as --push-to niks3:URL
  --skip-cached                always on: nothing that a cache has is built
  --no-link                    the default: drover run --out-link PATH makes links
  --result-file FILE           the document of --json in a file, too; with --result-format junit as JUnit's XML
  --eval-max-memory-size MIB   as in nix-eval-jobs
  --builders BUILDERS          as in nix; of several, each is an entry of these columns, parted by ; or lines:
                               URL SYSTEMS SSH-KEY JOBS SPEED FEATURES MANDATORY-FEATURES HOST-KEY
                               - says nothing, lists have commas and no blanks, HOST-KEY is base64 of a public key

Flags that mean something else there, and are refused:

  --select FUNCTION            drover run --only GLOB --exclude GLOB --kind KIND
  --remote HOST                drover run --builders ssh-ng://HOST -j 0
";

/// The verbs.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Evaluate, compare, build, push and record
    #[command(after_help = "Examples:\n  drover run                     everything that is built by default\n  \
        drover run web1 db1            two hosts\n  drover run --push-to acme      and push to [cache.acme] of drover.toml\n  \
        drover run --builders big1 -j 0    on another machine, and not on this one")]
    Run(Box<RunArgs>),
    /// Show what would be built, fetched and pushed, and for how long
    #[command(after_help = "Examples:\n  drover plan                     everything that is built by default\n  \
        drover plan .#web1 --json       one host, as a JSON document\n  \
        drover plan -o plan.drover      and write it, for drover run --plan plan.drover")]
    Plan(Box<PlanArgs>),
    /// Pack what must be built into the rows of a CI matrix
    #[command(after_help = "Examples:\n  drover matrix --format github --github-output -o plan.drover\n  \
        drover matrix --format gitlab -o plan.drover > child.yml\n  \
        drover run --plan plan.drover ATTR…      in each row, with its `args`")]
    Matrix(Box<MatrixArgs>),
    /// Check all that the flake offers, as `nix flake check` does and further
    #[command(
        after_help = "Examples:\n  drover check                    what Nix demands, and the builds of checks\n  \
        drover check --no-build         evaluate only\n  \
        drover check --base main        only what this branch changes\n  \
        drover check --build --kind nixosConfigurations    build the hosts, too"
    )]
    Check(Box<CheckArgs>),
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
    /// Keep a cache: what it holds, whether that is sound, bring more into it, delete from it
    #[command(
        disable_help_subcommand = true,
        after_help = "Examples:\n  drover cache status            what caches hold\n  \
        drover cache verify acme       whether it is sound\n  drover cache prune --help      more about one of them"
    )]
    Cache(CacheArgs),
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
    /// Write a drover.toml of what is found here, and a workflow for CI
    #[command(after_help = "Examples:\n  drover init                            a commented drover.toml\n  \
        drover init --ci github                also a workflow that does all of it in one job\n  \
        drover init --ci gitlab --matrix       one that plans, and builds in as many jobs as pays\n  \
        drover init --ci forgejo --dry-run     print it, and write nothing")]
    Init(InitArgs),
    /// Print completions for a shell
    #[command(
        hide = true,
        after_help = "Examples:\n  source <(drover completions bash)      in ~/.bashrc\n  \
        drover completions zsh > _drover       in a directory of $fpath\n  \
        drover completions fish > ~/.config/fish/completions/drover.fish"
    )]
    Completions(CompletionsArgs),
    /// Print the manual page, or write one for each command
    #[command(
        hide = true,
        after_help = "Examples:\n  drover man | man -l -          read it\n  \
        drover man /usr/local/share/man/man1"
    )]
    Man(ManArgs),
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

/// `drover init`.
#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// Also write the workflow for this forge: github, forgejo or gitlab
    #[arg(long, value_enum, value_name = "FORGE", hide_possible_values = true)]
    pub(super) ci: Option<CiForge>,
    /// Let one job plan, and others build what is to be built, as many as pays
    #[arg(long, requires = "ci")]
    pub(super) matrix: bool,
    /// The sha256 of the release of this version, in hex, which jobs download [default: that of this drover, if it was
    /// released; else jobs let Nix build it]
    #[arg(long, value_name = "HEX", requires = "ci")]
    pub(super) sha256: Option<String>,
    /// Write over files that are there
    #[arg(long)]
    pub(super) force: bool,
    /// Print what would be written, and write nothing
    #[arg(long)]
    pub(super) dry_run: bool,
}

/// Forges that there are workflows for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum CiForge {
    Github,
    Forgejo,
    Gitlab,
}

/// `drover completions`.
#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell that reads them
    #[arg(value_enum, value_name = "SHELL")]
    pub(super) shell: Shell,
}

/// Shells for which there are completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// `drover man`.
#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// Write a page for each command into this directory [default: print the page of drover]
    #[arg(value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
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
    pub(super) pushed: PushedArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
    /// Take only what failed in the last run
    #[arg(long, conflicts_with_all = ["what", "plan"], help_heading = "Selection")]
    pub(super) failed: bool,
    #[command(flatten)]
    pub(super) from: FromPlan,
}

/// `drover check`.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    pub(super) select: Select,
    #[command(flatten)]
    pub(super) base: BaseArgs,
    #[command(flatten)]
    pub(super) flake: FlakeArgs,
    #[command(flatten)]
    pub(super) build: BuildArgs,
    #[command(flatten)]
    pub(super) push: PushArgs,
    #[command(flatten)]
    pub(super) pushed: PushedArgs,
    #[command(flatten)]
    pub(super) output: OutputArgs,
    /// Also build the kinds that --kind names [default: hosts, homes and packages]
    #[arg(long = "build", conflicts_with = "no_build", help_heading = "Checking")]
    pub(super) also_build: bool,
    /// Build nothing but what is imported from derivations
    #[arg(long, help_heading = "Checking")]
    pub(super) no_build: bool,
    /// Fail for what `nix flake check` does not refuse, too
    #[arg(long, help_heading = "Checking")]
    pub(super) strict: bool,
    /// Fail only for what was not broken on the base
    #[arg(long, help_heading = "Checking")]
    pub(super) allow_broken_base: bool,
    /// Run `nix flake check`, too, and show both verdicts
    #[arg(long, help_heading = "Checking")]
    pub(super) beside_nix: bool,
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
    pub(super) builders: BuildersArgs,
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
    /// With --format gitlab, let each job extend this one, which another file of the child pipeline has
    #[arg(long, value_name = "JOB", help_heading = "Rows")]
    pub(super) extends: Option<String>,
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
    #[arg(long, value_name = "CACHE")]
    pub(super) push_to: Vec<String>,
    #[command(flatten)]
    pub(super) other: PushAliases,
    /// Print one JSON document on stdout
    #[arg(long)]
    pub(super) json: bool,
    /// Write every event as a JSON line to this file
    #[arg(long, value_name = "FILE")]
    pub(super) events: Option<PathBuf>,
    #[command(flatten)]
    pub(super) pushed: PushedArgs,
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
    /// A run, `last`, or `list`; or `import`, which takes in what is known elsewhere
    #[arg(value_name = "RUN", default_value = "last")]
    pub(super) run: String,
    /// Of `import`: state directories, records, entries, and files of history
    #[arg(value_name = "PATH")]
    pub(super) paths: Vec<PathBuf>,
    /// How: the closing lines of the run, the document of `run --json`, the folder of its record, a page for a browser
    /// or for a forge, or what other tools read
    #[arg(long, value_enum, default_value_t = Format::Summary, hide_possible_values = true, value_name = FORMATS)]
    pub(super) format: Format,
    /// Write it to this file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// Send the run as spans of OpenTelemetry to this collector instead
    #[arg(long, value_name = "URL", conflicts_with_all = ["output", "format", "json"])]
    pub(super) otlp_endpoint: Option<String>,
    /// The same as `--format json`
    #[arg(long, conflicts_with = "format")]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) over: OverArgs,
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
    pub(super) builders: BuildersArgs,
    #[command(flatten)]
    pub(super) push: PushArgs,
}

/// The formats of a report; the help of the flag says what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Summary,
    Json,
    Path,
    Html,
    Markdown,
    Junit,
    Trace,
    Prometheus,
    Otlp,
    Badge,
    Zip,
}

/// Their names.
const FORMATS: &str = "summary|json|path|html|markdown|junit|trace|prometheus|otlp|badge|zip";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    /// A command and all below it.
    fn all(command: clap::Command) -> Vec<clap::Command> {
        let below: Vec<_> = command.get_subcommands().cloned().collect();
        std::iter::once(command).chain(below.into_iter().flat_map(all)).collect()
    }

    /// The words of an example, up to what is said about it.
    fn words(example: &str) -> Vec<String> {
        let typed =
            example.trim_start().split("   ").next().unwrap_or_default().split(" > ").next().unwrap_or_default();
        let typed = typed.split(" | ").next().unwrap_or_default();
        let typed = typed.trim().trim_start_matches("source <(").trim_end_matches(')');
        typed.split_whitespace().map(|word| word.trim_matches('\'').to_owned()).collect()
    }

    #[test]
    fn every_command_has_an_example_that_can_be_typed() {
        for command in all(Cli::command()).iter().skip(1).filter(|command| command.get_name() != "help") {
            let name = command.get_name();
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let examples = help.split_once("Examples:\n").unwrap_or_else(|| panic!("{name} has no examples")).1;
            let examples = examples.lines().map(|line| (line, words(line)));
            assert!(examples.clone().any(|(_, words)| words.iter().any(|word| word == name)), "none is of {name}");
            for (example, words) in examples {
                match Cli::try_parse_from(&words) {
                    Ok(_) => {}
                    Err(error) if !error.use_stderr() => {}
                    Err(error) => panic!("{example}: {error}"),
                }
            }
        }
    }
}
