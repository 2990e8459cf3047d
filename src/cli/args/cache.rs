//! The words of `drover cache`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Place;
use super::groups::{FlakeArgs, PushArgs, Select};
use super::said::shared;
use crate::config::Words;

/// `drover cache`.
#[derive(Debug, Args)]
pub(in crate::cli) struct CacheArgs {
    #[command(subcommand)]
    pub(in crate::cli) command: CacheCommand,
}

/// What is done with a cache.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum CacheCommand {
    /// Show what caches hold, how often they had what was asked for, and what was last pushed
    #[command(after_help = "Examples:\n  drover cache status            all caches of Nix and of drover.toml\n  \
        drover cache status acme       [cache.acme] of drover.toml")]
    Status(StatusArgs),
    /// Find paths of a cache that are broken, and mend them
    #[command(
        after_help = "Examples:\n  drover cache verify acme                 records, signatures, sizes, references\n  \
        drover cache verify acme --deep          also read every NAR\n  \
        drover cache verify acme --deep --repair    mend from this store and from other caches"
    )]
    Verify(VerifyArgs),
    /// Copy what other caches have for some attrs into a cache, without building anything
    #[command(
        after_help = "Examples:\n  drover cache warm --push-to acme         for all that is built by default\n  \
        drover cache warm web1 --push-to file:///srv/cache\n  \
        drover cache warm --plan plan.drover --push-to acme"
    )]
    Warm(Box<WarmArgs>),
    /// Show what could be deleted from a cache, or delete it
    #[command(
        after_help = "What is kept keeps all that it refers to; a path is kept if any of the rules says so.\n\nExamples:\n  \
        drover cache prune acme --keep-days 90 --keep-last 3            what would be deleted\n  \
        drover cache prune acme --keep-days 90 --keep-last 3 --delete   deletes it\n  \
        drover cache prune acme --keep-roots /nix/var/nix/gcroots --delete"
    )]
    Prune(PruneArgs),
}

/// `drover cache status`.
#[derive(Debug, Args)]
pub(in crate::cli) struct StatusArgs {
    /// Names of drover.toml or URLs [default: all caches of drover.toml and of Nix]
    #[arg(value_name = "CACHE")]
    pub(in crate::cli) caches: Vec<String>,
    /// Print one JSON document on stdout
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

/// `drover cache verify`.
#[derive(Debug, Args)]
pub(in crate::cli) struct VerifyArgs {
    /// Names of drover.toml or URLs [default: those with push = true]
    #[arg(value_name = "CACHE")]
    pub(in crate::cli) caches: Vec<String>,
    /// Look only at this store path or link to one, with all that it refers to (repeatable) [default: all that a
    /// directory holds; of a server, what recorded runs pushed to it]
    #[arg(long, value_name = "PATH")]
    pub(in crate::cli) path: Vec<PathBuf>,
    /// Also read every NAR, and check its hashes
    #[arg(long)]
    pub(in crate::cli) deep: bool,
    /// Mend what is broken, from this store and from other caches
    #[arg(long)]
    pub(in crate::cli) repair: bool,
    /// Ask no other cache for what paths refer to
    #[arg(long)]
    pub(in crate::cli) offline: bool,
    /// Print one JSON document on stdout
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

/// `drover cache warm`.
#[derive(Debug, Args)]
pub(in crate::cli) struct WarmArgs {
    #[command(flatten)]
    pub(in crate::cli) select: Select,
    #[command(flatten)]
    pub(in crate::cli) flake: FlakeArgs,
    #[command(flatten)]
    pub(in crate::cli) push: PushArgs,
    /// Work from this plan instead of a flake (`drover plan -o`); WHAT is attrs of it
    #[arg(
        long,
        value_name = "FILE",
        help_heading = "Selection",
        conflicts_with_all = ["flake_alias", "override_input", "reference_lock_file", "no_update_lock_file", "impure", "accept_flake_config"]
    )]
    pub(in crate::cli) plan: Option<PathBuf>,
    /// Print one JSON document on stdout
    #[arg(long, help_heading = "Output")]
    pub(in crate::cli) json: bool,
}

/// `drover cache prune`.
#[derive(Debug, Args)]
pub(in crate::cli) struct PruneArgs {
    /// A name of drover.toml or a URL: a cache that says what it holds
    #[arg(value_name = "CACHE")]
    pub(in crate::cli) cache: String,
    /// Keep these: a store path, a link to one, a directory of links, or a file of those, one a line (repeatable)
    #[arg(long, value_name = "PATH", help_heading = "What is kept")]
    pub(in crate::cli) keep_roots: Vec<PathBuf>,
    /// Keep what was written in the last N days, and what recorded runs of these days wanted
    #[arg(long, value_name = "N", help_heading = "What is kept")]
    pub(in crate::cli) keep_days: Option<u32>,
    /// Of paths to which no other refers, keep the N newest of each name
    #[arg(long, value_name = "N", help_heading = "What is kept")]
    pub(in crate::cli) keep_last: Option<usize>,
    /// Delete nothing that is younger than so many hours: a push may be under way [default: 24]
    #[arg(long, value_name = "HOURS", help_heading = "What is kept")]
    pub(in crate::cli) grace: Option<u32>,
    /// Really delete; else it is only shown what would be
    #[arg(long, visible_alias = "yes")]
    pub(in crate::cli) delete: bool,
    /// Print one JSON document on stdout
    #[arg(long)]
    pub(in crate::cli) json: bool,
}

impl StatusArgs {
    /// As settings' words; which caches is none of them.
    pub(in crate::cli) fn words(&self, place: &Place) -> Words {
        plain(place, self.json)
    }
}

impl VerifyArgs {
    /// As settings' words; what is looked at is none of them.
    pub(in crate::cli) fn words(&self, place: &Place) -> Words {
        Words { offline: self.offline, ..plain(place, self.json) }
    }
}

impl PruneArgs {
    /// As settings' words; what is kept is none of them.
    pub(in crate::cli) fn words(&self, place: &Place) -> Words {
        plain(place, self.json)
    }
}

impl WarmArgs {
    /// As settings' words.
    pub(in crate::cli) fn words(self, place: &Place) -> Words {
        let (plan, json) = (self.plan, self.json);
        let output = super::OutputArgs { json, ..super::OutputArgs::default() };
        // What a base has not changed is wanted as well.
        Words { plan, no_base: true, ..shared(place, self.select, self.flake, self.push, output) }
    }
}

fn plain(place: &Place, json: bool) -> Words {
    Words { store: place.store.clone(), state_dir: place.state_dir.clone(), json, ..Words::default() }
}
