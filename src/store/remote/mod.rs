//! A builder that is reached over ssh, or through a daemon's socket.
//!
//! Owns the way to it: ssh processes, sockets, sessions, what it says about itself. Does not own the protocol
//! (`nix_compat::daemon`) nor what becomes of a builder that is lost (driver).
//!
//! | file | noun |
//! |---|---|
//! | `address` | what a store URI says |
//! | `ssh` | a builder over ssh: its masters, and the sessions that they have room for |
//! | `login` | how to log in: options, keys, files |
//! | `master` | one ssh that is logged in |
//! | `mux` | commands over there, asked of it |
//! | `tunnel` | channels to a socket over there, asked of it |
//! | `shell` | commands that run over there |
//! | `about` | what the builder's nix.conf says |
//! | `load` | how busy it is |
//! | `error` | why it cannot be reached, with a way out |

mod about;
mod address;
mod error;
mod kept;
mod load;
mod login;
mod master;
mod mux;
mod shell;
mod ssh;
mod tunnel;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::OnceCell;

pub use about::About;
pub use error::{DialError, DialKind};
pub use kept::KeepError;
pub use load::{Load, Probe};
pub use shell::ShellError;

use self::address::Address;
use self::error::Whom;
use self::shell::Started;
use self::ssh::Ssh;
use super::error::StoreError;
use super::local::{Usual, Wishes, set_up};
use super::session::Session;
use crate::id::{StoreDir, StorePath};
use crate::nix_compat::daemon::{DaemonError, Trust};

/// The text of a private key. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// Of what an environment variable holds.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// As ssh wants it in a file: with plain line ends, also the last one.
    fn file_text(&self) -> String {
        format!("{}\n", self.0.replace("\r\n", "\n").trim())
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

/// How to reach a builder.
#[derive(Debug, Clone)]
pub struct RemoteOptions {
    /// What people call it.
    pub name: String,
    /// `ssh-ng://user@host:port?remote-store=…`, `ssh://…`, `unix:///path`, or just a host.
    pub uri: String,
    /// File of a private key; before the one in the URI.
    pub ssh_key: Option<PathBuf>,
    /// A private key; before any file.
    pub key: Option<Key>,
    /// The keys that the host may show: lines of a known_hosts file, or `ssh-ed25519 AAAA…`. Without any, those that
    /// ssh knows.
    pub host_keys: Vec<String>,
    /// Further words for ssh (`NIX_SSHOPTS`).
    pub ssh_opts: Vec<String>,
    /// How long it may take.
    pub patience: Duration,
    /// Where sockets may be made: in a directory of their own in here.
    pub runtime: PathBuf,
    /// The directory of the paths that are to be built.
    pub store_dir: StoreDir,
}

impl RemoteOptions {
    /// Only what has no default.
    pub fn new(name: impl Into<String>, uri: impl Into<String>, runtime: &Path, store_dir: StoreDir) -> Self {
        Self {
            name: name.into(),
            uri: uri.into(),
            ssh_key: None,
            key: None,
            host_keys: Vec::new(),
            ssh_opts: Vec::new(),
            patience: Duration::from_secs(5),
            runtime: runtime.to_owned(),
            store_dir,
        }
    }
}

/// A builder that answers. A cheap handle: clones are the same builder. Dropping the last one ends its ssh.
#[derive(Debug, Clone)]
pub struct RemoteStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: RemoteOptions,
    uri: Arc<str>,
    way: Way,
    trust: Trust,
    version: String,
    /// The connection that told whether we are trusted, until somebody needs one.
    spare: Mutex<Option<Session>>,
    /// What it says of itself, begun to be asked when it was dialled.
    begun: Mutex<Option<Started>>,
    about: OnceCell<About>,
}

/// How its connections come about.
#[derive(Debug)]
enum Way {
    /// A socket of this machine.
    Socket(PathBuf),
    Ssh(Box<Ssh>),
}

impl RemoteStore {
    /// Logs in and shakes hands, within the patience of the options.
    pub async fn dial(options: RemoteOptions) -> Result<Self, DialError> {
        let address = Address::parse(&options.uri).map_err(|what| {
            Whom::new(&options, "HOST", None, None).error(DialKind::Usage, format!("{}: {what}", options.uri))
        })?;
        let whom = match &address {
            Address::Ssh(ssh) => Whom::new(&options, &ssh.host, ssh.user.as_deref(), ssh.port),
            Address::Socket(_) => Whom::socket(&options),
        };
        let patience = options.patience;
        match tokio::time::timeout(patience, Self::reach(options, address, &whom)).await {
            Ok(result) => result,
            Err(_) => Err(whom.late()),
        }
    }

    async fn reach(options: RemoteOptions, address: Address, whom: &Whom) -> Result<Self, DialError> {
        let uri: Arc<str> = options.uri.as_str().into();
        let dir = options.store_dir.clone();
        let (way, mut session, begun) = match address {
            Address::Socket(path) => {
                let session = over_socket(&path, dir, uri.clone()).await.map_err(|error| whom.of_store(&error))?;
                (Way::Socket(path), session, None)
            }
            Address::Ssh(address) => {
                let ssh = Ssh::log_in(&options, &address, whom).await?;
                // What it says of itself takes as long as the first connection, so neither waits for the other.
                let (begun, first) = tokio::join!(About::begin(&ssh), ssh.first(&options, &address));
                let first = match first {
                    Err(error) if is_in_the_way(&error) => ssh.first(&options, &address).await,
                    first => first,
                };
                let (ssh, session) = ssh.like(first?);
                (Way::Ssh(Box::new(ssh)), session, begun)
            }
        };
        check_store_dir(&mut session, &options.store_dir, whom).await?;
        let (trust, version) = (session.trust(), session.peer().nix_version.clone());
        let spare = Mutex::new(Some(session));
        let (begun, about) = (Mutex::new(begun), OnceCell::new());
        Ok(Self(Arc::new(Inner { options, uri, way, trust, version, spare, begun, about })))
    }

