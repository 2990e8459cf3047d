//! The attrs of a run: what was listed, what came of each. Pure bookkeeping; the driver feeds it and asks it.

use std::collections::{BTreeMap, HashMap};

use crate::event::{OutputPath, Status};
use crate::id::{AttrId, AttrPath, DrvId, Kind, StorePath, System};

/// One attr.
#[derive(Debug)]
pub(super) struct AttrEntry {
    pub(super) path: AttrPath,
    pub(super) kind: Kind,
    /// Its drv, once evaluated.
    pub(super) drv: Option<StorePath>,
    pub(super) system: Option<System>,
    /// The outputs that it asks for.
    pub(super) outputs: Vec<OutputPath>,
    /// The node it waits for.
    pub(super) node: Option<DrvId>,
    /// The final word.
    pub(super) status: Option<Status>,
}

/// All attrs by number, and who waits for which drv.
#[derive(Debug, Default)]
pub(super) struct Attrs {
    entries: Vec<AttrEntry>,
    waiting: BTreeMap<DrvId, Vec<AttrId>>,
}

impl Attrs {
    /// Takes the listed attrs, in their order; gives each its number and the name that people call it.
    pub(super) fn list(&mut self, paths: Vec<AttrPath>) -> Vec<(AttrId, AttrPath, Kind, String)> {
        let mut seen: HashMap<String, u32> = HashMap::new();
        for path in &paths {
            *seen.entry(path.last().to_owned()).or_default() += 1;
        }
        let mut listed = Vec::new();
        for path in paths {
            let id = AttrId(u32::try_from(self.entries.len()).unwrap_or(u32::MAX));
            let kind = path.kind();
            let short = path.last();
            let name = if seen.get(short) == Some(&1) { short.to_owned() } else { path.to_string() };
            listed.push((id, path.clone(), kind, name));
            self.entries.push(AttrEntry {
                path,
                kind,
                drv: None,
                system: None,
                outputs: Vec::new(),
                node: None,
                status: None,
            });
        }
        listed
    }

    /// One attr.
    pub(super) fn get(&self, attr: AttrId) -> Option<&AttrEntry> {
        self.entries.get(attr.index())
    }

    /// One attr, to change.
    pub(super) fn get_mut(&mut self, attr: AttrId) -> Option<&mut AttrEntry> {
        self.entries.get_mut(attr.index())
    }

    /// All, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (AttrId, &AttrEntry)> {
        self.entries.iter().enumerate().map(|(i, entry)| (AttrId(u32::try_from(i).unwrap_or(u32::MAX)), entry))
    }

    /// The attr ends when this drv does.
    pub(super) fn wait_for(&mut self, attr: AttrId, drv: DrvId) {
        if let Some(entry) = self.entries.get_mut(attr.index()) {
            entry.node = Some(drv);
            self.waiting.entry(drv).or_default().push(attr);
        }
    }

    /// The attrs that waited for this drv.
    pub(super) fn ended_with(&mut self, drv: DrvId) -> Vec<AttrId> {
        self.waiting.remove(&drv).unwrap_or_default()
    }

    /// Those without a final word.
    pub(super) fn open(&self) -> Vec<AttrId> {
        self.iter().filter(|(_, entry)| entry.status.is_none()).map(|(id, _)| id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_unless_two_share_one() {
        let mut attrs = Attrs::default();
        let paths = ["nixosConfigurations.web1", "checks.x86_64-linux.web1", "nixosConfigurations.db1"];
        let listed = attrs.list(paths.iter().map(|path| path.parse().unwrap()).collect());
        let names: Vec<_> = listed.into_iter().map(|(_, _, _, name)| name).collect();
        assert_eq!(names, ["nixosConfigurations.web1", "checks.x86_64-linux.web1", "db1"]);
    }
}
