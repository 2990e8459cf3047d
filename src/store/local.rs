//! The local store: finds out how this machine's Nix reaches it, and opens connections to it the same way.
//!
//! Owns the choice between a daemon's socket and a daemon of our own (`nix-daemon --stdio`), and reading .drv files.
//! Does not own the protocol (`nix_compat::daemon`) nor the life of the child (`session`).

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rayon::prelude::*;
use tokio::net::UnixStream;
use tokio::process::Child;

use super::error::StoreError;
use super::session::{Nursery, Session};
use super::settings::{Installation, NixSettings, Version, small};
use super::uri::{Place, Reach};
use crate::id::{StoreDir, StorePath};
use crate::nix_compat::daemon::{ClientOptions, DaemonError, Trust};
use crate::nix_compat::drv::{self, Derivation};
use crate::nix_compat::wire::{WireError, read_bytes};
use crate::process::Cmd;

/// Where the daemon of nearly every Nix listens. Only a guess that saves time; Nix itself is asked.
const DEFAULT_SOCKET: &str = "/nix/var/nix/daemon-socket/socket";

/// Below so many files threads cost more than they bring.
const FEW: usize = 8;

/// What decides which Nix and which store.
#[derive(Debug, Clone, Default)]
pub struct StoreOptions {
    /// Directory of the nix commands; `None`: `PATH`.
    pub nix_bin: Option<PathBuf>,
    /// `--store`.
    pub store: Option<String>,
    /// `--option NAME VALUE`, for every nix command.
    pub options: Vec<(String, String)>,
    /// `NIX_DAEMON_SOCKET_PATH`. The other variables (`NIX_REMOTE`, `NIX_STORE_DIR`, `NIX_STATE_DIR`) are read by the
    /// Nix that is asked.
    pub daemon_socket: Option<PathBuf>,
    /// Variables for all children, on top of the environment that they inherit.
    pub env: Vec<(String, String)>,
}

/// What a connection's user wants otherwise than Nix's settings say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Keep the directories of failed builds.
    pub keep_failed: Option<bool>,
    /// Builds at once within one request.
    pub max_jobs: Option<u64>,
    /// Processors for one build.
    pub cores: Option<u64>,
    /// Seconds without output.
    pub max_silent_time: Option<u64>,
    /// Seconds of a build.
    pub timeout: Option<u64>,
    /// Whether the daemon may fetch from caches.
    pub substitute: Option<bool>,
    /// Further settings by name; later ones win.
    pub overrides: Vec<(String, String)>,
}

/// The local store. A cheap handle: clones are the same store.
#[derive(Debug, Clone)]
pub struct LocalStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: StoreOptions,
    installation: Installation,
    settings: NixSettings,
    /// What a daemon goes by that does not obey us.
    daemon: Option<NixSettings>,
    place: Place,
    trust: Trust,
    nursery: Nursery,
    /// The connection that told whether we are trusted, until somebody needs one.
    spare: Mutex<Option<Session>>,
}

impl StoreOptions {
    /// A nix command (`nix`, `nix-daemon`) in this environment; not yet told which store.
    #[must_use]
    pub fn cmd(&self, program: &str) -> Cmd {
        let mut cmd = match &self.nix_bin {
            Some(bin) => Cmd::new(bin.join(program)),
            None => Cmd::new(program),
        };
        for (name, value) in &self.env {
            cmd = cmd.env(name, value);
        }
        for (name, value) in &self.options {
            cmd = cmd.args(["--option", name, value]);
        }
        cmd
    }
}

impl LocalStore {
    /// Asks Nix for its version and settings and connects once. About 30 ms, nearly all of it Nix starting.
    pub async fn open(options: StoreOptions) -> Result<Self, StoreError> {
        // Most often it will be this one that is wanted; then it has started by the time the answers are here.
        let socket = options.daemon_socket.as_deref().unwrap_or(Path::new(DEFAULT_SOCKET));
        let early = if socket.exists() { None } else { spawn(&options, options.store.as_deref()).ok() };
        let (installation, settings) =
            tokio::join!(Installation::ask(options.cmd("nix")), NixSettings::ask(options.cmd("nix")));
        Self::open_early(options, installation?, settings?, early).await
    }

    /// The same, where Nix has been asked already.
    pub async fn open_with(
        options: StoreOptions,
        installation: Installation,
        settings: NixSettings,
    ) -> Result<Self, StoreError> {
        Self::open_early(options, installation, settings, None).await
    }

