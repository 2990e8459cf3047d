//! Rules about what builds: the local store and other builders.

use super::facts::{Answer, Builder, Facts, KeyTrouble, Nix, NoWay, Talk};
use super::{Severity, Sheet};
use crate::process::quote;
use crate::report::number::plural;

const AREA: &str = "builders";

/// What builds.
pub(super) fn builders(facts: &Facts, sheet: &mut Sheet) {
    let nix = facts.nix.found();
    if nix.is_some() || !facts.builders.is_empty() {
        sheet.area(AREA, summary(facts, nix));
    }
    for (severity, trouble) in &facts.builders_wrong {
        let why = match severity {
            Severity::Error => "a run ends before it has begun",
            Severity::Warning | Severity::Note => "what it names is not used",
        };
        sheet.add(*severity, AREA, [&trouble.message, why, &trouble.fix].map(str::to_owned));
    }
    if let Some(nix) = nix {
        local(facts, nix, sheet);
    }
    for builder in &facts.builders {
        keys(builder, sheet);
        match &builder.answer {
            Answer::NotAsked => {}
            Answer::Down { .. } => down(facts, builder, sheet),
            Answer::Up(talk) => up(builder, talk, sheet),
        }
    }
    for word in &facts.unchecked_hosts {
        let message = format!("NIX_SSHOPTS turns off the check of host keys: {word}");
        let why = "Nix believes whoever answers; drover checks all the same";
        sheet.warning(AREA, message, why, "unset NIX_SSHOPTS    or take that out of it");
    }
    if !facts.passed_over.is_empty() {
        let names = facts.passed_over.join(", ");
        let message = format!("builders of drover.toml are not used: {names}");
        let why = "this runs for a pull request of a fork, whose author may have written that file";
        sheet.note(AREA, message, why, "export DROVER_BUILDERS=…    in the settings of the CI system");
    }
}

/// `local 4 slots, sandbox on; big1 16 slots, big2 no answer`.
fn summary(facts: &Facts, nix: Option<&Nix>) -> String {
    let slots = |n: Option<u64>| match n {
        Some(1) => "1 slot".to_owned(),
        Some(n) => format!("{n} slots"),
        None => "a slot for each processor".to_owned(),
    };
    let local = nix.map(|nix| {
        let sandbox = if nix.sandbox { "on" } else { "off" };
        format!("local {}, sandbox {sandbox}", slots(nix.max_jobs))
    });
    let other = |builder: &Builder| {
        let name = &builder.name;
        match &builder.answer {
            Answer::NotAsked => name.clone(),
            Answer::Down { .. } => format!("{name} cannot be used"),
            Answer::Up(talk) => match builder.slots.or(talk.max_jobs) {
                Some(n) => format!("{name} {}", slots(Some(n))),
                None => name.clone(),
            },
        }
    };
    let others = facts.builders.iter().map(other).collect::<Vec<_>>().join(", ");
    local.into_iter().chain((!others.is_empty()).then_some(others)).collect::<Vec<_>>().join("; ")
}

/// The local store as a builder.
fn local(facts: &Facts, nix: &Nix, sheet: &mut Sheet) {
    if nix.max_jobs == Some(0) && facts.builders.is_empty() {
        let message = format!("{} is 0: this machine builds nothing, and there is no other builder", nix.max_jobs_by);
        let fix = match nix.max_jobs_by.as_str() {
            name if name.starts_with("DROVER_") => format!("unset {name}"),
            name if name.ends_with("drover.toml") => "max-jobs = 4    in [build] of drover.toml".to_owned(),
            _ => "drover run --max-jobs auto    or --builders ssh-ng://HOST".to_owned(),
        };
        sheet.error(AREA, message, "what no cache has cannot be built", fix);
    }
    if !nix.sandbox && facts.linux && nix.max_jobs != Some(0) {
        let why = "a build sees this machine's files and network, and may only succeed here";
        sheet.warning(AREA, "builds run without a sandbox", why, facts.conf("sandbox", "true"));
    }
}

