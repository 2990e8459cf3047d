//! The nix commands, their settings, the store, and what its daemon thinks of this user.

use std::path::Path;

use rustix::fs::{Access, access};

use crate::nix_compat::daemon::{DaemonError, Trust};
use crate::process::{Cmd, ProcessError, quote};
use crate::report::doctor::{Checked, Netrc, NetrcFile, Nix, Store, Trouble, Untrusted};
use crate::store::error::StoreError;
use crate::store::local::LocalStore;
use crate::store::settings::{Installation, NixSettings, Sandbox};

use super::progress::Progress;
use super::scene::Scene;
use super::{checked, trouble};
use crate::error::without_numbers;

/// What Nix said.
pub(super) struct Asked {
    pub(super) installation: Checked<Installation>,
    pub(super) settings: Checked<NixSettings>,
    /// The settings of the machine alone, which are those of a daemon.
    pub(super) system: Option<NixSettings>,
    /// The nix commands work only where somebody turns them on each time.
    no_commands: bool,
}

/// The store in force.
pub(super) struct Open {
    pub(super) facts: Checked<Store>,
    /// The user on whom a daemon hung up at once.
    pub(super) hung_up_on: Option<String>,
    pub(super) store: Option<LocalStore>,
}

/// Asks Nix for its version and its settings.
pub(super) async fn ask(scene: &Scene<'_>, progress: &Progress) -> Asked {
    let nix = || scene.options.cmd("nix");
    let features = nix().args(["config", "show", "experimental-features"]);
    let (installation, settings, system, plain) = tokio::join!(
        progress.wait("nix", Installation::ask(nix())),
        progress.wait("nix", NixSettings::ask(nix())),
        progress.wait("nix", NixSettings::ask(system_only(scene))),
        progress.wait("nix", features.output()),
    );
    let disabled = |stderr: &str| stderr.contains("'nix-command' is disabled");
    Asked {
        installation: checked(installation.map(|answer| answer.map_err(of_store))),
        settings: checked(settings.map(|answer| answer.map_err(of_store))),
        system: system.and_then(Result::ok),
        no_commands: matches!(plain, Some(Err(ProcessError::Status { stderr, .. })) if disabled(&stderr)),
    }
}

/// A Nix that reads the machine's configuration and not the user's.
pub(super) fn system_only(scene: &Scene<'_>) -> Cmd {
    let bare = crate::store::local::StoreOptions { options: Vec::new(), ..scene.options.clone() };
    bare.cmd("nix").env("NIX_USER_CONF_FILES", "/dev/null").env("NIX_CONFIG", "")
}

impl Asked {
    /// As the rules want it.
    pub(super) fn facts(&self, scene: &Scene<'_>) -> Checked<Nix> {
        let (installation, nix) = match (&self.installation, &self.settings) {
            (Checked::Found(installation), Checked::Found(settings)) => (installation, settings),
            (Checked::Found(_), other) => return unknown(other),
            (other, _) => return unknown(other),
        };
        let ours = scene.settings.as_ref().and_then(|settings| settings.build.max_jobs);
        Checked::Found(Nix {
            version: installation.version.text.clone(),
            untested: installation.version.untested(),
            // Settings are asked for with this feature turned on.
            features: nix
                .experimental_features
                .iter()
                .filter(|name| *name != "nix-command" || !self.no_commands)
                .cloned()
                .collect(),
            sandbox: nix.sandbox != Sandbox::Off,
            substitute: nix.substitute,
            require_sigs: nix.require_sigs,
            max_jobs: ours.map(u64::from).or(nix.max_jobs),
            max_jobs_by: match ours {
                Some(_) if scene.env.get("DROVER_MAX_JOBS").is_some() => "DROVER_MAX_JOBS",
                Some(_) => "max-jobs of drover.toml",
                None => "max-jobs",
            }
            .to_owned(),
            systems: nix.systems().into_iter().map(|system| system.0).collect(),
        })
    }

    /// The netrc file.
    pub(super) fn netrc(&self, scene: &Scene<'_>) -> Netrc {
        use std::os::unix::fs::PermissionsExt as _;
        let Some(nix) = self.settings.found() else { return Netrc::default() };
        let file = std::path::PathBuf::from(&nix.netrc_file);
        let state = match std::fs::File::open(&file).and_then(|file| file.metadata()) {
            Ok(meta) => NetrcFile::Found { world_readable: meta.permissions().mode() & 0o004 != 0 },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => NetrcFile::Missing,
            Err(error) => NetrcFile::Unreadable(without_numbers(&error.to_string())),
        };
        let asked_for = file != scene.nix_conf.with_file_name("netrc") && !file.as_os_str().is_empty();
        Netrc { file, asked_for, state }
    }
}

/// The same, of another type.
fn unknown<A, B>(checked: &Checked<A>) -> Checked<B> {
    match checked {
        Checked::Silent(seconds) => Checked::Silent(*seconds),
        Checked::Failed(trouble) => Checked::Failed(trouble.clone()),
        Checked::Skipped | Checked::Found(_) => Checked::Skipped,
    }
}

