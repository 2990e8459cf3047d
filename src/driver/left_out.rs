//! Attrs that are left out by default: counted, and told in one line for each sort.

use std::collections::BTreeMap;

use crate::eval::list::LeftOut;
use crate::event::Fact;
use crate::id::{Kind, System};

use super::bus::Bus;

/// What was left out and is not told yet.
#[derive(Debug, Default)]
pub(super) struct LeftOutAttrs {
    /// Attrs that were never listed, as the evaluators counted them.
    unlisted: Vec<LeftOut>,
    /// Attrs of systems that nobody here can build, by what they are.
    by_system: BTreeMap<(Kind, System), u32>,
}

impl LeftOutAttrs {
    /// Evaluators have not listed these.
    pub(super) fn add_unlisted(&mut self, left_out: LeftOut) {
        self.unlisted.push(left_out);
    }

    /// An attr turned out to be for a system that nobody here can build.
    pub(super) fn add(&mut self, kind: Kind, system: System) {
        *self.by_system.entry((kind, system)).or_default() += 1;
    }

    /// Whether nothing was left out.
    pub(super) fn is_empty(&self) -> bool {
        self.unlisted.is_empty() && self.by_system.is_empty()
    }

    /// All at once, so that it can be one line.
    pub(super) fn tell(&mut self, bus: &mut Bus) {
        for LeftOut { count, what, flag } in std::mem::take(&mut self.unlisted) {
            bus.emit(Fact::AttrsLeftOut { count, what: what.into(), flag: flag.into() });
        }
        for ((kind, system), count) in std::mem::take(&mut self.by_system) {
            let what = format!("{count} {} for {system}", kind.noun(count as usize)).into();
            bus.emit(Fact::AttrsLeftOut { count, what, flag: "--all-systems".into() });
        }
    }
}
