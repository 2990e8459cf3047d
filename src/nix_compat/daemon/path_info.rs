//! What a store knows of a valid path.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tokio::io::AsyncRead;

use super::answer::{Answer, Layout, Source};
use crate::id::{StoreDir, StorePath};
use crate::nix_compat::hex;
use crate::nix_compat::wire::{
    Encoder, WireError, read_bool, read_bytes, read_optional_path, read_path, read_paths, read_text, read_texts,
    read_u64,
};

/// A valid path with its metadata (`ValidPathInfo`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathInfo {
    /// The path.
    pub path: StorePath,
    /// The drv that built it, where known; it need not exist.
    pub deriver: Option<StorePath>,
    /// SHA-256 of its NAR.
    pub nar_hash: [u8; 32],
    /// Paths it refers to, possibly itself.
    pub references: BTreeSet<StorePath>,
    /// Seconds since 1970.
    pub registration_time: u64,
    /// Bytes of its NAR.
    pub nar_size: u64,
    /// Built here, so trusted without a signature.
    pub ultimate: bool,
    /// `key:base64`.
    pub signatures: BTreeSet<String>,
    /// `text:sha256:…`, `fixed:…`; `None` if input-addressed.
    pub ca: Option<String>,
}

impl PathInfo {
    /// What it refers to besides itself.
    pub fn others(&self) -> impl Iterator<Item = &StorePath> {
        self.references.iter().filter(|reference| **reference != self.path)
    }

    /// Sorts so that each path comes after all that it refers to. What is on a cycle, which a store cannot hold, comes
    /// last.
    #[must_use]
    pub fn references_first(infos: Vec<Self>) -> Vec<Self> {
        let place: BTreeMap<StorePath, usize> =
            infos.iter().enumerate().map(|(at, info)| (info.path.clone(), at)).collect();
        let mut waits = vec![0usize; infos.len()];
        let mut users = vec![Vec::new(); infos.len()];
        for (at, info) in infos.iter().enumerate() {
            for reference in info.others().filter_map(|path| place.get(path)) {
                waits[at] += 1;
                users[*reference].push(at);
            }
        }
        let mut ready: VecDeque<usize> = (0..infos.len()).filter(|&at| waits[at] == 0).collect();
        let mut rank = vec![usize::MAX; infos.len()];
        let mut next = 0;
        while let Some(at) = ready.pop_front() {
            rank[at] = next;
            next += 1;
            for &user in &users[at] {
                waits[user] -= 1;
                if waits[user] == 0 {
                    ready.push_back(user);
                }
            }
        }
        let mut ranked: Vec<_> = rank.into_iter().zip(infos).collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        ranked.into_iter().map(|(_, info)| info).collect()
    }

    /// Reads what [`PathInfo::write`] writes.
    pub async fn read<R: AsyncRead + Unpin>(reader: &mut R, dir: &StoreDir) -> Result<Self, WireError> {
        let path = read_path(reader, dir).await?;
        Ok(Unkeyed::read(reader, dir).await?.of(path))
    }

    /// Adds the path and its metadata.
    pub fn write(&self, dir: &StoreDir, to: &mut Encoder) {
        to.path(dir, &self.path);
        self.write_unkeyed(dir, to);
    }

    /// Adds the metadata alone.
    pub fn write_unkeyed(&self, dir: &StoreDir, to: &mut Encoder) {
        to.bytes(self.deriver.as_ref().map(|path| dir.render_path(path)).unwrap_or_default())
            .bytes(hex::encode(&self.nar_hash))
            .paths(dir, &self.references)
            .u64(self.registration_time)
            .u64(self.nar_size)
            .bool(self.ultimate)
            .list(&self.signatures, |to, signature| {
                to.bytes(signature);
            })
            .bytes(self.ca.as_deref().unwrap_or_default());
    }
}

/// The metadata of a path that only the asker can name (`UnkeyedValidPathInfo`).
pub(super) struct Unkeyed(Box<dyn FnOnce(StorePath) -> PathInfo + Send>);

impl Unkeyed {
    /// With the path that was asked for.
    pub(super) fn of(self, path: StorePath) -> PathInfo {
        (self.0)(path)
    }

    async fn read<R: AsyncRead + Unpin>(reader: &mut R, dir: &StoreDir) -> Result<Self, WireError> {
        let deriver = read_optional_path(reader, dir).await?;
        let nar_hash = parse_hex(&read_bytes(reader).await?)?;
        let references = read_paths(reader, dir).await?.into_iter().collect();
        let registration_time = read_u64(reader).await?;
        let nar_size = read_u64(reader).await?;
        let ultimate = read_bool(reader).await?;
        let signatures = read_texts(reader).await?.into_iter().collect();
        let ca = Some(read_text(reader).await?).filter(|ca| !ca.is_empty());
        Ok(Self(Box::new(move |path| PathInfo {
            path,
            deriver,
            nar_hash,
            references,
            registration_time,
            nar_size,
            ultimate,
            signatures,
            ca,
        })))
    }
}

impl Answer for Option<Unkeyed> {
    async fn read(reader: &mut Source, layout: &Layout) -> Result<Self, WireError> {
        if read_bool(reader).await? { Ok(Some(Unkeyed::read(reader, &layout.dir).await?)) } else { Ok(None) }
    }
}

fn parse_hex(digits: &[u8]) -> Result<[u8; 32], WireError> {
    let bad = || WireError::malformed("the hash of a NAR is not 64 hex digits");
    let mut hash = [0; 32];
    if digits.len() != 64 {
        return Err(bad());
    }
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |c: u8| char::from(c).to_digit(16);
        let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else { return Err(bad()) };
        *byte = (high * 16 + low) as u8;
    }
    Ok(hash)
}
