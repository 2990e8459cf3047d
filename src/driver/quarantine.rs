//! `[quarantine.NAME]`: which attrs may fail in a check, until a day.

use std::collections::BTreeSet;

use jiff::civil::Date;

use crate::config::{self, Settings};
use crate::error::Result;
use crate::eval::Listed;
use crate::eval::glob::Glob;
use crate::event::{Fact, Text};
use crate::id::{AttrId, DrvId};

use super::bus::Bus;

/// All quarantines of a check.
#[derive(Debug, Default)]
pub(super) struct Quarantines {
    all: Vec<Quarantine>,
    /// What is wrong with one of them fails the check.
    strict: bool,
    /// Drvs that may fail until nothing more is started.
    limit: Option<usize>,
    /// Attrs in quarantine.
    inmates: BTreeSet<AttrId>,
    /// Drvs that failed and count.
    roots: BTreeSet<DrvId>,
}

#[derive(Debug)]
struct Quarantine {
    name: Text,
    /// As it is written.
    attr: String,
    glob: Glob,
    reason: Text,
    ticket: Option<Text>,
    expires: Date,
    is_over: bool,
    /// What counts again, since it is over.
    again: Vec<String>,
    /// An attr is in it, or would be.
    matched: bool,
}

impl Quarantines {
    /// Those of the settings, on this day.
    pub(super) fn new(settings: &Settings, today: Date) -> Result<Self> {
        let read = |one: &config::Quarantine| {
            Ok(Quarantine {
                name: one.name.as_str().into(),
                attr: one.attr.clone(),
                glob: Glob::new(&one.attr, &format!("[quarantine.{}]", one.name))?,
                reason: one.reason.as_str().into(),
                ticket: one.ticket.as_deref().map(Into::into),
                expires: one.expires,
                is_over: one.expires <= today,
                again: Vec::new(),
                matched: false,
            })
        };
        let all = settings.check.quarantine.iter().map(read).collect::<Result<_>>()?;
        let build = &settings.build;
        let limit = if build.fail_fast { Some(1) } else { build.max_failures.map(|limit| limit.max(1) as usize) };
        Ok(Self { all, strict: settings.check.strict, limit, ..Self::default() })
    }

    /// Whether failures are counted here, since some may not count.
    pub(super) fn counts_failures(&self) -> bool {
        self.all.iter().any(|one| !one.is_over)
    }

    /// An attr failed because this drv did: whether these are now so many that nothing more is to be started.
    pub(super) fn is_enough(&mut self, attr: AttrId, root: DrvId) -> bool {
        if !self.counts_failures() || self.inmates.contains(&attr) {
            return false;
        }
        self.roots.insert(root) && self.limit.is_some_and(|limit| self.roots.len() >= limit)
    }

    /// Attrs are known by name: says which of them are in quarantine.
    pub(super) fn listed(&mut self, bus: &mut Bus, listed: &[Listed]) {
        for Listed { attr, path, name, .. } in listed {
            let mut matching: Vec<_> = self.all.iter_mut().filter(|one| one.glob.matches(path)).collect();
            matching.iter_mut().for_each(|one| one.matched = true);
            let (over, mut in_force): (Vec<_>, Vec<_>) = matching.into_iter().partition(|one| one.is_over);
            match in_force.first_mut() {
                Some(one) => {
                    self.inmates.insert(*attr);
                    bus.emit(one.fact(*attr));
                }
                None => over.into_iter().for_each(|one| one.again.push(name.to_string())),
            }
        }
    }

    /// No more attrs come: says what counts again, and which quarantines are about nothing, where `whole` says that
    /// nothing was left out.
    pub(super) fn end(&mut self, bus: &mut Bus, whole: bool) {
        for one in &mut self.all {
            if whole && !one.matched {
                bus.emit(Fact::FlakeFinding {
                    about: "quarantine".into(),
                    message: format!("[quarantine.{}] is about nothing: no attr is called '{}'", one.name, one.attr)
                        .into(),
                    position: Some("drover.toml".into()),
                    hint: Some(format!("remove [quarantine.{}], or mend its attr", one.name).into()),
                    fails: self.strict,
                });
                continue;
            }
            let names = std::mem::take(&mut one.again);
            if names.is_empty() {
                continue;
            }
            let verb = if names.len() == 1 { "counts" } else { "count" };
            let names = names.join(" ");
            bus.emit(Fact::FlakeFinding {
                about: "quarantine".into(),
                message: format!("[quarantine.{}] ended on {}: {names} {verb} again", one.name, one.expires).into(),
                position: Some("drover.toml".into()),
                hint: Some(format!("remove [quarantine.{}], or give it a later day", one.name).into()),
                fails: self.strict,
            });
        }
    }
}

impl Quarantine {
    fn fact(&self, attr: AttrId) -> Fact {
        Fact::AttrQuarantined {
            attr,
            name: self.name.clone(),
            reason: self.reason.clone(),
            ticket: self.ticket.clone(),
            expires: self.expires.to_string().into(),
        }
    }
}