/// The key that is to log in.
fn keys(builder: &Builder, sheet: &mut Sheet) {
    let name = &builder.name;
    if let Some(var) = &builder.key_env_unset {
        let message = format!("{var} is not set, which is to hold the key for {name}");
        sheet.note(AREA, message, "ssh tries its own keys", format!("export {var}=\"$(cat FILE)\""));
    }
    let Some((file, trouble)) = &builder.key_file else { return };
    let (shown, path) = (file.display(), quote(&file.to_string_lossy()));
    let (message, why, fix) = match trouble {
        KeyTrouble::Missing => {
            let fix = builder.line("ssh-key = \"/path/of/key\"", 3, "/path/of/key");
            (format!("there is no ssh key {shown} for {name}"), "ssh goes on with its own keys", fix)
        }
        KeyTrouble::Unreadable(what) => {
            let message = format!("the ssh key {shown} for {name} cannot be read: {what}");
            (message, "ssh goes on with its own keys", format!("ls -l {path}"))
        }
        KeyTrouble::Open => {
            let message = format!("others may read the ssh key {shown} for {name}");
            (message, "ssh does not use such a key", format!("chmod go-rwx {path}"))
        }
    };
    sheet.warning(AREA, message, why, fix);
}

/// A builder that cannot be used.
fn down(facts: &Facts, builder: &Builder, sheet: &mut Sheet) {
    let Answer::Down { how, what, fix } = &builder.answer else { return };
    let name = &builder.name;
    let message = match how {
        NoWay::Unreachable => format!("{name} cannot be reached: {what}"),
        NoWay::HostKeyUnknown => format!("the host key of {name} is not known"),
        NoWay::HostKeyChanged => format!("{name} shows another host key than it should"),
        NoWay::NotLetIn => format!("{name} does not let this user in: {what}"),
        NoWay::NoNix => format!("there is no Nix on {name}, or not on the PATH of its login"),
        NoWay::Garbage => format!("something on {name} prints before its daemon speaks: {what}"),
        NoWay::StoreDir => format!("the store of {name} is in another directory: {what}"),
        NoWay::TooOld => format!("the Nix of {name} is too old: {what}"),
        NoWay::Forbidden => format!("the daemon of {name} refuses its user: {what}"),
        NoWay::Usage | NoWay::Other => format!("{name} cannot be used: {what}"),
    };
    let fix = match how {
        NoWay::Forbidden => format!("extra-allowed-users = {}    in /etc/nix/nix.conf on {name}", builder.user()),
        NoWay::Usage => builder.line("url = \"ssh-ng://ci@big1.acme.net\"", 1, "ssh-ng://ci@big1.acme.net"),
        _ => fix.clone(),
    };
    let alone = facts.only_for(builder);
    match alone.first() {
        Some(_) => {
            let why = format!("what is for {} cannot be built: no other builder can", alone.join(" and "));
            sheet.add(Severity::Error, AREA, [message, why, fix]);
        }
        None => sheet.warning(AREA, message, "a run goes on without it, with fewer slots", fix),
    }
}

/// A builder that answers.
fn up(builder: &Builder, talk: &Talk, sheet: &mut Sheet) {
    let name = &builder.name;
    if talk.untrusted {
        let message = format!("{name} does not trust its user {}", builder.user());
        let why = "it builds only what it can complete with what caches hold and with signed or content-addressed \
                   paths. A trusted user is as good as root there";
        let restart = "then: sudo systemctl restart nix-daemon";
        let fix = format!("extra-trusted-users = {}    in /etc/nix/nix.conf on {name}, {restart}", builder.user());
        sheet.warning(AREA, message, why, fix);
    }
    if talk.unforwarded {
        let message = format!("the daemon's socket of {name} cannot be forwarded");
        let why = "each connection is a session of ssh with a process of its own; beyond MaxSessions of its sshd, \
                   drover logs in again";
        sheet.note(AREA, message, why, format!("AllowStreamLocalForwarding yes    in /etc/ssh/sshd_config on {name}"));
    }
    if builder.ssh && !talk.shell {
        let message = format!("the login on {name} has no shell with Nix in it");
        let why = "its systems, features and load are not known; what cannot be pushed is not kept there";
        sheet.note(AREA, message, why, builder.line("systems = [\"x86_64-linux\"]", 2, "x86_64-linux"));
    }
    claims(builder, talk, sheet);
    let (jobs, processors) = (builder.slots.or(talk.max_jobs), talk.processors.unwrap_or(0));
    if jobs == Some(1) && processors > 1 {
        let cores = plural(usize::try_from(processors).unwrap_or(usize::MAX), "core", "cores");
        let message = format!("max-jobs of {name} is 1, it has {cores}");
        let fix = builder.line(&format!("max-jobs = {processors}"), 4, &processors.to_string());
        sheet.note(AREA, message, "it builds one drv at a time", fix);
    }
}

