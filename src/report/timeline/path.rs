//! The path through a run: the account, laid over the bars.

use std::collections::BTreeMap;

use crate::report::account::{self, Interval, Owner, Place, What};
use crate::report::summary::Summary;

use super::{Site, Subject, Track};

/// One step of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// What the run was waiting for, and for how long.
    pub interval: Interval,
    /// The bar in which that was done; `None` for what is no bar, such as waiting for a slot.
    pub spot: Option<Spot>,
}

/// A bar by where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spot {
    /// The track, counted from 0.
    pub track: usize,
    /// The lane of the track.
    pub lane: usize,
    /// The bar of the lane.
    pub bar: usize,
}

/// Bars by whom they are about.
type Index<'a> = BTreeMap<(Site, &'a Subject), Vec<Spot>>;

pub(super) fn of(s: &Summary, tracks: &[Track]) -> Vec<Step> {
    let index = index(tracks);
    let step = |interval| Step { interval, spot: spot(tracks, &index, &interval) };
    account::of(s).into_iter().map(step).collect()
}

fn index(tracks: &[Track]) -> Index<'_> {
    let mut index = Index::new();
    for (t, track) in tracks.iter().enumerate() {
        for (l, lane) in track.lanes.iter().enumerate() {
            for (b, bar) in lane.iter().enumerate() {
                let spot = Spot { track: t, lane: l, bar: b };
                index.entry((track.site, &bar.subject)).or_default().push(spot);
            }
        }
    }
    index
}

/// The bar that reaches furthest into an interval.
fn spot(tracks: &[Track], index: &Index<'_>, interval: &Interval) -> Option<Spot> {
    let shared = |spot: &Spot| {
        let bar = &tracks[spot.track].lanes[spot.lane][spot.bar];
        bar.to.min(interval.to).since(bar.from.max(interval.from))
    };
    let best = |spots: &mut dyn Iterator<Item = Spot>| {
        let some = spots.filter(|spot| shared(spot) > 0.0);
        some.max_by(|a, b| shared(a).total_cmp(&shared(b)))
    };
    if let (What::Pushing, Some(Place::Cache(cache))) = (interval.what, interval.place) {
        let track = tracks.iter().position(|track| track.site == Site::Pushes(cache))?;
        let lanes = tracks[track].lanes.iter().enumerate();
        let bars = lanes.flat_map(|(lane, bars)| (0..bars.len()).map(move |bar| Spot { track, lane, bar }));
        return best(&mut bars.into_iter());
    }
    let subject = match interval.owner {
        Owner::Attr(attr) => Subject::Attr(attr),
        Owner::Drv(drv) => Subject::Drv(drv),
        Owner::Run | Owner::Cache(_) => return None,
    };
    let sites = sites(interval);
    let spots = sites.into_iter().flatten().filter_map(|site| index.get(&(site, &subject))).flatten();
    best(&mut spots.copied())
}

/// Where that may be done.
fn sites(interval: &Interval) -> [Option<Site>; 2] {
    let builder = match interval.place {
        Some(Place::Builder(builder)) => Some(builder),
        _ => None,
    };
    match interval.what {
        What::Evaluating => [Some(Site::Evaluators), None],
        What::Fetching => [Some(Site::Fetches), None],
        // In the local store the slot is held meanwhile.
        What::Preparing | What::Elsewhere => [builder.map(Site::Inputs), builder.map(Site::Slots)],
        What::Building | What::Collecting => [builder.map(Site::Slots), None],
        What::Returning => [builder.map(Site::Results), None],
        _ => [None, None],
    }
}