    /// Another store of the same Nix.
    pub async fn other(&self, uri: &str) -> Result<Self, StoreError> {
        let options = StoreOptions { store: Some(uri.to_owned()), ..self.0.options.clone() };
        Self::open_with(options, self.0.installation.clone(), self.0.settings.clone()).await
    }

    /// `early` is a daemon that was started for [`StoreOptions::store`] before anything was known.
    async fn open_early(
        options: StoreOptions,
        installation: Installation,
        settings: NixSettings,
        early: Option<Child>,
    ) -> Result<Self, StoreError> {
        let uri = options.store.clone().unwrap_or_else(|| settings.store.clone());
        let place = Place::of(&uri, &installation, options.daemon_socket.as_deref())?;
        let nursery = Nursery::default();
        let spare = match (early, &place.reach) {
            (Some(child), Reach::Spawn { store }) if *store == options.store => {
                match Session::over_child(child, place.store_dir.clone(), place.uri.clone(), &nursery).await {
                    // As in `connect`, which is patient with a store that somebody else is making.
                    Err(error) if error.is_being_made() => connect(&options, &place, &nursery).await?,
                    session => session?,
                }
            }
            _ => connect(&options, &place, &nursery).await?,
        };
        let trust = spare.trust();
        let daemon = match trust {
            Trust::Untrusted => Some(NixSettings::ask(system_wide(&options)).await?),
            Trust::Trusted | Trust::Unknown => None,
        };
        let spare = Mutex::new(Some(spare));
        Ok(Self(Arc::new(Inner { options, installation, settings, daemon, place, trust, nursery, spare })))
    }

    /// A new connection, with options set as Nix's settings say.
    pub async fn connect(&self) -> Result<Session, StoreError> {
        self.connect_with(&Wishes::default()).await
    }

    /// A new connection, with options set as wished.
    pub async fn connect_with(&self, wishes: &Wishes) -> Result<Session, StoreError> {
        let spare = self.0.spare.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut session = match spare {
            Some(session) => session,
            None => connect(&self.0.options, &self.0.place, &self.0.nursery).await?,
        };
        set_up(&mut session, &Usual::of(&self.0.settings), wishes).await?;
        Ok(session)
    }

    /// What Nix's settings say.
    #[must_use]
    pub fn settings(&self) -> &NixSettings {
        &self.0.settings
    }

    /// The settings that whoever writes to the store goes by: of a daemon that does not obey us its own, as far as
    /// they can be known, else ours.
    #[must_use]
    pub fn receiver(&self) -> &NixSettings {
        self.0.daemon.as_ref().unwrap_or(&self.0.settings)
    }

    /// The version of the nix commands.
    #[must_use]
    pub fn version(&self) -> &Version {
        &self.0.installation.version
    }

    /// The directory of its paths, as they are written.
    #[must_use]
    pub fn store_dir(&self) -> &StoreDir {
        &self.0.place.store_dir
    }

    /// The directory where its files are; `None` if they are on another machine or nobody knows.
    #[must_use]
    pub fn physical_dir(&self) -> Option<&Path> {
        self.0.place.physical.as_deref()
    }

    /// What the store lets us do.
    #[must_use]
    pub fn trust(&self) -> Trust {
        self.0.trust
    }

    /// The store URI in force.
    #[must_use]
    pub fn uri(&self) -> &str {
        &self.0.place.uri
    }

    /// How nix commands have to be started to talk to this store.
    #[must_use]
    pub fn options(&self) -> &StoreOptions {
        &self.0.options
    }

    /// The command `nix` for this very store.
    #[must_use]
    pub fn nix(&self) -> Cmd {
        let (options, nix) = (&self.0.options, self.0.options.cmd("nix"));
        options.store.iter().fold(nix, |nix, store| nix.args(["--store", store]))
    }

    /// Reads derivations, as far as they are files of this machine. Blocks for some 20 µs a derivation.
    #[must_use]
    pub fn drv_reader(&self) -> DrvReader {
        DrvReader { physical: self.0.place.physical.clone(), dir: self.0.place.store_dir.clone() }
    }

    /// Reads derivations; each has its own result, in order.
    pub async fn read_drvs(&self, paths: Vec<StorePath>) -> Vec<Result<Derivation, StoreError>> {
        self.read_drvs_as(paths, |_, drv| drv).await
    }

