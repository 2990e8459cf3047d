//! A builder over ssh: which masters there are, and who has a channel of which.
//!
//! Mostly there is one master for all. Where the builder refuses further sessions (`MaxSessions`), more log in.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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

/// So often a session is asked for.
const MOST_TRIES: usize = 64;

/// How long a closed session may take to be gone over there, roughly.
const LEAVING: Duration = Duration::from_millis(25);

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
    /// The most sessions that one master had at once.
    room: AtomicUsize,
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

/// The first connection to a store, and how it came about.
pub(super) struct First {
    session: Session,
    /// Through this socket over there; `None`: to a program.
    socket: Option<String>,
    /// The socket was to be forwarded and could not be.
    unforwarded: bool,
}

/// A master and how many channels it has.
#[derive(Debug)]
struct Seat {
    number: usize,
    master: OnceCell<Master>,
    sessions: Mutex<Sessions>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sessions {
    /// Open, or about to be.
    taken: usize,
    open: usize,
    /// So many may be taken.
    most: usize,
}

impl Seat {
    fn new(number: usize, most: usize) -> Self {
        Self { number, master: OnceCell::new(), sessions: Mutex::new(Sessions { most, ..Sessions::default() }) }
    }
}

/// One session of a seat.
#[derive(Debug)]
pub(super) struct Place {
    seat: Arc<Seat>,
    open: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut sessions = lock(&self.seat.sessions);
        sessions.taken -= 1;
        sessions.open -= usize::from(self.open);
    }
}

impl Place {
    fn take(seat: &Arc<Seat>, sessions: &mut Sessions) -> Self {
        sessions.taken += 1;
        Self { seat: seat.clone(), open: false }
    }

    /// The builder let it in; how many it has let in here by now.
    fn opened(&mut self) -> usize {
        self.open = true;
        let mut sessions = lock(&self.seat.sessions);
        sessions.open += 1;
        sessions.open
    }

    /// How many others are taken.
    fn others(&self) -> usize {
        lock(&self.seat.sessions).taken - 1
    }

    /// So many are too many.
    fn is_full(&self, others: usize) {
        let mut sessions = lock(&self.seat.sessions);
        sessions.most = sessions.most.min(others);
    }
}

impl Ssh {
    /// Logs in.
    pub(super) async fn log_in(options: &RemoteOptions, address: &SshAddress, whom: &Whom) -> Result<Self, DialError> {
        let login = Login::new(options, address, whom)?;
        let mut words = address.program.clone().unwrap_or_else(|| vec!["nix-daemon".to_owned()]);
        words.push("--stdio".to_owned());
        words.extend(address.store.iter().flat_map(|store| ["--store".to_owned(), store.clone()]));
        let program = words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ");
        let first = Arc::new(Seat::new(0, usize::MAX));
        let reach = Reach::Program(program);
        let seats = Mutex::new(vec![first.clone()]);
        let (room, unconfirmed) = (AtomicUsize::new(0), Unconfirmed::default());
        let this = Self { seats, first, login, whom: whom.clone(), reach, unforwarded: false, room, unconfirmed };
        this.master(&this.first).await?;
        Ok(this)
    }

    /// The first connection, hands shaken: through the daemon's socket if that can be, else to a program.
    pub(super) async fn first(&self, options: &RemoteOptions, address: &SshAddress) -> Result<First, DialError> {
        let (dir, uri): (_, Arc<str>) = (&options.store_dir, Arc::from(options.uri.as_str()));
        let mut unforwarded = false;
        if let Some(socket) = socket_of(address) {
            match self.tunnel(&socket).await {
                Ok(halves) => {
                    let session = over_tunnel(halves, dir.clone(), uri).await;
                    let session = session.map_err(|error| self.whom.of_store(&error))?;
                    return Ok(First { session, socket: Some(socket), unforwarded });
                }
                // There is no daemon, or sshd does not forward sockets.
                Err(TunnelError::Mux(MuxError::Refused(_))) => unforwarded = true,
                Err(error) => return Err(error.of(&self.whom)),
            }
        }
        match self.connect(dir.clone(), &uri).await {
            Ok(session) => Ok(First { session, socket: None, unforwarded }),
            Err(error) => Err(self.whom.of_store(&error)),
        }
    }

    /// All connections come about as the first did. Gives that one, too.
    pub(super) fn like(self, first: First) -> (Self, Session) {
        let First { session, socket, unforwarded } = first;
        let reach = socket.map_or(self.reach, Reach::Socket);
        (Self { reach, unforwarded, ..self }, session)
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
                let halves = self.tunnel(socket).await.map_err(|error| fail(error.of(&self.whom).what))?;
                over_tunnel(halves, dir, uri.clone()).await
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

    /// A channel to a socket over there.
    async fn tunnel(&self, socket: &str) -> Result<Halves, TunnelError> {
        let master = self.master(&self.first).await?;
        Ok(tunnel::open(master.control(), socket, &self.unconfirmed).await?)
    }

    /// Runs a command over there.
    pub(super) async fn session(&self, command: &str) -> Result<(Running, Place), DialError> {
        for _ in 0..MOST_TRIES {
            let mut place = self.place();
            let master = self.master(&place.seat).await?;
            match mux::session(master.control(), command).await {
                Ok(running) => {
                    self.room.fetch_max(place.opened(), Ordering::Relaxed);
                    return Ok((running, place));
                }
                Err(error @ MuxError::Refused(_)) => match (place.others(), self.room.load(Ordering::Relaxed)) {
                    (0, 0) => return Err(self.whom.error(DialKind::NotLetIn, error.to_string())),
                    // It let in more already: those that were closed are still on their way out. Nobody says when.
                    (others, room) if others < room => tokio::time::sleep(LEAVING).await,
                    (others, _) => place.is_full(others),
                },
                Err(error @ MuxError::Master(_)) => {
                    self.forget(&place.seat);
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
            if sessions.taken < sessions.most {
                return Place::take(seat, &mut sessions);
            }
        }
        // As many as the others let in: one more would be refused again.
        let most = seats.iter().map(|seat| lock(&seat.sessions).most).max().unwrap_or(usize::MAX).max(1);
        let number = seats.last().map_or(0, |seat| seat.number + 1);
        let seat = Arc::new(Seat::new(number, most));
        seats.push(seat.clone());
        let mut sessions = lock(&seat.sessions);
        Place::take(&seat, &mut sessions)
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

type Halves = (tunnel::ReadHalf, tunnel::WriteHalf);

/// Why there is no channel to a socket.
#[derive(Debug)]
enum TunnelError {
    Dial(DialError),
    Mux(MuxError),
}

impl From<DialError> for TunnelError {
    fn from(error: DialError) -> Self {
        Self::Dial(error)
    }
}

impl From<MuxError> for TunnelError {
    fn from(error: MuxError) -> Self {
        Self::Mux(error)
    }
}

impl TunnelError {
    fn of(self, whom: &Whom) -> DialError {
        match self {
            Self::Dial(error) => error,
            Self::Mux(MuxError::Refused(why)) => {
                whom.error(DialKind::Other, format!("the socket of its daemon cannot be reached: {why}"))
            }
            Self::Mux(error) => whom.error(DialKind::Other, crate::error::chain(&error)),
        }
    }
}

async fn over_tunnel((reader, writer): Halves, dir: StoreDir, uri: Arc<str>) -> Result<Session, StoreError> {
    Session::over_streams(Box::new(reader), Box::new(writer), dir, uri).await
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
