//! A builder over ssh: which masters there are, and who has a channel of which.
//!
//! Mostly there is one master for all. Where the builder refuses further sessions (`MaxSessions`), more log in.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OnceCell;

use super::RemoteOptions;
use super::address::SshAddress;
use super::error::{DialError, DialKind, Whom};
use super::login::Login;
use super::master::Master;
use super::mux::{self, MuxError, Running};
use super::tunnel::{self, Unconfirmed};
use crate::id::StoreDir;
use crate::nix_compat::daemon::DaemonError;
use crate::process::quote;
use crate::store::error::StoreError;
use crate::store::session::{Session, Streams};

/// Where the daemon of nearly every Nix listens.
const SOCKET: &str = "/nix/var/nix/daemon-socket/socket";

/// So many masters are tried for one channel.
const MOST_TRIES: usize = 64;

/// A builder over ssh.
#[derive(Debug)]
pub(super) struct Ssh {
    // Before the login, whose directory has their sockets.
    seats: Mutex<Vec<Arc<Seat>>>,
    first: Arc<Seat>,
    login: Login,
    whom: Whom,
    reach: Reach,
    /// Its daemon's socket was to be forwarded and could not be.
    pub(super) unforwarded: bool,
    // After the masters.
    unconfirmed: Unconfirmed,
}

/// What a connection to its store is.
#[derive(Debug)]
enum Reach {
    /// A channel to this socket over there.
    Socket(String),
    /// A session that runs this.
    Program(String),
}

/// A master and how many channels it has.
#[derive(Debug)]
struct Seat {
    number: usize,
    master: OnceCell<Master>,
    sessions: Mutex<Sessions>,
}

#[derive(Debug, Clone, Copy)]
struct Sessions {
    open: usize,
    most: usize,
}

/// One session of a seat, open or about to be.
#[derive(Debug)]
pub(super) struct Place(Arc<Seat>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.0.sessions).open -= 1;
    }
}

impl Place {
    /// The builder refuses this one.
    fn is_too_many(self) {
        let mut sessions = lock(&self.0.sessions);
        sessions.most = sessions.most.min(sessions.open - 1);
    }

    /// Whether there is no other.
    fn is_alone(&self) -> bool {
        lock(&self.0.sessions).open == 1
    }
}

impl Ssh {
    /// Logs in and shakes hands.
    pub(super) async fn reach(
        options: &RemoteOptions,
        address: &SshAddress,
        whom: &Whom,
    ) -> Result<(Self, Session), DialError> {
        let login = Login::new(options, address, whom)?;
        let mut words = address.program.clone().unwrap_or_else(|| vec!["nix-daemon".to_owned()]);
        words.push("--stdio".to_owned());
        words.extend(address.store.iter().flat_map(|store| ["--store".to_owned(), store.clone()]));
        let program = words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ");
        let most = usize::MAX;
        let first =
            Arc::new(Seat { number: 0, master: OnceCell::new(), sessions: Mutex::new(Sessions { open: 0, most }) });
        let reach = Reach::Program(program);
        let seats = Mutex::new(vec![first.clone()]);
        let unconfirmed = Unconfirmed::default();
        let mut this = Self { seats, first, login, whom: whom.clone(), reach, unforwarded: false, unconfirmed };
        this.master(&this.first).await?;
        let (dir, uri) = (&options.store_dir, Arc::from(options.uri.as_str()));
        if let Some(socket) = socket_of(address) {
            let program = std::mem::replace(&mut this.reach, Reach::Socket(socket));
            match this.connect(dir.clone(), &uri).await {
                Ok(session) => return Ok((this, session)),
                Err(error) => tracing::debug!(%error, "{}: its daemon's socket cannot be reached", whom.name),
            }
            this.reach = program;
            this.unforwarded = true;
        }
        match this.connect(dir.clone(), &uri).await {
            Ok(session) => Ok((this, session)),
            Err(error) => Err(whom.of_store(&error)),
        }
    }

