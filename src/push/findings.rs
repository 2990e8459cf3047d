//! What is wrong with the paths of a cache: pure, of what was read of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use crate::id::{StoreDir, StorePath};
use crate::nix_compat::narinfo::{Compression, NarInfo, NixHash, TrustedPublicKey};
use crate::store::cache::check::NarRead;
use crate::store::cache::list::Stat;
use crate::store::cache::narinfo_name;

/// What was read of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The name of its record.
    pub record: String,
    /// The record, or why it cannot be read.
    pub info: Result<Box<NarInfo>, String>,
    /// Whether its NAR is there; `None` if nobody looked.
    pub nar: Option<Stat>,
    /// The NAR itself, if it was read.
    pub read: Option<NarRead>,
}

impl Seen {
    /// The path, if its record can be read.
    #[must_use]
    pub fn path(&self) -> Option<&StorePath> {
        self.info.as_ref().ok().map(|info| info.store_path())
    }
}

/// The keys that signatures are checked with.
#[derive(Debug, Clone, Default)]
pub struct Keys {
    /// Public keys that are known here, from wherever.
    pub known: Vec<TrustedPublicKey>,
    /// Some of them are said to be this cache's: each of its paths has to be signed with one that is known.
    pub own: bool,
}

/// What is wrong with a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// There is no record of it, although somebody counts on it.
    Absent,
    /// Its record cannot be read.
    Record(String),
    /// Its record is one of another path.
    Other(StorePath),
    /// The signatures of these keys do not fit to its record.
    Signature(Vec<String>),
    /// No key that is known here has signed it.
    Unsigned,
    /// It refers to this path, which no cache has.
    Reference(StorePath),
    /// Its NAR is not there.
    NarMissing,
    /// Its NAR has another size than its record says, in bytes.
    NarSize {
        /// What is there.
        got: u64,
        /// What the record says.
        expected: u64,
    },
    /// Its NAR is not the one that was written, as its hash says.
    NarDamaged(String),
    /// Its NAR is what was written, and is not the one of which the record speaks.
    NarOther(String),
}

impl Fault {
    /// One word for documents.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Record(_) => "record",
            Self::Other(_) => "other_path",
            Self::Signature(_) => "signature",
            Self::Unsigned => "unsigned",
            Self::Reference(_) => "reference",
            Self::NarMissing => "nar_missing",
            Self::NarSize { .. } => "nar_size",
            Self::NarDamaged(_) => "nar_damaged",
            Self::NarOther(_) => "nar_other",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => write!(f, "the cache does not have it"),
            Self::Record(why) => write!(f, "its record cannot be read: {why}"),
            Self::Other(path) => write!(f, "its record is one of {}", path.to_basename()),
            Self::Signature(keys) => write!(f, "its signature by {} is wrong", keys.join(" and ")),
            Self::Unsigned => write!(f, "it is not signed with a key that is known here"),
            Self::Reference(path) => write!(f, "it refers to {}, which no cache has", path.name()),
            Self::NarMissing => write!(f, "its NAR is not there"),
            Self::NarSize { got, expected } if got < expected => {
                write!(f, "its NAR is cut off: {got} of {expected} bytes")
            }
            Self::NarSize { got, expected } => write!(f, "its NAR has {got} bytes instead of {expected}"),
            Self::NarDamaged(why) => write!(f, "its NAR is damaged: {why}"),
            Self::NarOther(why) => write!(f, "its record speaks of another NAR: {why}"),
        }
    }
}

/// What is wrong with one path by itself. Costs a signature check a key: about 50 µs each.
#[must_use]
pub fn faults(seen: &Seen, keys: &Keys, store_dir: &StoreDir) -> Vec<Fault> {
    let info = match &seen.info {
        Ok(info) => info,
        Err(why) => return vec![Fault::Record(why.clone())],
    };
    if narinfo_name(info.store_path()) != seen.record {
        return vec![Fault::Other(info.store_path().clone())];
    }
    let mut faults: Vec<Fault> = signature(info, keys, store_dir).into_iter().collect();
    match seen.nar {
        Some(Stat::Missing) => faults.push(Fault::NarMissing),
        Some(Stat::There(Some(got))) => {
            let expected = expected_size(info).filter(|expected| *expected != got);
            faults.extend(expected.map(|expected| Fault::NarSize { got, expected }));
        }
        Some(Stat::There(None)) | None => {}
    }
    if faults.iter().all(|fault| !matches!(fault, Fault::NarMissing | Fault::NarSize { .. })) {
        faults.extend(seen.read.as_ref().and_then(|read| content(info, read)));
    }
    faults
}

