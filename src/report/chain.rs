//! The longest chain of builds of a run that followed from each other, as it was measured: no more builders would have
//! made it shorter.

use std::collections::BTreeMap;

use crate::event::DrvOutcome;
use crate::id::DrvId;

use super::number::{duration, pname};
use super::summary::{Drv, Summary};
use super::text::Line;

/// Drvs of the chain that are named, the last besides.
const NAMED: usize = 3;

/// A chain.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Chain {
    /// The drvs with their seconds of building, the first to be built first.
    pub links: Vec<(DrvId, f64)>,
    /// All of them together.
    pub seconds: f64,
}

/// The longest chain of what was built; empty if nothing was.
#[must_use]
pub fn longest(s: &Summary) -> Chain {
    let built = |(id, drv): (&DrvId, &Drv)| match drv.ended.as_ref()? {
        (at, DrvOutcome::Built) => Some((*at, *id)),
        _ => None,
    };
    let mut order: Vec<_> = s.drvs.iter().filter_map(built).collect();
    // What was built for another was built before it.
    order.sort_unstable();
    // Up to each: the seconds of the chain, its own, and the drv before it.
    let mut upto: BTreeMap<DrvId, (f64, f64, Option<DrvId>)> = BTreeMap::new();
    for (_, id) in order {
        let Some(drv) = s.drvs.get(&id) else { continue };
        let own = s.attempts_of(id).last().map_or(0.0, |attempt| attempt.seconds(s.end));
        let before = drv.inputs.iter().filter_map(|input| Some((upto.get(input)?.0, *input)));
        let before = before.max_by(|a, b| a.0.total_cmp(&b.0));
        upto.insert(id, (before.map_or(0.0, |(seconds, _)| seconds) + own, own, before.map(|(_, drv)| drv)));
    }
    let last = upto.iter().max_by(|a, b| a.1.0.total_cmp(&b.1.0)).map(|(id, _)| *id);
    let seconds = last.and_then(|last| upto.get(&last)).map_or(0.0, |(seconds, ..)| *seconds);
    let mut links = Vec::new();
    let mut at = last;
    while let Some(id) = at {
        let Some((_, own, before)) = upto.remove(&id) else { break };
        links.push((id, own));
        at = before;
    }
    links.reverse();
    Chain { links, seconds }
}

/// As a document: `{seconds, drvs: [{name, seconds}]}`.
#[must_use]
pub fn document(s: &Summary, chain: &Chain) -> serde_json::Value {
    let link = |(drv, seconds): &(DrvId, f64)| serde_json::json!({ "name": s.drv_name(*drv), "seconds": seconds });
    serde_json::json!({ "seconds": chain.seconds, "drvs": chain.links.iter().map(link).collect::<Vec<_>>() })
}

/// `Longest chain 17m02s: stdenv → gcc-15.2.0 9m40s → … → web1`; `None` where nothing was built.
#[must_use]
pub fn line(s: &Summary, chain: &Chain, width: usize) -> Option<Line> {
    let (last, rest) = chain.links.split_last()?;
    let mut long: Vec<usize> = (0..rest.len()).collect();
    long.sort_by(|a, b| rest[*b].1.total_cmp(&rest[*a].1));
    long.truncate(NAMED);
    long.sort_unstable();
    let mut names: Vec<String> = Vec::new();
    let mut next = 0;
    for at in long {
        if at > next {
            names.push("…".to_owned());
        }
        let (drv, seconds) = rest[at];
        names.push(format!("{} {}", s.drv_name(drv), duration(seconds)));
        next = at + 1;
    }
    if next < rest.len() {
        names.push("…".to_owned());
    }
    let attr = s.attrs.values().find(|attr| attr.planned.as_ref().is_some_and(|planned| planned.drv == Some(last.0)));
    names.push(attr.map_or_else(|| pname(&s.drv_name(last.0)).to_owned(), |attr| attr.name.to_string()));
    Some(Line::from(format!("Longest chain {}: {}", duration(chain.seconds), names.join(" → "))).fit(width))
}