/// What is said of a builder and what it says itself.
fn claims(builder: &Builder, talk: &Talk, sheet: &mut Sheet) {
    // What does not say anything cannot be held against it.
    if !talk.shell {
        return;
    }
    let name = &builder.name;
    let lacks = |said: &[String], has: &[String]| -> Vec<String> {
        said.iter().filter(|item| !has.contains(item)).cloned().collect()
    };
    let systems = lacks(&builder.systems, &talk.systems);
    if !systems.is_empty() {
        let list = systems.join(" ");
        let message = format!("{name} does not say that it builds {}", systems.join(" and "));
        let fix = format!(
            "extra-platforms = {list}    in /etc/nix/nix.conf on {name}, if it can; else take it out of {}",
            builder.named_in
        );
        sheet.warning(AREA, message, "it refuses what it is given for that", fix);
    }
    let features = lacks(&builder.features, &talk.features);
    if !features.is_empty() {
        let list = features.join(" ");
        let message = format!("{name} does not have what is said of it: {}", features.join(", "));
        let fix = format!(
            "extra-system-features = {list}    in /etc/nix/nix.conf on {name}, if it has; else take it out of {}",
            builder.named_in
        );
        sheet.warning(AREA, message, "it refuses drvs that require that", fix);
    }
}

impl Builder {
    /// A line for `drover.toml`, or what a column of Nix's syntax should be, where this builder is said.
    fn line(&self, line: &str, column: u8, value: &str) -> String {
        let there = format!("{value} in column {column}, for {}", self.name);
        match self.named_in.rsplit_once(':') {
            Some(("drover.toml", _)) => format!("{line}    in [builder.{}] of drover.toml", self.name),
            Some((file, at)) => format!("${{EDITOR:-vi}} +{at} {}    {there}", quote(file)),
            None if self.named_in == "nix.conf" => format!("builders = …    in nix.conf: {there}"),
            None => format!("drover run --builders …    with {there}"),
        }
    }

    /// Who logs in there.
    fn user(&self) -> &str {
        self.user.as_deref().unwrap_or("USER")
    }
}

impl Facts {
    /// Systems that only this builder was to build, by what is known.
    fn only_for(&self, builder: &Builder) -> Vec<String> {
        let nix = self.nix.found();
        let local = nix.filter(|nix| nix.max_jobs != Some(0)).map(|nix| nix.systems.as_slice()).unwrap_or_default();
        let others = self.builders.iter().filter(|other| !matches!(other.answer, Answer::Down { .. }));
        let known: Vec<&String> = local.iter().chain(others.flat_map(|other| other.all_systems(nix))).collect();
        builder.all_systems(nix).iter().filter(|system| !known.contains(system)).cloned().collect()
    }
}

impl Builder {
    /// What it builds for: what is said, else what it says itself, else what this machine builds for.
    fn all_systems<'a>(&'a self, nix: Option<&'a Nix>) -> &'a [String] {
        match &self.answer {
            _ if !self.systems.is_empty() => &self.systems,
            Answer::Up(talk) if !talk.systems.is_empty() => &talk.systems,
            _ => nix.map(|nix| nix.systems.get(..1).unwrap_or_default()).unwrap_or_default(),
        }
    }
}
