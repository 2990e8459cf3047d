//! Connections to one server. A client keeps one connection where the server speaks HTTP/2, however few requests that
//! takes at once, so there are several clients; with HTTP/1.1 one is enough, which keeps many connections.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use reqwest::{Client, Url, Version};

use super::OpenContext;
use crate::store::cache::error::CacheError;

/// Requests in flight on one connection before another is opened.
const BUSY: usize = 50;

/// Connections with HTTP/2 at most.
const MOST: usize = 6;

/// See the module's page.
pub(super) struct Lanes {
    lanes: Mutex<Vec<Arc<Lane>>>,
    base: Url,
    context: OpenContext,
    connect: std::time::Duration,
    multiplexed: AtomicBool,
}

/// One client and how many requests it has in flight.
struct Lane {
    client: Client,
    busy: AtomicUsize,
    /// It was made before anything was known of the server: with nothing to share it opens a connection for each
    /// request, since it cannot know that they could share one.
    cautious: bool,
}

/// A client for one request, until dropped.
pub(super) struct Seat(Arc<Lane>);

impl Seat {
    pub(super) fn client(&self) -> &Client {
        &self.0.client
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

fn lane(client: Client, cautious: bool) -> Arc<Lane> {
    Arc::new(Lane { client, busy: AtomicUsize::new(0), cautious })
}

impl Lanes {
    /// One connection for now.
    pub(super) fn new(
        base: &Url,
        shown: &str,
        context: &OpenContext,
        connect: std::time::Duration,
    ) -> Result<Self, CacheError> {
        let first = super::client_for(base, shown, context, connect, false)?;
        Ok(Self {
            lanes: Mutex::new(vec![lane(first, true)]),
            base: base.clone(),
            context: context.clone(),
            connect,
            multiplexed: AtomicBool::new(false),
        })
    }

    /// The client with the fewest requests in flight; another one if all are busy.
    pub(super) fn take(&self) -> Seat {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let busy = |lane: &Arc<Lane>| lane.busy.load(Ordering::Relaxed);
        let least = lanes.iter().map(busy).min().unwrap_or(0);
        if least >= BUSY && lanes.len() < MOST && self.multiplexed.load(Ordering::Relaxed) {
            lanes.extend(self.another());
        }
        // There is always one.
        let free = lanes.iter().min_by_key(|lane| busy(lane)).unwrap_or(&lanes[0]);
        free.busy.fetch_add(1, Ordering::Relaxed);
        Seat(Arc::clone(free))
    }

    /// One more connection. What could be made once can be made again; if not, those that there are will do.
    fn another(&self) -> Option<Arc<Lane>> {
        let client = super::client_for(&self.base, "", &self.context, self.connect, true);
        client.ok().map(|client| lane(client, false))
    }

    /// The connection of this seat is being closed.
    pub(super) fn closes(&self, seat: &Seat) {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lanes.iter().position(|lane| lane.cautious && Arc::ptr_eq(lane, &seat.0));
        if let Some(at) = known
            && let Some(another) = self.another()
        {
            lanes[at] = another;
        }
    }

    /// The server answered in this version of HTTP.
    pub(super) fn speaks(&self, version: Version) {
        self.multiplexed.store(version == Version::HTTP_2, Ordering::Relaxed);
    }
}
