//! What was typed for a command → the [`Words`] that settings are made of.

use super::groups::{
    BaseArgs, BuildArgs, EvalBy, FlakeArgs, OutputArgs, PushAliases, PushArgs, PushedArgs, Select, SourceArgs,
    VerifyPush,
};
use super::{AffectedArgs, CheckArgs, DoctorArgs, MatrixArgs, Place, PlanArgs, PushCommand, RunArgs, WhyArgs};
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
        let Self { push_deadline, require_complete, .. } = self;
        Words { verify_push_deep, push_deadline, require_complete, ..words }
    }
}

/// Two values a flag, repeated → pairs.
fn pairs(flat: &[String]) -> Vec<(String, String)> {
    flat.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
}

impl BaseArgs {
    /// Said on top of the rest.
    fn add(self, words: Words) -> Words {
        let Self { base, no_base, ignore_revision } = self;
        Words { base, no_base, ignore_revision, ..words }
    }
}

impl Place {
    /// Said on top of the rest.
    fn add(&self, words: Words) -> Words {
        let Self { state_dir, store } = self.clone();
        Words { state_dir, store, ..words }
    }
}

impl Select {
    /// Said on top of the rest.
    fn add(self, words: Words) -> Words {
        Words {
            what: [self.flake_alias.into_iter().collect(), self.what].concat(),
            kind: self.kind,
            only: self.only,
            exclude: self.exclude,
            systems: self.systems.iter().flat_map(|list| list.split([',', ' '])).map(str::to_owned).collect(),
            all_systems: self.all_systems,
            ..words
        }
    }
}

impl FlakeArgs {
    /// Said on top of the rest.
    fn add(self, words: Words) -> Words {
        Words {
            override_input: pairs(&self.override_input),
            reference_lock_file: self.reference_lock_file,
            no_update_lock_file: self.no_update_lock_file,
            impure: self.impure,
            accept_flake_config: self.accept_flake_config,
            option: pairs(&self.option),
            eval_workers: self.eval_workers,
            eval_max_memory_size: self.eval_max_memory_size,
            eval_memory: self.eval_memory,
            refresh: self.refresh,
            no_ifd: self.no_ifd,
            eval_store: self.eval_store,
            ..words
        }
    }
}

impl PushArgs {
    /// Said on top of the rest.
    fn add(self, words: Words) -> Words {
        Words {
            push_to: self.other.and(&self.push_to),
            no_push: self.no_push,
            strict_caches: self.strict_caches,
            offline: self.offline,
            ..words
        }
    }
}

impl BuildArgs {
    /// Said on top of the rest.
    fn add(self, words: Words) -> Words {
        Words {
            max_jobs: self.max_jobs,
            builders: self.builders.builders,
            builder_wait: self.builder_wait,
            retries: self.retries,
            fail_fast: self.fail_fast,
            max_failures: self.max_failures,
            timeout: self.timeout,
            max_silent_time: self.max_silent_time,
            out_link: self.out_link,
            download: self.download,
            no_download: self.no_download,
            print_out_paths: self.print_out_paths,
            ..words
        }
    }
}

impl OutputArgs {
    /// Said on top of the rest.
    fn add(self, words: Words) -> Words {
        let Self { json, events, result_file, result_format, report_dir, print_build_logs, verbose } = self;
        Words { json, events, result_file, result_format, report_dir, print_build_logs, verbose, ..words }
    }
}

/// What every command that evaluates shares.
pub(super) fn shared(place: &Place, select: Select, flake: FlakeArgs, push: PushArgs, output: OutputArgs) -> Words {
    output.add(push.add(flake.add(select.add(place.add(Words::default())))))
}

impl RunArgs {
    /// As settings' words.
    pub(in crate::cli) fn words(self, place: &Place) -> Words {
        let words = shared(place, self.select, self.flake, self.push, self.output);
        let words = Words { plan: self.from.plan, ..words };
        self.pushed.add(self.source.add(self.base.add(self.build.add(words))))
    }
}

impl CheckArgs {
    /// As settings' words.
    pub(in crate::cli) fn words(self, place: &Place) -> Words {
        let words = Words {
            build: self.also_build,
            no_build: self.no_build,
            strict: self.strict,
            allow_broken_base: self.allow_broken_base,
            beside_nix: self.beside_nix,
            ..shared(place, self.select, self.flake, self.push, self.output)
        };
        self.pushed.add(self.base.add(self.build.add(words)))
    }
}

impl PushCommand {
    /// As settings' words; what is pushed is none of them.
    pub(in crate::cli) fn words(&self, place: &Place) -> Words {
        let push_to = self.other.and(&self.push_to);
        let words = Words { push_to, json: self.json, events: self.events.clone(), ..Words::default() };
        self.pushed.clone().add(place.add(words))
    }
}

impl PlanArgs {
    /// As settings' words.
    pub(in crate::cli) fn words(self, place: &Place) -> Words {
        self.source.add(self.base.add(Words {
            max_jobs: self.max_jobs,
            builders: self.builders.builders,
            plan: self.from.plan,
            plan_output: self.output_file,
            ..shared(place, self.select, self.flake, self.push, self.output)
        }))
    }
}

impl MatrixArgs {
    /// As settings' words; what the rows look like is none of them.
    pub(in crate::cli) fn words(self, place: &Place) -> Words {
        self.base.add(Words {
            plan: self.from.plan,
            plan_output: self.output_file,
            ..shared(place, self.select, self.flake, self.push, self.output)
        })
    }
}

impl AffectedArgs {
    /// As settings' words.
    pub(in crate::cli) fn words(self, place: &Place) -> Words {
        let Self { json, events, verbose, offline, .. } = self;
        let output = OutputArgs { json, events, verbose, ..OutputArgs::default() };
        let push = PushArgs { offline, ..PushArgs::default() };
        self.base.add(shared(place, self.select, self.flake, push, output))
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
        place.add(self.push.add(Words {
            what: self.flake.into_iter().collect(),
            option: pairs(&self.option),
            builders: self.builders.builders,
            json: self.json,
            ..Words::default()
        }))
    }
}