/// Bytes of the file that holds its NAR, as far as the record says.
fn expected_size(info: &NarInfo) -> Option<u64> {
    let plain = || matches!(info.compression(), Compression::None).then(|| info.nar_size());
    info.file_size().or_else(plain)
}

fn signature(info: &NarInfo, keys: &Keys, store_dir: &StoreDir) -> Option<Fault> {
    let holds = |key: &TrustedPublicKey| info.has_valid_signature(store_dir, std::slice::from_ref(key));
    let named = |key: &&TrustedPublicKey| info.signatures().iter().any(|signature| signature.key_name == key.name);
    let wrong: BTreeSet<&String> =
        keys.known.iter().filter(named).filter(|key| !holds(key)).map(|key| &key.name).collect();
    // Of two keys of one name one may be older.
    let wrong: Vec<String> = wrong
        .into_iter()
        .filter(|name| !keys.known.iter().any(|key| key.name == **name && holds(key)))
        .cloned()
        .collect();
    if !wrong.is_empty() {
        return Some(Fault::Signature(wrong));
    }
    let fine = !keys.own || keys.known.iter().any(holds) || info.is_content_addressed(store_dir);
    (!fine).then_some(Fault::Unsigned)
}

/// What the bytes of the NAR say.
fn content(info: &NarInfo, read: &NarRead) -> Option<Fault> {
    let text = |hash: &NixHash| hash.to_nix_nixbase32_string();
    let as_written = match info.file_hash() {
        Some(said @ NixHash::Sha256(_)) if *said != read.file_hash => {
            let why = format!("its file has the hash {} instead of {}", text(&read.file_hash), text(said));
            return Some(Fault::NarDamaged(why));
        }
        said => said.is_some(),
    };
    let fault = |why: String| if as_written { Fault::NarOther(why) } else { Fault::NarDamaged(why) };
    let (hash, size) = match &read.nar {
        Ok(nar) => nar,
        Err(why) => return Some(Fault::NarDamaged(why.clone())),
    };
    if *size != info.nar_size() {
        return Some(fault(format!("it has {size} bytes instead of {}", info.nar_size())));
    }
    (hash != info.nar_hash())
        .then(|| fault(format!("it has the hash {} instead of {}", text(hash), text(info.nar_hash()))))
}

/// What the paths refer to and this cache has no record of, with who refers to it.
#[must_use]
pub fn references_elsewhere(all: &[Seen]) -> BTreeMap<StorePath, Vec<StorePath>> {
    let records: BTreeSet<&str> = all.iter().map(|seen| seen.record.as_str()).collect();
    let mut elsewhere: BTreeMap<StorePath, Vec<StorePath>> = BTreeMap::new();
    for info in all.iter().filter_map(|seen| seen.info.as_ref().ok()) {
        let gone = info.references().iter().filter(|path| !records.contains(narinfo_name(path).as_str()));
        for path in gone {
            elsewhere.entry(path.clone()).or_default().push(info.store_path().clone());
        }
    }
    elsewhere
}

/// The path whose record this is, as far as it can be found out without reading it: other records name it, or a line
/// of its own does.
#[must_use]
pub fn path_of(record: &str, body: &[u8], all: &[Seen], store_dir: &StoreDir) -> Option<StorePath> {
    let fits = |path: &&StorePath| narinfo_name(path) == record;
    let infos = all.iter().filter_map(|seen| seen.info.as_ref().ok());
    let named = infos.flat_map(|info| info.references().iter()).find(fits).cloned();
    named.or_else(|| {
        let line = body.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"StorePath: "))?;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        Some(store_dir.parse_path(line).ok()?).filter(|path| fits(&path))
    })
}

/// How many paths refer to one of these, directly or not, and are none of them.
#[must_use]
pub fn referrers(all: &[Seen], broken: &BTreeSet<StorePath>) -> usize {
    let mut users: BTreeMap<&StorePath, Vec<&StorePath>> = BTreeMap::new();
    for info in all.iter().filter_map(|seen| seen.info.as_ref().ok()) {
        info.references().iter().for_each(|path| users.entry(path).or_default().push(info.store_path()));
    }
    let mut found: BTreeSet<&StorePath> = broken.iter().collect();
    let mut work: VecDeque<&StorePath> = broken.iter().collect();
    while let Some(path) = work.pop_front() {
        work.extend(users.get(path).into_iter().flatten().filter(|user| found.insert(user)));
    }
    found.len() - broken.len()
}

/// The hash part of a record's name, to call a path whose name is not known.
#[must_use]
pub fn hash_part(record: &str) -> &str {
    record.split('.').next().unwrap_or(record)
}
