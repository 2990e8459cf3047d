//! A cache that has the outputs of most drvs, closed and signed: whatever a record refers to has a record too.
//!
//! Its records are real. The archives that they name do not exist, so nothing can be fetched.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use drover::id::StorePath;
use drover::nix_compat::narinfo::{Compression, NarInfo, NixHash, nixbase32};
use drover::store::cache::keys::SecretKey;
use rayon::prelude::*;
use sha2::{Digest as _, Sha256};

use super::random::Random;
use super::{OutputId, PackageSet};

/// What the cache says of one output.
#[derive(Debug, Clone)]
pub struct Record {
    pub references: Vec<OutputId>,
    /// Signed as it stands.
    pub signed: bool,
    /// A reference that the record has lost since it was signed.
    pub lost: Option<OutputId>,
}

/// See the module's page.
#[derive(Debug, Clone)]
pub struct Cache {
    pub records: BTreeMap<OutputId, Record>,
}

impl Cache {
    /// A cache that lacks all outputs of so many drvs, and one output of every twentieth drv with several. What lacks
    /// a drv lacks all that depends on it, but for sources: these stay the same however they are fetched.
    pub fn lacking(set: &PackageSet, drvs: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let missing = missing(set, drvs, &mut random);
        let mut records = BTreeMap::new();
        for id in set.outputs().filter(|id| !missing.contains(&id.drv)) {
            records.insert(id, Record { references: Vec::new(), signed: true, lost: None });
        }
        for drv in 0..set.drvs.len() {
            let outputs = set.drvs[drv].outputs.len();
            if outputs > 1 && !missing.contains(&drv) && random.below(20) == 0 {
                records.remove(&OutputId { drv, output: random.below(outputs) });
            }
        }
        let ids: Vec<OutputId> = records.keys().copied().collect();
        for id in ids {
            let references = references(set, &records, id, &mut random);
            records.get_mut(&id).unwrap().references = references;
        }
        Self { records }
    }

    /// All that these refer to, themselves included.
    pub fn closure(&self, roots: impl IntoIterator<Item = OutputId>) -> BTreeSet<OutputId> {
        self.closure_without(roots, &BTreeSet::new())
    }

    /// The same, going round these.
    pub fn closure_without(
        &self,
        roots: impl IntoIterator<Item = OutputId>,
        round: &BTreeSet<OutputId>,
    ) -> BTreeSet<OutputId> {
        let mut open: Vec<OutputId> = roots.into_iter().collect();
        let mut closure = BTreeSet::new();
        while let Some(id) = open.pop() {
            if !round.contains(&id) && closure.insert(id) {
                open.extend(self.records.get(&id).map_or(&[][..], |record| &record.references));
            }
        }
        closure
    }

    /// Whether a store would take this output from here, if it had what that refers to.
    pub fn is_taken(&self, id: OutputId) -> bool {
        self.records.get(&id).is_some_and(|record| record.signed)
    }

    /// What cannot be taken of all that these refer to.
    pub fn gaps(&self, roots: impl IntoIterator<Item = OutputId>) -> BTreeSet<OutputId> {
        let mut open: Vec<OutputId> = roots.into_iter().collect();
        let (mut seen, mut gaps) = (BTreeSet::new(), BTreeSet::new());
        while let Some(id) = open.pop() {
            if !self.is_taken(id) {
                gaps.insert(id);
            } else if seen.insert(id) {
                open.extend(&self.records[&id].references);
            }
        }
        gaps
    }

    /// Writes the whole cache into a directory, signed.
    pub fn write(&self, set: &PackageSet, dir: &Path, key: &SecretKey) {
        fs::create_dir_all(dir.join("nar")).unwrap();
        let info = format!("StoreDir: {}\nWantMassQuery: 1\nPriority: 40\n", set.store_dir.as_str());
        fs::write(dir.join("nix-cache-info"), info).unwrap();
        let records: Vec<_> = self.records.iter().collect();
        let write = |(id, record): &(&OutputId, &Record)| {
            fs::write(file(set, dir, **id), record.info(set, **id, key)).unwrap();
        };
        records.par_iter().for_each(write);
    }

    /// Writes one record anew, or takes it away if there is none any more.
    pub fn rewrite(&self, set: &PackageSet, dir: &Path, key: &SecretKey, id: OutputId) {
        match self.records.get(&id) {
            Some(record) => fs::write(file(set, dir, id), record.info(set, id, key)).unwrap(),
            None => fs::remove_file(file(set, dir, id)).unwrap(),
        }
    }
}