    /// The same, and keeps of each what `of` makes of it. They are read from disk on all processors; those that are not
    /// there through the store, since a daemon may keep its files where nobody has told us.
    pub async fn read_drvs_as<T: Send + 'static>(
        &self,
        paths: Vec<StorePath>,
        of: impl Fn(&StorePath, Result<Derivation, StoreError>) -> T + Clone + Send + Sync + 'static,
    ) -> Vec<T> {
        let (reader, asked, convert) = (self.drv_reader(), paths.clone(), of.clone());
        let read = move || {
            let one = |path: &StorePath| match reader.read(path) {
                Err(StoreError::NoDrv(_)) => None,
                read => Some(convert(path, read)),
            };
            match asked.len() {
                0..FEW => asked.iter().map(one).collect(),
                _ => asked.par_iter().map(one).collect::<Vec<Option<T>>>(),
            }
        };
        let found = match tokio::task::spawn_blocking(read).await {
            Ok(found) => found,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };
        let elsewhere = paths.iter().zip(&found).filter(|(_, found)| found.is_none());
        let elsewhere: Vec<StorePath> = elsewhere.map(|(path, _)| path.clone()).collect();
        let mut remote = self.read_drvs_remotely(&elsewhere).await.into_iter();
        let mut next = |path: &StorePath| remote.next().unwrap_or_else(|| Err(StoreError::NoDrv(path.clone())));
        paths.iter().zip(found).map(|(path, found)| found.unwrap_or_else(|| of(path, next(path)))).collect()
    }

    /// Through one connection, for those that are no files of this machine.
    async fn read_drvs_remotely(&self, paths: &[StorePath]) -> Vec<Result<Derivation, StoreError>> {
        let mut drvs = Vec::new();
        let mut session = None;
        for path in paths {
            let drv = async {
                let session = match &mut session {
                    Some(session) => session,
                    none => none.insert(self.connect().await?),
                };
                read_drv_from(session, path).await
            };
            let drv = drv.await;
            if drv.as_ref().is_err_and(StoreError::is_fatal) {
                session = None;
            }
            drvs.push(drv);
        }
        drvs
    }

    /// Waits until the daemons of closed connections have cleaned up.
    pub async fn settle(&self, patience: Duration) {
        drop(self.0.spare.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.0.nursery.settle(patience).await;
    }
}

/// A nix command that knows of nothing but the machine's nix.conf, which is most likely also its daemon's.
fn system_wide(options: &StoreOptions) -> Cmd {
    let options = StoreOptions { options: Vec::new(), ..options.clone() };
    options.cmd("nix").env("NIX_USER_CONF_FILES", "").env("NIX_CONFIG", "")
}

/// The longest wait for a store that somebody else is making.
const MAKING: Duration = Duration::from_secs(10);

/// A new connection, hands shaken. Two Nixes that make a new store at the same moment stand in each other's way, and
/// the later one gives up at once; it is asked again.
async fn connect(options: &StoreOptions, place: &Place, nursery: &Nursery) -> Result<Session, StoreError> {
    let mut wait = Duration::from_millis(20);
    loop {
        match connect_once(options, place, nursery).await {
            Err(error) if error.is_being_made() && wait <= MAKING => tokio::time::sleep(wait).await,
            answer => return answer,
        }
        wait *= 2;
    }
}

async fn connect_once(options: &StoreOptions, place: &Place, nursery: &Nursery) -> Result<Session, StoreError> {
    let (dir, uri) = (place.store_dir.clone(), place.uri.clone());
    match &place.reach {
        Reach::Socket(socket) => {
            let stream = UnixStream::connect(socket)
                .await
                .map_err(|source| StoreError::Socket { socket: socket.clone(), source })?;
            // Not `into_split`, whose writing half shuts down before the close: a half-closed socket tells Nix nothing.
            let (reader, writer) = tokio::io::split(stream);
            Session::over_streams(Box::new(reader), Box::new(writer), dir, uri).await
        }
        Reach::Spawn { store } => {
            let child = spawn(options, store.as_deref())?;
            Session::over_child(child, dir, uri, nursery).await
        }
    }
}

/// A daemon of our own, which waits for the handshake on its standard streams.
fn spawn(options: &StoreOptions, store: Option<&str>) -> Result<Child, StoreError> {
    let mut cmd = small(options.cmd("nix-daemon")).arg("--stdio");
    if let Some(store) = store {
        cmd = cmd.arg("--store").arg(store);
    }
    cmd.spawn().map_err(|error| match error.is_not_found() {
        true => StoreError::NoNix { program: "nix-daemon".to_owned() },
        false => StoreError::Start(error),
    })
}

/// What nix.conf says of what a connection is told in any case.
#[derive(Debug, Clone)]
pub(super) struct Usual {
    pub(super) keep_failed: bool,
    pub(super) max_jobs: Option<u64>,
    pub(super) max_silent_time: u64,
    pub(super) cores: u64,
    pub(super) substitute: bool,
}

