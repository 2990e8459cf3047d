//! History that several machines share (`[share]`): an index, and one file a run, which are put there once and never
//! changed. At the end of a run that did something, what others put there is taken in, and what is known only here is
//! put there.
//!
//! The index is replaced as a whole. Of two machines that do so at once the later wins; each looks again whether what it
//! put is in it. Nothing depends on any of this: it is done with little patience, and that it fails is for a warning.
//!
//! Entries are not signed, unlike evaluations: whoever can write there can make runs look slower, or add some. That changes
//! what reports, gates and estimates say, and never what is built or pushed; `doctor` says so.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use serde::{Deserialize, Serialize};

use crate::config::Settings;
use crate::driver::caches::CacheList;
use crate::event::{Class, Event, Fact, Failure};
use crate::id::RunId;
use crate::record::history::{Entry, Folder, History, MAX_PACKED, unpack};
use crate::store::cache::share::Share;

/// Runs that the index names, the newest.
const INDEXED: usize = 1000;

/// Most bytes of the index.
const MAX_INDEX: usize = 1 << 20;

/// Files that the end of one run takes from there and puts there; the next run goes on.
const TAKEN: usize = 100;
const PUT: usize = 20;

/// Files that are on their way at once.
const AT_ONCE: usize = 8;

/// How often the index is written until it names what was put.
const ROUNDS: usize = 3;

/// The longest that either half of this may take.
const LONGEST: Duration = Duration::from_secs(10);

const INDEX: &str = "history/index.json";

/// Version of the index.
const VERSION: u32 = 1;

/// The runs that are there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Index {
    version: u32,
    runs: BTreeSet<RunId>,
}

/// A place that answers, and what is there.
pub(in crate::driver) struct Exchange {
    share: Share,
    index: Index,
    /// What is known here is for others: this is no fork's pull request, and there is a key, as for evaluations.
    writes: bool,
}

/// Takes in what others know. `None` if nothing is shared, or if the run did nothing that others could learn from. The
/// error is for a warning.
pub(super) async fn take(
    settings: &Settings,
    caches: &CacheList,
    events: &[Event],
    history: &mut History,
) -> Result<Option<Exchange>, String> {
    let config = &settings.share;
    let wanted = !settings.offline && did_something(events);
    let Some(url) = config.url.as_deref().filter(|_| wanted) else { return Ok(None) };
    let share = Share::open(url, config.token_file.as_deref(), caches.context()).map_err(|error| error.to_string())?;
    // It was said that it does not answer.
    let said = |event: &Event| matches!(&event.fact, Fact::Warning { message, .. } if message.contains(share.url()));
    if events.iter().any(said) {
        return Ok(None);
    }
    let told = |why: &str| format!("no history is taken from {}: {why}", share.url());
    match tokio::time::timeout(LONGEST, take_all(&share, history)).await {
        Ok(Ok(index)) => {
            let has_key = config.secret_key.is_some() || !caches.secret_keys().is_empty();
            Ok(Some(Exchange { share, index, writes: has_key && !config.read_only }))
        }
        Ok(Err(why)) => Err(told(&why)),
        Err(_) => Err(told(&format!("it takes more than {} s", LONGEST.as_secs()))),
    }
}

fn did_something(events: &[Event]) -> bool {
    // Who stops a run does not want to wait.
    if events.iter().any(|event| matches!(event.fact, Fact::Cancelled { .. })) {
        return false;
    }
    let is_work = |event: &Event| {
        matches!(
            event.fact,
            Fact::EvalStarted { .. } | Fact::AttemptStarted { .. } | Fact::FetchEnded { .. } | Fact::PushEnded { .. }
        )
    };
    events.iter().any(is_work)
}

async fn take_all(share: &Share, history: &mut History) -> Result<Index, String> {
    let index = index(share).await.map_err(|failure| failure.message.to_string())?;
    let unknown = history.unknown(index.runs.iter().rev().copied()).map_err(|error| error.to_string())?;
    let gets = unknown.into_iter().take(TAKEN).map(|run| async move {
        let file = share.get(&name(run), MAX_PACKED).await.ok().flatten()?;
        unpack(&file, run)
    });
    // What is not there yet, or is no entry, is left out.
    let entries: Vec<Entry> =
        stream::iter(gets).buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect().await;
    history.add_all(&entries).map_err(|error| crate::error::chain(&error))?;
    Ok(index)
}

impl Exchange {
    /// Puts there what is known here and not there: of the entries of this folder, the newest. The error is for whoever
    /// looks for it; the next run tries again.
    pub(super) async fn put(self, folder: &Folder) -> Result<(), String> {
        if !self.writes {
            return Ok(());
        }
        let told = |why: &str| format!("the history of this run is not shared at {}: {why}", self.share.url());
        match tokio::time::timeout(LONGEST, self.put_all(folder)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(failure)) => Err(told(&failure.message)),
            Err(_) => Err(told(&format!("it takes more than {} s", LONGEST.as_secs()))),
        }
    }

    async fn put_all(&self, folder: &Folder) -> Result<(), Failure> {
        let lacks = |run: &RunId| !self.index.runs.contains(run);
        let mut ours = BTreeSet::new();
        for run in folder.runs().into_iter().filter(lacks).take(PUT) {
            if let Some(packed) = folder.packed(run) {
                self.share.put(&name(run), packed).await?;
                ours.insert(run);
            }
        }
        for _ in 0..ROUNDS {
            let mut index = index(&self.share).await?;
            if ours.is_subset(&index.runs) {
                break;
            }
            index.runs.extend(&ours);
            while index.runs.len() > INDEXED {
                index.runs.pop_first();
            }
            // It holds numbers and names only.
            let json = serde_json::to_vec(&index).unwrap_or_default();
            self.share.put(INDEX, json).await?;
        }
        Ok(())
    }
}

/// What is there; nothing if there is no index, or none that can be read.
async fn index(share: &Share) -> Result<Index, Failure> {
    let file = share.get(INDEX, MAX_INDEX).await?;
    let index = file.and_then(|file| serde_json::from_slice::<Index>(&file).ok());
    let index = index.unwrap_or(Index { version: VERSION, runs: BTreeSet::new() });
    if index.version > VERSION {
        return Err(Failure::new(Class::Policy, "a newer drover wrote its index"));
    }
    Ok(index)
}

fn name(run: RunId) -> String {
    format!("history/{run}.json.zst")
}