impl Record {
    /// The record's text. Hashes and sizes are made up, and consistent.
    fn info(&self, set: &PackageSet, id: OutputId, key: &SecretKey) -> Vec<u8> {
        let path = set.path(id);
        let sum = |what: &str| -> [u8; 32] { Sha256::digest(format!("{what} {path:?}")).into() };
        let file_hash = sum("file");
        let size = u64::from(u32::from_le_bytes([file_hash[0], file_hash[1], file_hash[2], 0])) + 1;
        let drv = &set.drvs[id.drv];
        let url = format!("nar/{}.nar.xz", nixbase32::encode(&file_hash));
        let record = |references: Vec<OutputId>, signature| {
            NarInfo::builder_in(set.store_dir.clone(), path.clone(), &*url, NixHash::Sha256(sum("nar")), size * 4)
                .compression(Compression::Xz)
                .file_hash(Some(NixHash::Sha256(file_hash)))
                .file_size(Some(size))
                .references(references.iter().map(|id| set.path(*id).clone()))
                .deriver(Some(drv.path.clone()))
                .content_address(drv.fixed.clone())
                .signatures(signature)
                .build()
                .unwrap()
        };
        let references = || self.references.clone();
        if !self.signed && self.lost.is_none() {
            return record(references(), None).to_canonical_bytes();
        }
        let signed = references().into_iter().chain(self.lost).collect();
        let signature = key.sign(&record(signed, None).fingerprint(&set.store_dir));
        record(references(), Some(signature)).to_canonical_bytes()
    }
}

fn file(set: &PackageSet, dir: &Path, id: OutputId) -> PathBuf {
    dir.join(format!("{}.narinfo", nixbase32::encode(set.path(id).digest())))
}

/// So many drvs, with all that depends on each.
fn missing(set: &PackageSet, count: usize, random: &mut Random) -> BTreeSet<usize> {
    let users = set.shape.users();
    let mut order: Vec<usize> = (0..set.drvs.len()).collect();
    random.shuffle(&mut order);
    let mut missing = BTreeSet::new();
    for seed in order {
        let mut more = BTreeSet::new();
        let mut open = vec![seed];
        while let Some(drv) = open.pop() {
            let known = missing.contains(&drv) || (drv != seed && set.shape.nodes[drv].fixed);
            if !known && more.insert(drv) && missing.len() + more.len() <= count {
                open.extend(&users[drv]);
            }
        }
        if missing.len() + more.len() <= count {
            missing.extend(more);
        }
    }
    assert_eq!(missing.len(), count);
    missing
}

/// What an output refers to: itself perhaps, another output of its drv perhaps, and some of what it was built with.
fn references(
    set: &PackageSet,
    records: &BTreeMap<OutputId, Record>,
    id: OutputId,
    random: &mut Random,
) -> Vec<OutputId> {
    let node = &set.shape.nodes[id.drv];
    if node.fixed {
        return Vec::new();
    }
    let mut references = BTreeSet::new();
    if random.below(2) == 0 {
        references.insert(id);
    }
    // All but the main output may refer to it, not the other way round.
    let main = node.outputs.iter().position(|name| name == "out").unwrap_or(0);
    if id.output != main && random.below(2) == 0 {
        references.insert(OutputId { drv: id.drv, output: main });
    }
    let mut built_with = BTreeSet::new();
    for need in set.needs(id.drv) {
        // Sources are seldom referred to.
        let chance = if set.shape.nodes[need.drv].fixed { 20 } else { 3 };
        if built_with.len() < 10 && random.below(chance) == 0 {
            built_with.insert(need);
        }
    }
    references.extend(built_with);
    references.into_iter().filter(|reference| records.contains_key(reference)).collect()
}

/// For whoever compares store paths.
pub fn paths(set: &PackageSet, ids: impl IntoIterator<Item = OutputId>) -> BTreeSet<String> {
    ids.into_iter().map(|id| StorePath::to_basename(set.path(id))).collect()
}

/// A key of which the secret half is no secret.
pub fn key(name: &str) -> SecretKey {
    use base64::Engine as _;
    let pair = ed25519_dalek::SigningKey::from_bytes(&Sha256::digest(name).into()).to_keypair_bytes();
    SecretKey::parse(&format!("{name}:{}", base64::engine::general_purpose::STANDARD.encode(pair))).unwrap()
}