impl Usual {
    pub(super) fn of(settings: &NixSettings) -> Self {
        let NixSettings { keep_failed, max_jobs, max_silent_time, cores, substitute, .. } = *settings;
        Self { keep_failed, max_jobs, max_silent_time, cores, substitute }
    }
}

/// Tells a new connection what is wished of it.
pub(super) async fn set_up(session: &mut Session, usual: &Usual, wishes: &Wishes) -> Result<(), StoreError> {
    let options = client_options(usual, wishes, session.trust());
    let mut log = |message| tracing::debug!(?message, "while setting options");
    let set = session.set_options(&options, &mut log).await;
    set.map_err(|error| session.explain(error))
}

/// What a connection is told: the positional options overwrite nix.conf, so they repeat what it says.
fn client_options(usual: &Usual, wishes: &Wishes, trust: Trust) -> ClientOptions {
    let mut overrides = vec![
        // This store must not farm out again what drover gave it.
        ("builders".to_owned(), String::new()),
        // Notice within a second that somebody else has finished the same build.
        ("build-poll-interval".to_owned(), "1".to_owned()),
    ];
    if trust != Trust::Untrusted {
        // Without builders the hook can only decline, but the daemon would start a process to hear that, for each
        // build anew. From an untrusted client it does not take this setting.
        overrides.push(("build-hook".to_owned(), String::new()));
    }
    if let Some(seconds) = wishes.timeout {
        overrides.push(("timeout".to_owned(), seconds.to_string()));
    }
    overrides.extend(wishes.overrides.iter().cloned());
    ClientOptions {
        keep_failed: wishes.keep_failed.unwrap_or(usual.keep_failed),
        keep_going: true,
        // What a cache promised and cannot bring is built, whatever Nix's own default.
        try_fallback: true,
        max_jobs: wishes.max_jobs.or(usual.max_jobs).unwrap_or(1).max(1),
        max_silent_time: wishes.max_silent_time.unwrap_or(usual.max_silent_time),
        cores: wishes.cores.unwrap_or(usual.cores),
        use_substitutes: wishes.substitute.unwrap_or(usual.substitute),
        overrides,
        ..ClientOptions::default()
    }
}

/// Reads derivations that are files of this machine.
#[derive(Debug, Clone)]
pub struct DrvReader {
    physical: Option<PathBuf>,
    dir: StoreDir,
}

impl DrvReader {
    /// Reads one.
    pub fn read(&self, path: &StorePath) -> Result<Derivation, StoreError> {
        let Some(physical) = &self.physical else { return Err(StoreError::NoDrv(path.clone())) };
        let file = physical.join(path.to_basename());
        let bytes = std::fs::read(&file).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => StoreError::NoDrv(path.clone()),
            _ => StoreError::ReadDrv { file, source },
        })?;
        Ok(drv::parse(&bytes, path, &self.dir)?)
    }
}

/// Largest NAR of a .drv that is read through a store, in bytes.
pub(super) const MAX_DRV: u64 = 64 << 20;

/// Reads a derivation through a connection.
pub async fn read_drv_from(session: &mut Session, path: &StorePath) -> Result<Derivation, StoreError> {
    let info = match session.path_info(path).await {
        Ok(Some(info)) => info,
        Ok(None) => return Err(StoreError::NoDrv(path.clone())),
        Err(error) => return Err(session.explain(error)),
    };
    let broken = |what: String| DaemonError::Protocol { act: "reading a derivation", what };
    if info.nar_size > MAX_DRV {
        return Err(session.explain(broken(format!("{path} has {} bytes", info.nar_size))));
    }
    let mut nar = Vec::new();
    if let Err(error) = session.nar_from_path(path, info.nar_size, &mut nar).await {
        return Err(session.explain(error));
    }
    let bytes = file_of_nar(&nar).await.map_err(|error| session.explain(broken(format!("{path}: {error}"))))?;
    Ok(drv::parse(&bytes, path, session.store_dir())?)
}

/// The content of a NAR that is one file.
pub async fn file_of_nar(nar: &[u8]) -> Result<Vec<u8>, WireError> {
    let mut reader = nar;
    for wanted in ["nix-archive-1", "(", "type", "regular", "contents"] {
        if read_bytes(&mut reader).await? != wanted.as_bytes() {
            return Err(WireError::malformed("it is not a plain file"));
        }
    }
    read_bytes(&mut reader).await
}
