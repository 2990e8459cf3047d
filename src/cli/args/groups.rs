//! Flags that several commands take.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// A plan in a file instead of a flake.
#[derive(Debug, Clone, Default, Args)]
pub(in crate::cli) struct FromPlan {
    /// Work from this plan instead of a flake (`drover plan -o`); WHAT is attrs of it
    #[arg(
        long,
        value_name = "FILE",
        help_heading = "Selection",
        conflicts_with_all = [
            "flake_alias", "override_input", "reference_lock_file", "no_update_lock_file", "impure",
            "accept_flake_config", "no_ifd", "base", "eval_workers", "eval_max_memory_size", "eval_memory", "eval_store",
        ]
    )]
    pub(in crate::cli) plan: Option<PathBuf>,
}

/// What attrs are compared with.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Comparison")]
pub(in crate::cli) struct BaseArgs {
    /// Take only what differs from this branch, tag, commit or flake, which is evaluated if it has no record
    /// [default: in a pull request, where it parted from its target, if that has a record]
    #[arg(long, value_name = "REF")]
    pub(in crate::cli) base: Option<String>,
    /// Compare with nothing, in a pull request neither
    #[arg(long, conflicts_with = "base")]
    pub(in crate::cli) no_base: bool,
    /// Do not count what differs only because it embeds the commit or the source tree
    #[arg(long)]
    pub(in crate::cli) ignore_revision: bool,
}

/// Which attrs.
#[derive(Debug, Clone, Default, Args)]
pub(in crate::cli) struct Select {
    /// Flake references with an optional fragment, or attr names: `.`, `.#web1`, `web1`
    #[arg(value_name = "WHAT")]
    pub(in crate::cli) what: Vec<String>,
    /// Take this kind of flake output (repeatable)
    #[arg(long, value_name = "KIND", value_delimiter = ',', help_heading = "Selection")]
    pub(in crate::cli) kind: Vec<String>,
    /// Take only attrs that match this glob (repeatable)
    #[arg(long, value_name = "GLOB", help_heading = "Selection")]
    pub(in crate::cli) only: Vec<String>,
    /// Leave out attrs that match this glob (repeatable)
    #[arg(long, value_name = "GLOB", help_heading = "Selection")]
    pub(in crate::cli) exclude: Vec<String>,
    /// Take attrs of these systems, separated by commas or blanks [default: what some builder can build]
    #[arg(long, value_name = "SYSTEMS", help_heading = "Selection")]
    pub(in crate::cli) systems: Vec<String>,
    /// Take attrs of every system
    #[arg(long, conflicts_with = "systems", help_heading = "Selection")]
    pub(in crate::cli) all_systems: bool,
    /// (a Nix function elsewhere; drover takes globs)
    #[arg(long, value_name = "FUNCTION", hide = true)]
    pub(in crate::cli) select: Option<String>,
    /// Alias of WHAT
    #[arg(long = "flake", value_name = "REF", hide = true)]
    pub(in crate::cli) flake_alias: Option<String>,
}

/// Who evaluates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum EvalBy {
    Drover,
    NixEvalJobs,
}

/// What takes the place of a flake, or of drover's evaluators.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Evaluation")]
pub(in crate::cli) struct SourceArgs {
    /// Let nix-eval-jobs of the same minor version as Nix evaluate derivations, never hosts; nothing of it is recorded
    /// [default: drover]
    #[arg(long, value_name = "EVALUATOR", value_enum, conflicts_with_all = ["attrs_from", "file", "plan"])]
    pub(in crate::cli) eval: Option<EvalBy>,
    /// Evaluate nothing: take the JSON lines of nix-eval-jobs from this file, or from standard input (-)
    #[arg(long, value_name = "FILE|-", conflicts_with_all = ["file", "plan"])]
    pub(in crate::cli) attrs_from: Option<String>,
    /// Take attrs of this Nix file instead of a flake; names are attrs in it (implies --impure)
    #[arg(short = 'f', long, value_name = "FILE", conflicts_with = "plan")]
    pub(in crate::cli) file: Option<PathBuf>,
    /// Call the function in that file with this Nix expression as NAME
    #[arg(long, num_args = 2, value_names = ["NAME", "EXPR"], allow_hyphen_values = true, requires = "file")]
    pub(in crate::cli) arg: Vec<String>,
    /// Call the function in that file with this text as NAME
    #[arg(long, num_args = 2, value_names = ["NAME", "TEXT"], allow_hyphen_values = true, requires = "file")]
    pub(in crate::cli) argstr: Vec<String>,
}