/// Opens the store.
pub(super) async fn open(scene: &Scene<'_>, asked: &Asked, progress: &Progress) -> Open {
    let (Some(installation), Some(settings)) = (asked.installation.found(), asked.settings.found()) else {
        return Open { facts: Checked::Skipped, hung_up_on: None, store: None };
    };
    let opening = LocalStore::open_with(scene.options.clone(), installation.clone(), settings.clone());
    let opened = progress.wait("store", opening).await;
    let hung_up_on = match &opened {
        Some(Err(StoreError::Daemon { uri, error, .. }))
            if matches!(**error, DaemonError::Closed { .. }) && is_daemon(uri, installation) =>
        {
            Some(user().await)
        }
        _ => None,
    };
    let store = match checked(opened.map(|answer| answer.map_err(of_store))) {
        Checked::Found(store) => store,
        other => return Open { facts: unknown(&other), hung_up_on, store: None },
    };
    let facts = Store {
        uri: crate::config::public_url(store.uri()),
        dir: store.store_dir().to_string(),
        daemon: is_daemon(store.uri(), installation),
        untrusted: match store.trust() {
            Trust::Untrusted => Some(untrusted(scene, asked, settings).await),
            Trust::Trusted | Trust::Unknown => None,
        },
    };
    Open { facts: Checked::Found(facts), hung_up_on, store: Some(store) }
}

/// What is wrong with Nix or its store, and a command that mends it.
fn of_store(error: StoreError) -> Trouble {
    let other = "or export PATH=DIR:$PATH    with the directory of one that is there";
    let fix = match &error {
        StoreError::NoNix { .. } => Some(format!("sh <(curl -L https://nixos.org/nix/install)    {other}")),
        StoreError::TooOld { .. } => Some(format!("nix upgrade-nix    {other}")),
        StoreError::Socket { socket, source } => Some(match source.kind() {
            std::io::ErrorKind::PermissionDenied => format!("ls -l {}", quote(&socket.to_string_lossy())),
            _ if cfg!(target_os = "macos") => "sudo launchctl kickstart -k system/org.nixos.nix-daemon".to_owned(),
            _ => "sudo systemctl start nix-daemon.socket".to_owned(),
        }),
        StoreError::Daemon { uri, .. } => {
            let own = matches!(uri.as_str(), "" | "auto" | "daemon" | "local");
            let store =
                if own { String::new() } else { format!(" --store {}", quote(&crate::config::public_url(uri))) };
            Some(format!("nix store info{store}    shows whether Nix itself can use it"))
        }
        _ => None,
    };
    let said = match error {
        // Without the options that it would have been given.
        StoreError::NoNix { program } => {
            let program = program.split(' ').next().unwrap_or_default().to_owned();
            trouble(StoreError::NoNix { program })
        }
        error => trouble(error),
    };
    // Where this user may not write, a daemon can.
    let forbidden = said.fix.strip_prefix("this user cannot write there: ").map(|fix| format!("sudo {fix}"));
    let fix = forbidden.or(fix);
    Trouble { fix: fix.unwrap_or(said.fix), message: said.message }
}

/// Whether a daemon that somebody else started is between us and the store.
fn is_daemon(uri: &str, nix: &Installation) -> bool {
    match uri {
        "daemon" => true,
        "auto" | "" => access(Path::new(&nix.state_dir), Access::READ_OK | Access::WRITE_OK).is_err(),
        uri => uri.starts_with("unix://"),
    }
}

/// This user, as Nix's lists of users name him.
async fn user() -> String {
    let name = Cmd::new("id").arg("-un").output().await.map(|name| String::from_utf8_lossy(&name).trim().to_owned());
    name.ok().filter(|name| !name.is_empty()).unwrap_or_else(|| rustix::process::geteuid().as_raw().to_string())
}

/// What the daemon does not take from us.
async fn untrusted(scene: &Scene<'_>, asked: &Asked, nix: &NixSettings) -> Untrusted {
    let user = user().await;
    let Some(system) = &asked.system else { return Untrusted { user, ..Untrusted::default() } };
    let ours = scene.settings.iter().flat_map(|settings| &settings.caches).filter(|cache| cache.name.is_some());
    let bare = |url: &str| url.trim_end_matches('/').to_owned();
    let known: Vec<String> =
        system.substituters.iter().chain(&system.trusted_substituters).map(|url| bare(url)).collect();
    let urls = nix.substituters.iter().chain(ours.clone().map(|cache| &cache.url));
    let mut caches: Vec<String> = urls.filter(|url| !known.contains(&bare(url))).cloned().collect();
    caches.dedup();
    let keys = nix.trusted_public_keys.iter().chain(ours.flat_map(|cache| &cache.public_keys));
    let mut keys: Vec<String> = keys.filter(|key| !system.trusted_public_keys.contains(key)).cloned().collect();
    keys.dedup();
    Untrusted { user, caches: caches.iter().map(|url| crate::config::public_url(url)).collect(), keys }
}