    /// A new connection, with options set as its nix.conf says.
    pub async fn connect(&self) -> Result<Session, StoreError> {
        self.connect_with(&Wishes::default()).await
    }

    /// A new connection, with options set as wished. Where its nix.conf is not known, Nix's defaults hold.
    pub async fn connect_with(&self, wishes: &Wishes) -> Result<Session, StoreError> {
        let inner = &*self.0;
        let spare = inner.spare.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut session = match spare {
            Some(session) => session,
            None => {
                let (dir, uri) = (inner.options.store_dir.clone(), inner.uri.clone());
                match &inner.way {
                    Way::Socket(path) => over_socket(path, dir, uri).await?,
                    Way::Ssh(ssh) => ssh.connect(dir, &uri).await?,
                }
            }
        };
        let about = inner.about.get();
        let usual = Usual {
            keep_failed: false,
            max_jobs: None,
            max_silent_time: about.map_or(0, |about| about.max_silent_time),
            cores: about.and_then(|about| about.cores).unwrap_or(0),
            substitute: about.is_none_or(|about| about.substitutes),
        };
        set_up(&mut session, &usual, wishes).await?;
        Ok(session)
    }

    /// What it lets us do.
    #[must_use]
    pub fn trust(&self) -> Trust {
        self.0.trust
    }

    /// Whether its daemon's socket was to be forwarded and could not be: each connection is a session of its own.
    #[must_use]
    pub fn refuses_forwarding(&self) -> bool {
        matches!(&self.0.way, Way::Ssh(ssh) if ssh.unforwarded)
    }

    /// The directory of its paths.
    #[must_use]
    pub fn store_dir(&self) -> &StoreDir {
        &self.0.options.store_dir
    }

    /// Its URI, as it was given.
    #[must_use]
    pub fn uri(&self) -> &str {
        &self.0.uri
    }

    /// What people call it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.options.name
    }

    /// The version of its daemon, as it says: `2.34.8`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.0.version
    }

    /// Whether its connections lead straight to its daemon's socket, and not through a `nix-daemon --stdio`, at which
    /// options such as a time limit end.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        match &self.0.way {
            Way::Ssh(ssh) => ssh.is_direct(),
            Way::Socket(_) => true,
        }
    }

    /// What it says about itself. Asked over the same ssh by the first that wants to know, which takes as long as a
    /// command over there; of a login without a shell nothing is known, and nothing is an error.
    pub async fn about(&self) -> &About {
        let begun = || self.0.begun.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.0.about.get_or_init(|| About::ask(self, begun())).await
    }

    /// The same, as far as somebody has asked already.
    #[must_use]
    pub fn known(&self) -> Option<&About> {
        self.0.about.get()
    }

    /// Runs a short command in the login's shell and gives what it prints.
    pub async fn shell(&self, script: &str) -> Result<Vec<u8>, ShellError> {
        shell::run(self.ssh()?, script).await
    }

    /// Begins to ask how busy it is.
    pub async fn probe(&self) -> Result<Probe, ShellError> {
        if self.known().is_some_and(|about| !about.shell) {
            return Err(ShellError::NoShell);
        }
        Probe::open(self.ssh()?, self.0.options.store_dir.as_str()).await
    }

    fn ssh(&self) -> Result<&Ssh, ShellError> {
        match &self.0.way {
            Way::Ssh(ssh) => Ok(ssh),
            Way::Socket(_) => Err(ShellError::NoShell),
        }
    }

    /// Resolves when the ssh that carries its connections has ended; never for a socket of this machine.
    pub async fn lost(&self) {
        match &self.0.way {
            Way::Ssh(ssh) => ssh.lost().await,
            Way::Socket(_) => std::future::pending().await,
        }
    }

    /// Ends its ssh, and with it all connections; waits for that.
    pub async fn settle(&self, patience: Duration) {
        drop(self.0.spare.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Way::Ssh(ssh) = &self.0.way {
            let _ = tokio::time::timeout(patience, ssh.end()).await;
        }
    }
}

/// A connection through a socket of this machine.
async fn over_socket(path: &Path, dir: StoreDir, uri: Arc<str>) -> Result<Session, StoreError> {
    let stream =
        UnixStream::connect(path).await.map_err(|source| StoreError::Socket { socket: path.to_owned(), source })?;
    // Not `into_split`, whose writing half shuts down before the close: a half-closed socket tells Nix nothing.
    let (reader, writer) = tokio::io::split(stream);
    Session::over_streams(Box::new(reader), Box::new(writer), dir, uri).await
}

/// Whether two processes that opened a new store at once have met: the other has made it by now.
fn is_in_the_way(error: &DialError) -> bool {
    ["File exists", "is corrupt", "is busy"].iter().any(|sign| error.what.contains(sign))
}

/// Asks after a path that is in no store, to hear whether such paths could be in this one.
async fn check_store_dir(session: &mut Session, dir: &StoreDir, whom: &Whom) -> Result<(), DialError> {
    let Ok(path) = StorePath::from_parts([0; 20], "x") else { return Ok(()) };
    match session.valid_paths(&[path]).await {
        Ok(_) => Ok(()),
        Err(DaemonError::Refused { error, .. } | DaemonError::Fatal { error, .. }) => {
            Err(whom.error(DialKind::StoreDir, format!("its store is not {dir}: {error}")))
        }
        Err(error) => Err(whom.of_store(&session.explain(error))),
    }
}