/// How the flake is locked and evaluated.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Evaluation")]
pub(in crate::cli) struct FlakeArgs {
    /// Use this flake for that input
    #[arg(long, num_args = 2, value_names = ["INPUT", "REF"])]
    pub(in crate::cli) override_input: Vec<String>,
    /// Read this lock file instead of the flake's
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) reference_lock_file: Option<PathBuf>,
    /// Fail if the lock file is not in step with flake.nix
    #[arg(long)]
    pub(in crate::cli) no_update_lock_file: bool,
    /// Let the evaluation see the environment
    #[arg(long)]
    pub(in crate::cli) impure: bool,
    /// Take the settings in the flake's nixConfig
    #[arg(long)]
    pub(in crate::cli) accept_flake_config: bool,
    /// Set an option of Nix
    #[arg(long, num_args = 2, value_names = ["NAME", "VALUE"])]
    pub(in crate::cli) option: Vec<String>,
    /// Evaluate in so many processes [default: by the size of the flake]
    #[arg(long, value_name = "N")]
    pub(in crate::cli) eval_workers: Option<u32>,
    /// Replace an evaluator that holds more than so many MiB
    #[arg(long, value_name = "MIB")]
    pub(in crate::cli) eval_max_memory_size: Option<u64>,
    /// Let all evaluators together take so much memory, `4GiB`, if the machine has it; an attr that needs more by itself
    /// fails [default: 3/4 of what is free]
    #[arg(long, value_name = "SIZE")]
    pub(in crate::cli) eval_memory: Option<String>,
    /// Take nothing from memory: evaluate again what is on record for the same commit, and ask caches again what they
    /// are known to have
    #[arg(long)]
    pub(in crate::cli) refresh: bool,
    /// Fail attrs that import from derivations, instead of building these
    #[arg(long)]
    pub(in crate::cli) no_ifd: bool,
    /// Evaluate into this store; what builds need of it is copied
    #[arg(long, value_name = "URL")]
    pub(in crate::cli) eval_store: Option<String>,
}

/// Where drvs are built.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Building")]
pub(in crate::cli) struct BuildersArgs {
    /// Build on these builders besides this machine and on no others, in Nix's syntax, or by their names in
    /// drover.toml: 'ssh-ng://ci@big1; big2', @FILE, '' for none [default: drover.toml, then Nix's builders]
    #[arg(long, value_name = "BUILDERS")]
    pub(in crate::cli) builders: Option<String>,
}

/// How drvs are built.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Building")]
pub(in crate::cli) struct BuildArgs {
    /// Build so many drvs at once here; 0: only on other builders [default: Nix's max-jobs]
    #[arg(short = 'j', long, value_name = "N|auto")]
    pub(in crate::cli) max_jobs: Option<String>,
    #[command(flatten)]
    pub(in crate::cli) builders: BuildersArgs,
    /// Wait so long for a builder that is away, if no other can build the rest [default: 120]
    #[arg(long, value_name = "SECONDS")]
    pub(in crate::cli) builder_wait: Option<u64>,
    /// Try again so often where that may help: lost builder, network, full disk [default: 2]
    #[arg(long, value_name = "N")]
    pub(in crate::cli) retries: Option<u32>,
    /// Go on with all that does not need what failed (the default)
    #[arg(short = 'k', long, conflicts_with_all = ["fail_fast", "max_failures"])]
    pub(in crate::cli) keep_going: bool,
    /// Stop at the first failed build
    #[arg(long)]
    pub(in crate::cli) fail_fast: bool,
    /// Stop after so many failed builds
    #[arg(long, value_name = "N")]
    pub(in crate::cli) max_failures: Option<u32>,
    /// Fail a build that takes longer (0: no limit)
    #[arg(long, value_name = "SECONDS")]
    pub(in crate::cli) timeout: Option<u64>,
    /// Fail a build that says nothing for so long (0: no limit)
    #[arg(long, value_name = "SECONDS")]
    pub(in crate::cli) max_silent_time: Option<u64>,
    /// Link the results here; fetches those that only a cache has
    #[arg(short = 'o', long, value_name = "PATH")]
    pub(in crate::cli) out_link: Option<PathBuf>,
    /// Make no link (the default)
    #[arg(long, hide = true)]
    pub(in crate::cli) no_link: bool,
    /// Fetch results that only a cache has
    #[arg(long)]
    pub(in crate::cli) download: bool,
    /// Leave what other builders build where it was built
    #[arg(long, conflicts_with_all = ["download", "out_link"])]
    pub(in crate::cli) no_download: bool,
    /// Print the output paths of what was asked for
    #[arg(long)]
    pub(in crate::cli) print_out_paths: bool,
    /// Always on: nothing that a cache has is built
    #[arg(long, hide = true)]
    pub(in crate::cli) skip_cached: bool,
}

