//! What a builder's nix.conf says, and how many processors it has.

use std::time::Duration;

use super::RemoteStore;
use super::shell::{self, Started};
use super::ssh::Ssh;
use crate::id::System;
use crate::store::settings::NixSettings;

/// Not more than this is read of what it prints, in bytes.
const MOST: usize = 4 << 20;

/// How long it may take. It has answered a handshake before, so it is there; with all its processors at work, two Nix
/// processes take their time, and without an answer it would be taken for one without features.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is known of a builder beyond its handshake. Without a shell all is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// Whether its login has a shell with Nix in it.
    pub shell: bool,
    /// The systems that it builds for, its own first.
    pub systems: Vec<System>,
    /// Its `system-features`.
    pub features: Vec<String>,
    /// `cores`, for one build; 0 is all.
    pub cores: Option<u64>,
    /// `max-jobs`; `auto` is the number of its processors.
    pub max_jobs: Option<u64>,
    /// How many processors it has.
    pub processors: Option<u64>,
    /// Seconds without output; 0 is never.
    pub max_silent_time: u64,
    /// Whether its daemon fetches from caches.
    pub substitutes: bool,
    /// From which.
    pub substituters: Vec<String>,
    /// Whose signatures it takes.
    pub trusted_public_keys: Vec<String>,
    /// Whether it takes what nobody has signed.
    pub takes_unsigned: bool,
    /// Where its database and its roots are: `/nix/var/nix`.
    pub state_dir: Option<String>,
    /// What its `nix --version` prints.
    pub version: Option<String>,
}

/// Prints four parts, each after a line of its own: processors, directories and version, settings.
const SCRIPT: &str = "echo drover:cpus; getconf _NPROCESSORS_ONLN 2>/dev/null || nproc; echo drover:nix; \
    nix -v --version </dev/null; echo drover:config; nix --extra-experimental-features nix-command config show --json \
    </dev/null 2>/dev/null || nix --extra-experimental-features nix-command show-config --json </dev/null";

impl About {
    /// Begins to ask, for whoever wants to know a little later.
    pub(super) async fn begin(ssh: &Ssh) -> Option<Started> {
        shell::start(ssh, SCRIPT).await.ok()
    }

    /// Asks, or hears what it said to whoever began.
    pub(super) async fn ask(store: &RemoteStore, begun: Option<Started>) -> Self {
        let said = async {
            match begun {
                Some(begun) => shell::finish(begun).await,
                None => store.shell(SCRIPT).await,
            }
        };
        match tokio::time::timeout(PATIENCE, said).await {
            Ok(Ok(bytes)) if bytes.len() <= MOST => Self::parse(&String::from_utf8_lossy(&bytes)),
            Ok(Ok(_)) => Self::default(),
            Ok(Err(error)) => {
                tracing::debug!(%error, "{}: nothing is known of its settings", store.name());
                Self::default()
            }
            Err(_) => {
                tracing::debug!("{}: its shell does not answer", store.name());
                Self::default()
            }
        }
    }

    /// Reads what the script printed, between whatever a login may print besides. What is not there is not known.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let part = |from: &str, to: &str| {
            let rest = text.split_once(from)?.1;
            Some(if to.is_empty() { rest } else { rest.split_once(to)?.0 }.trim())
        };
        let cpus: Option<u64> = part("drover:cpus\n", "drover:nix\n").and_then(|cpus| cpus.parse().ok());
        let nix = part("drover:nix\n", "drover:config\n").unwrap_or_default();
        let Some(settings) = part("drover:config\n", "").and_then(|json| NixSettings::parse(json.as_bytes()).ok())
        else {
            return Self::default();
        };
        let value = |name: &str| {
            let line = nix.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.trim().trim_matches('"').to_owned()).filter(|value| !value.is_empty())
        };
        Self {
            shell: true,
            systems: settings.systems(),
            features: settings.system_features.clone(),
            cores: Some(settings.cores),
            max_jobs: settings.max_jobs.or(cpus),
            processors: cpus,
            max_silent_time: settings.max_silent_time,
            substitutes: settings.substitute && !settings.substituters.is_empty(),
            substituters: settings.substituters,
            trusted_public_keys: settings.trusted_public_keys,
            takes_unsigned: !settings.require_sigs,
            state_dir: value("State directory:"),
            version: nix.lines().next().filter(|line| !line.is_empty()).map(str::to_owned),
        }
    }
}
