//! Distributing units over a number of rows: the largest first, each to where the row is shortest with it, and then
//! moves and swaps as long as they make the longest row shorter. Owns the search; what may be in one row at all has
//! been settled before.

use std::collections::{BTreeMap, BTreeSet};

use super::Work;

/// Moves and swaps that are tried at most.
const STEPS: usize = 200;

/// The share of the longest row that a step has to gain.
const GAIN: f64 = 1e-3;

/// What stays together: a cluster of attrs, or one attr.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Unit {
    pub(super) attrs: Vec<usize>,
    pub(super) drvs: BTreeSet<usize>,
    /// The sum over its drvs.
    pub(super) seconds: f64,
}

/// One row in the making.
#[derive(Debug, Clone, Default)]
struct Bin {
    units: Vec<usize>,
    /// How many of its units need a drv; only kept where units share drvs.
    uses: BTreeMap<usize, u32>,
    seconds: f64,
}

/// Units and the rows that they are in.
struct Layout<'a> {
    work: &'a Work,
    units: &'a [Unit],
    bins: Vec<Bin>,
    /// Units may share drvs.
    overlap: bool,
}

/// The units of each row; rows without any are left out.
pub(super) fn lay(work: &Work, units: &[Unit], rows: usize, overlap: bool) -> Vec<Vec<usize>> {
    let mut layout = Layout::new(work, units, rows, overlap);
    layout.improve();
    layout.bins.into_iter().map(|bin| bin.units).filter(|units| !units.is_empty()).collect()
}

/// Seconds of the longest row for units that share nothing, before anything is moved: at most 4/3 of the best.
pub(super) fn longest(work: &Work, units: &[Unit], rows: usize) -> f64 {
    let layout = Layout::new(work, units, rows, false);
    layout.bins.iter().map(|bin| bin.seconds).fold(0.0, f64::max)
}

impl<'a> Layout<'a> {
    /// The largest first.
    fn new(work: &'a Work, units: &'a [Unit], rows: usize, overlap: bool) -> Self {
        let mut layout = Self { work, units, bins: vec![Bin::default(); rows.max(1)], overlap };
        let mut order: Vec<usize> = (0..units.len()).collect();
        order.sort_by(|a, b| units[*b].seconds.total_cmp(&units[*a].seconds).then(a.cmp(b)));
        for unit in order {
            let with = |bin: usize| {
                let more = layout.more(unit, bin);
                (layout.bins[bin].seconds + more, more)
            };
            let costs: Vec<(f64, f64)> = (0..layout.bins.len()).map(with).collect();
            let shorter = |a: &usize, b: &usize| {
                costs[*a].0.total_cmp(&costs[*b].0).then(costs[*a].1.total_cmp(&costs[*b].1)).then(a.cmp(b))
            };
            if let Some(bin) = (0..costs.len()).min_by(shorter) {
                layout.put(unit, bin);
            }
        }
        layout
    }

    /// Seconds that a unit would add to a row.
    fn more(&self, unit: usize, bin: usize) -> f64 {
        let unit = &self.units[unit];
        if !self.overlap {
            return unit.seconds;
        }
        let new = unit.drvs.iter().filter(|drv| !self.bins[bin].uses.contains_key(drv));
        new.map(|drv| self.work.drvs[*drv].seconds).sum()
    }

    /// Seconds that a row would lose with one of its units.
    fn less(&self, unit: usize, bin: usize) -> f64 {
        let unit = &self.units[unit];
        if !self.overlap {
            return unit.seconds;
        }
        let own = unit.drvs.iter().filter(|drv| self.bins[bin].uses.get(drv) == Some(&1));
        own.map(|drv| self.work.drvs[*drv].seconds).sum()
    }

    fn put(&mut self, unit: usize, bin: usize) {
        let more = self.more(unit, bin);
        let bin = &mut self.bins[bin];
        bin.seconds += more;
        bin.units.push(unit);
        if self.overlap {
            self.units[unit].drvs.iter().for_each(|drv| *bin.uses.entry(*drv).or_default() += 1);
        }
    }

    fn take(&mut self, unit: usize, bin: usize) {
        let less = self.less(unit, bin);
        let bin = &mut self.bins[bin];
        bin.seconds -= less;
        bin.units.retain(|other| *other != unit);
        if self.overlap {
            for drv in &self.units[unit].drvs {
                if let Some(uses) = bin.uses.get_mut(drv) {
                    *uses -= 1;
                }
            }
            bin.uses.retain(|_, uses| *uses > 0);
        }
    }

    /// Moves a unit out of the longest row, or swaps it for a smaller one, while that helps.
    fn improve(&mut self) {
        for _ in 0..STEPS {
            let longest = (0..self.bins.len()).max_by(|a, b| self.bins[*a].seconds.total_cmp(&self.bins[*b].seconds));
            let Some(from) = longest else { return };
            let step = self.best_move(from).or_else(|| if self.overlap { None } else { self.best_swap(from) });
            let Some((unit, to, back)) = step else { return };
            self.take(unit, from);
            if let Some(back) = back {
                self.take(back, to);
                self.put(back, from);
            }
            self.put(unit, to);
        }
    }

    /// The unit of a row whose move to another one leaves the longer of the two shortest, and where to.
    fn best_move(&self, from: usize) -> Option<(usize, usize, Option<usize>)> {
        let now = self.bins[from].seconds;
        let mut best = (now * (1.0 - GAIN), None);
        for &unit in &self.bins[from].units {
            let left = now - self.less(unit, from);
            for to in (0..self.bins.len()).filter(|to| *to != from) {
                if self.bins[to].seconds >= best.0 {
                    continue;
                }
                let longer = left.max(self.bins[to].seconds + self.more(unit, to));
                if longer < best.0 {
                    best = (longer, Some((unit, to, None)));
                }
            }
        }
        best.1
    }

    /// The same for two units that change places; only for units that share nothing.
    fn best_swap(&self, from: usize) -> Option<(usize, usize, Option<usize>)> {
        let now = self.bins[from].seconds;
        let mut best = (now * (1.0 - GAIN), None);
        for &unit in &self.bins[from].units {
            for to in (0..self.bins.len()).filter(|to| *to != from) {
                for &back in &self.bins[to].units {
                    let gain = self.units[unit].seconds - self.units[back].seconds;
                    let longer = (now - gain).max(self.bins[to].seconds + gain);
                    if longer < best.0 {
                        best = (longer, Some((unit, to, Some(back))));
                    }
                }
            }
        }
        best.1
    }
}
