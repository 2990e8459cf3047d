//! What was typed for a command → the [`Words`] that settings are made of.

use super::groups::{EvalBy, FlakeArgs, OutputArgs, PushAliases, PushArgs, PushedArgs, Select, SourceArgs, VerifyPush};
use super::{AffectedArgs, DoctorArgs, MatrixArgs, Place, PlanArgs, PushCommand, RunArgs, WhyArgs};
use crate::config::Words;

impl SourceArgs {
    /// Said on top of what all commands that evaluate share.
    fn add(self, words: Words) -> Words {
        let Self { eval, attrs_from, file, arg, argstr } = self;
        let eval_jobs = eval == Some(EvalBy::NixEvalJobs);
        Words { eval_jobs, attrs_from, file, arg: pairs(&arg), argstr: pairs(&argstr), ..words }
    }
}

impl PushAliases {
    /// All that is pushed to.
    fn and(&self, push_to: &[String]) -> Vec<String> {
        let kind = |kind: &'static str| move |name: &String| format!("{kind}:{name}");
        let copied = self.copy_to.iter().map(|place| match place.split_once("://") {
            // What drover has no client of its own for.
            Some((scheme, _)) if !matches!(scheme, "file" | "http" | "https" | "s3") => format!("nix:{place}"),
            _ => place.clone(),
        });
        let cachix = self.cachix_cache.iter().map(kind("cachix"));
        let attic = self.attic_cache.iter().map(kind("attic"));
        let niks3 = self.niks3_server.iter().map(kind("niks3"));
        push_to.iter().cloned().chain(copied).chain(cachix).chain(attic).chain(niks3).collect()
    }
}

impl PushedArgs {
    /// Said on top of what all commands that push share.
    fn add(self, words: Words) -> Words {
        let verify_push_deep = self.verify_push == Some(VerifyPush::Deep);
        Words { verify_push_deep, push_deadline: self.push_deadline, ..words }
    }
}

/// Two values a flag, repeated → pairs.
fn pairs(flat: &[String]) -> Vec<(String, String)> {
    flat.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
}

/// What every command that evaluates shares.
pub(super) fn shared(place: &Place, select: Select, flake: FlakeArgs, push: PushArgs, output: OutputArgs) -> Words {
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
        push_to: push.other.and(&push.push_to),
        no_push: push.no_push,
        require_complete: push.require_complete,
        strict_caches: push.strict_caches,
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
    pub(in crate::cli) fn words(self, place: &Place) -> Words {
        let build = self.build;
        self.pushed.add(self.source.add(Words {
            max_jobs: build.max_jobs,
            builders: build.builders.builders,
            builder_wait: build.builder_wait,
            retries: build.retries,
            fail_fast: build.fail_fast,
            max_failures: build.max_failures,
            timeout: build.timeout,
            max_silent_time: build.max_silent_time,
            out_link: build.out_link,
            download: build.download,
            no_download: build.no_download,
            print_out_paths: build.print_out_paths,
            plan: self.from.plan,
            base: self.base.base,
            no_base: self.base.no_base,
            ignore_revision: self.base.ignore_revision,
            ..shared(place, self.select, self.flake, self.push, self.output)
        }))
    }
}

impl PushCommand {
    /// As settings' words; what is pushed is none of them.
    pub(in crate::cli) fn words(&self, place: &Place) -> Words {
        self.pushed.clone().add(Words {
            push_to: self.other.and(&self.push_to),
            json: self.json,
            events: self.events.clone(),
            store: place.store.clone(),
            state_dir: place.state_dir.clone(),
            ..Words::default()
        })
    }
}

impl PlanArgs {
    /// As settings' words.
    pub(in crate::cli) fn words(self, place: &Place) -> Words {
        self.source.add(Words {
            max_jobs: self.max_jobs,
            builders: self.builders.builders,
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
    pub(in crate::cli) fn words(self, place: &Place) -> Words {
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
    pub(in crate::cli) fn words(self, place: &Place) -> Words {
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
    pub(in crate::cli) fn words(self, place: &Place) -> Words {
        // A question needs no credential.
        let push = PushArgs { no_push: true, offline: self.offline, ..PushArgs::default() };
        let (base, no_base) = (self.base, self.no_base);
        Words { base, no_base, ..shared(place, self.select, self.flake, push, self.output) }
    }
}

impl DoctorArgs {
    /// As settings' words.
    pub(in crate::cli) fn words(self, place: &Place) -> Words {
        Words {
            what: self.flake.into_iter().collect(),
            option: pairs(&self.option),
            builders: self.builders.builders,
            push_to: self.push.other.and(&self.push.push_to),
            no_push: self.push.no_push,
            require_complete: self.push.require_complete,
            strict_caches: self.push.strict_caches,
            offline: self.push.offline,
            store: place.store.clone(),
            state_dir: place.state_dir.clone(),
            json: self.json,
            ..Words::default()
        }
    }
}