    /// A new connection, hands shaken.
    pub(super) async fn connect(&self, dir: StoreDir, uri: &Arc<str>) -> Result<Session, StoreError> {
        let fail = |what: String| StoreError::Daemon {
            uri: uri.to_string(),
            error: DaemonError::Closed { act: "connecting" }.into(),
            said: what,
        };
        match &self.reach {
            Reach::Socket(socket) => {
                let master = self.master(&self.first).await.map_err(|error| fail(error.what))?;
                let tunnel = tunnel::open(master.control(), socket, &self.unconfirmed).await;
                let (reader, writer) = tunnel.map_err(|error| fail(crate::error::chain(&error)))?;
                Session::over_streams(Box::new(reader), Box::new(writer), dir, uri.clone()).await
            }
            Reach::Program(program) => {
                let (Running { stdin, stdout, stderr, control }, place) =
                    self.session(program).await.map_err(|error| fail(error.what))?;
                let streams =
                    Streams { stdin: Box::new(stdin), stdout: Box::new(stdout), stderr: Some(Box::new(stderr)) };
                Session::over_held(streams, Box::new((control, place)), dir, uri.clone()).await
            }
        }
    }

    /// Runs a command over there.
    pub(super) async fn session(&self, command: &str) -> Result<(Running, Place), DialError> {
        for _ in 0..MOST_TRIES {
            let place = self.place();
            let master = self.master(&place.0).await?;
            match mux::session(master.control(), command).await {
                Ok(running) => return Ok((running, place)),
                Err(MuxError::Refused(_)) if !place.is_alone() => place.is_too_many(),
                Err(error @ MuxError::Refused(_)) => {
                    return Err(self.whom.error(DialKind::NotLetIn, error.to_string()));
                }
                Err(error @ MuxError::Master(_)) => {
                    self.forget(&place.0);
                    return Err(self.whom.error(DialKind::Other, crate::error::chain(&error)));
                }
            }
        }
        Err(self.whom.error(DialKind::Other, "it refuses further sessions"))
    }

    /// A place for one session: of a master that has room, or else of a new one.
    fn place(&self) -> Place {
        let mut seats = lock(&self.seats);
        for seat in seats.iter() {
            let mut sessions = lock(&seat.sessions);
            if sessions.open < sessions.most {
                sessions.open += 1;
                return Place(seat.clone());
            }
        }
        // As many as the others let in: one more would be refused again.
        let most = seats.iter().map(|seat| lock(&seat.sessions).most).max().unwrap_or(usize::MAX).max(1);
        let number = seats.last().map_or(0, |seat| seat.number + 1);
        let sessions = Mutex::new(Sessions { open: 1, most });
        let seat = Arc::new(Seat { number, master: OnceCell::new(), sessions });
        seats.push(seat.clone());
        Place(seat)
    }

    /// A seat whose master is gone gets no more guests.
    fn forget(&self, seat: &Arc<Seat>) {
        lock(&seat.sessions).most = 0;
        lock(&self.seats).retain(|other| other.number == 0 || !Arc::ptr_eq(other, seat));
    }

    /// The master of a seat, logged in.
    async fn master<'a>(&self, seat: &'a Seat) -> Result<&'a Master, DialError> {
        let open = seat.master.get_or_try_init(|| Master::open(&self.login, seat.number, &self.whom));
        let late = |_| self.whom.late();
        tokio::time::timeout(self.whom.patience, open).await.map_err(late)?
    }

    /// Whether its connections are channels to its daemon's socket.
    pub(super) fn is_direct(&self) -> bool {
        matches!(self.reach, Reach::Socket(_))
    }

    /// Resolves when the first master has ended.
    pub(super) async fn lost(&self) {
        if let Some(master) = self.first.master.get() {
            master.ended().await;
        }
    }

    /// Ends all masters and waits for that.
    pub(super) async fn end(&self) {
        let seats: Vec<Arc<Seat>> = lock(&self.seats).clone();
        let masters = || seats.iter().filter_map(|seat| seat.master.get());
        masters().for_each(Master::stop);
        for master in masters() {
            master.ended().await;
        }
    }
}

/// The daemon's socket over there, if the address asks for nothing else.
fn socket_of(address: &SshAddress) -> Option<String> {
    match (&address.program, address.store.as_deref()) {
        (Some(_), _) => None,
        (None, None | Some("daemon" | "auto")) => Some(SOCKET.to_owned()),
        (None, Some(store)) => {
            let path = store.strip_prefix("unix://")?.split('?').next()?;
            path.starts_with('/').then(|| path.to_owned())
        }
    }
}
