//! Keeps paths from the garbage collector for as long as a run needs them: one long connection a store.
//!
//! Nothing may be believed to be valid before it is held: what was valid a moment ago may be collected now.

use std::collections::HashSet;

use super::error::StoreError;
use super::local::LocalStore;
use super::session::Session;
use crate::id::StorePath;
use crate::nix_compat::daemon::DaemonError;

/// A store that connections can be opened to.
pub trait Connect: Send + Sync {
    /// A new connection, ready for use.
    fn connect(&self) -> impl Future<Output = Result<Session, StoreError>> + Send;
}

impl Connect for LocalStore {
    fn connect(&self) -> impl Future<Output = Result<Session, StoreError>> + Send {
        LocalStore::connect(self)
    }
}

/// The roots of one run in one store. Dropping it lets everything go.
#[derive(Debug)]
pub struct Roots<C> {
    store: C,
    session: Option<Session>,
    held: HashSet<StorePath>,
}

/// What the outputs of a drv are like, all together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Made {
    /// Bytes of their NARs.
    pub nar_size: u64,
    /// Each is signed by somebody, or says itself what it is (content-addressed).
    pub signed: bool,
}

/// What is to be done on the connection.
enum Ask {
    Hold,
    Valid,
    /// Holds those that are valid.
    HoldValid,
    /// Holds nothing.
    Ping,
}

impl<C: Connect> Roots<C> {
    /// None yet; connects when the first is held.
    pub fn new(store: C) -> Self {
        Self { store, session: None, held: HashSet::new() }
    }

    /// Holds these paths, valid or not.
    pub async fn hold(&mut self, paths: &[StorePath]) -> Result<(), StoreError> {
        let new: Vec<StorePath> = paths.iter().filter(|path| !self.held.contains(*path)).cloned().collect();
        if !new.is_empty() {
            self.ask(&new, &Ask::Hold).await?;
        }
        Ok(())
    }

    /// Holds these paths, then says what those are like that are valid.
    pub async fn look(&mut self, paths: &[StorePath]) -> Result<Made, StoreError> {
        self.hold(paths).await?;
        let Some(session) = self.session.as_mut().filter(|session| session.is_usable()) else {
            return Ok(Made::default());
        };
        let infos = session.path_infos(paths).await.map_err(|error| session.explain(error))?;
        let known = || infos.iter().flatten();
        Ok(Made {
            nar_size: known().map(|info| info.nar_size).sum(),
            signed: known().count() == paths.len()
                && known().all(|info| info.ca.is_some() || !info.signatures.is_empty()),
        })
    }

    /// Holds these paths, then says which of them are valid; those stay so.
    pub async fn valid(&mut self, paths: &[StorePath]) -> Result<Vec<bool>, StoreError> {
        if paths.is_empty() {
            return Ok(Vec::new());
        }
        self.ask(paths, &Ask::Valid).await
    }

    /// Says which of these paths are valid, and holds those; they stay so. The others are not held: for whoever is not
    /// going to make them.
    pub async fn hold_valid(&mut self, paths: &[StorePath]) -> Result<Vec<bool>, StoreError> {
        if paths.is_empty() {
            return Ok(Vec::new());
        }
        self.ask(paths, &Ask::HoldValid).await
    }

    /// Whether the store answers at all.
    pub async fn ping(&mut self) -> Result<(), StoreError> {
        // Any path will do.
        let path = StorePath::from_parts([0; 20], "ping").into_iter().collect::<Vec<_>>();
        self.ask(&path, &Ask::Ping).await.map(drop)
    }

    /// Lets everything go and closes the connection.
    pub fn let_go(&mut self) {
        self.session = None;
        self.held.clear();
    }

    /// How many paths are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether none is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Asks, on a new connection if the old one is gone.
    async fn ask(&mut self, paths: &[StorePath], ask: &Ask) -> Result<Vec<bool>, StoreError> {
        let had_one = self.session.as_ref().is_some_and(|session| session.is_usable());
        match self.ask_once(paths, ask).await {
            Err(error) if had_one && error.is_fatal() => {
                tracing::debug!(%error, "the connection that holds roots is gone, opening another");
                self.session = None;
                self.ask_once(paths, ask).await
            }
            other => other,
        }
    }

    async fn ask_once(&mut self, paths: &[StorePath], ask: &Ask) -> Result<Vec<bool>, StoreError> {
        let session = match &mut self.session {
            Some(session) if session.is_usable() => session,
            slot => {
                let mut session = self.store.connect().await?;
                let held: Vec<StorePath> = self.held.iter().cloned().collect();
                let again = session.add_temp_roots(&held).await;
                again.map_err(|error| session.explain(error))?;
                slot.insert(session)
            }
        };
        let asked: Result<Vec<bool>, DaemonError> = match ask {
            Ask::Hold => session.add_temp_roots(paths).await.map(|()| Vec::new()),
            Ask::Valid => session.hold_valid(paths).await,
            Ask::HoldValid => session.hold_if_valid(paths).await,
            Ask::Ping => return session.valid_paths(paths).await.map_err(|error| session.explain(error)),
        };
        let answer = asked.map_err(|error| session.explain(error))?;
        let held = paths.iter().enumerate().filter(|(at, _)| !matches!(ask, Ask::HoldValid) || answer[*at]);
        self.held.extend(held.map(|(_, path)| path.clone()));
        Ok(answer)
    }
}