/// Where results go.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Caches")]
pub(in crate::cli) struct PushArgs {
    /// Push to this cache: a name of drover.toml or a URL, `https://host?secret-key=FILE`, `s3://BUCKET`, `cachix:NAME`,
    /// `attic:[SERVER:]NAME`, `niks3:https://HOST`, `nix:URL` for all that only Nix writes to (repeatable)
    #[arg(long, value_name = "CACHE")]
    pub(in crate::cli) push_to: Vec<String>,
    #[command(flatten)]
    pub(in crate::cli) other: PushAliases,
    /// Push nothing
    #[arg(long, conflicts_with_all = ["push_to", "copy_to", "cachix_cache", "attic_cache", "niks3_server"])]
    pub(in crate::cli) no_push: bool,
    /// Fail if a cache gives no answer, instead of going on without it
    #[arg(long)]
    pub(in crate::cli) strict_caches: bool,
    /// Ask no cache
    #[arg(long)]
    pub(in crate::cli) offline: bool,
}

/// What other tools call `--push-to`.
#[derive(Debug, Clone, Default, Args)]
pub(in crate::cli) struct PushAliases {
    /// Alias of --push-to; a store that only Nix writes to is one of nix:
    #[arg(long, value_name = "CACHE", hide = true)]
    pub(in crate::cli) copy_to: Vec<String>,
    /// Alias of --push-to `cachix:NAME`
    #[arg(long, value_name = "NAME", hide = true)]
    pub(in crate::cli) cachix_cache: Vec<String>,
    /// Alias of --push-to `attic:[SERVER:]NAME`
    #[arg(long, value_name = "[SERVER:]NAME", hide = true)]
    pub(in crate::cli) attic_cache: Vec<String>,
    /// Alias of --push-to niks3:URL
    #[arg(long, value_name = "URL", hide = true)]
    pub(in crate::cli) niks3_server: Vec<String>,
}

/// How it is made sure that what was pushed is there.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Caches")]
pub(in crate::cli) struct PushedArgs {
    /// Look afterwards whether all is there: read the records, or also download the NARs and hash them (deep)
    /// [default: records]
    #[arg(long, value_name = "records|deep", value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "records", hide_possible_values = true)]
    pub(in crate::cli) verify_push: Option<VerifyPush>,
    /// Stop pushing so long after the start, `30m`, and say what is not pushed
    #[arg(long, value_name = "TIME")]
    pub(in crate::cli) push_deadline: Option<String>,
    /// Also push what has nothing to build, where the cache has lost some of it
    #[arg(long)]
    pub(in crate::cli) require_complete: bool,
}

/// How closely it is looked at what was pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum VerifyPush {
    Records,
    Deep,
}

/// What is shown and written.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Output")]
pub(in crate::cli) struct OutputArgs {
    /// Print one JSON document on stdout
    #[arg(long)]
    pub(in crate::cli) json: bool,
    /// Write what happened to this file, too
    #[arg(long, value_name = "FILE", hide = true)]
    pub(in crate::cli) result_file: Option<PathBuf>,
    /// What that file holds: the document of --json, or JUnit's XML [default: json]
    #[arg(long, value_name = "json|junit", requires = "result_file", hide = true)]
    pub(in crate::cli) result_format: Option<String>,
    /// Write a page about the run to this directory: report.html
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) report_dir: Option<PathBuf>,
    /// Write every event as a JSON line to this file
    #[arg(long, value_name = "FILE")]
    pub(in crate::cli) events: Option<PathBuf>,
    /// Show the log lines of builds
    #[arg(short = 'L', long)]
    pub(in crate::cli) print_build_logs: bool,
    /// Say more: every drv, and where the time went
    #[arg(short = 'v', long, action = clap::ArgAction::Count)]
    pub(in crate::cli) verbose: u8,
}
