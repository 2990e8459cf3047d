//! Entries as files, one a run, in a folder that is carried to other machines: `share/history/` of the state directory.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use super::Entry;
use crate::id::RunId;

/// Most bytes of a packed entry: that of a run of the package set with 100,000 builds.
pub const MAX_PACKED: usize = 16 << 20;

/// The same before it is packed.
const MAX_PLAIN: u64 = 256 << 20;

/// Entries that the folder keeps, and the bytes that they may take together: it is carried around.
const KEPT: usize = 200;
const KEPT_BYTES: u64 = 4 << 20;

/// After the number of a run.
const SUFFIX: &str = ".json.zst";

/// The folder.
#[derive(Debug, Clone)]
pub struct Folder(PathBuf);

impl Folder {
    /// Of a state directory.
    #[must_use]
    pub fn of(state_dir: &Path) -> Self {
        Self(state_dir.join("share").join("history"))
    }

    /// Of this path.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Adds an entry, and forgets the oldest of what is too much. A reader sees all of it or nothing.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn put(&self, entry: &Entry) -> io::Result<()> {
        std::fs::create_dir_all(&self.0)?;
        let mut file = tempfile::NamedTempFile::new_in(&self.0)?;
        file.write_all(&pack(entry)?)?;
        file.persist(self.file(entry.run)).map_err(|error| error.error)?;
        let mut bytes = 0;
        for (newer, run) in self.runs().into_iter().enumerate() {
            bytes += std::fs::metadata(self.file(run)).map_or(0, |file| file.len());
            // The entry of this run stays, however large it is.
            if newer >= KEPT || (bytes > KEPT_BYTES && run != entry.run) {
                // Another process may have done it.
                let _ = std::fs::remove_file(self.file(run));
            }
        }
        Ok(())
    }

    /// The runs whose entries are there, newest first. That there is no folder is no runs.
    #[must_use]
    pub fn runs(&self) -> Vec<RunId> {
        let files = std::fs::read_dir(&self.0).into_iter().flatten().filter_map(Result::ok);
        let mut runs: Vec<RunId> = files.filter_map(|file| Self::run_of(Path::new(&file.file_name()))).collect();
        runs.sort_unstable_by(|a, b| b.cmp(a));
        runs
    }

    /// The run whose entry is in a file of this name.
    #[must_use]
    pub fn run_of(file: &Path) -> Option<RunId> {
        file.file_name()?.to_str()?.strip_suffix(SUFFIX)?.parse().ok()
    }

    /// A packed entry as it is; `None` if it is not there.
    #[must_use]
    pub fn packed(&self, run: RunId) -> Option<Vec<u8>> {
        let path = self.file(run);
        let size = std::fs::metadata(&path).ok()?.len();
        (size <= MAX_PACKED as u64).then(|| std::fs::read(&path).ok()).flatten()
    }

    /// An entry; `None` if it is not there, or is not what its name says.
    #[must_use]
    pub fn get(&self, run: RunId) -> Option<Entry> {
        unpack(&self.packed(run)?, run)
    }

    fn file(&self, run: RunId) -> PathBuf {
        self.0.join(format!("{run}{SUFFIX}"))
    }
}

/// An entry as JSON that is compressed with zstd.
///
/// # Errors
/// If it holds a number that JSON has no word for.
pub fn pack(entry: &Entry) -> io::Result<Vec<u8>> {
    zstd::encode_all(serde_json::to_vec(entry)?.as_slice(), 3)
}

/// The entry of a run, which may come from anywhere; `None` if it is none, or that of another run.
#[must_use]
pub fn unpack(packed: &[u8], run: RunId) -> Option<Entry> {
    let mut json = Vec::new();
    zstd::Decoder::new(packed).ok()?.take(MAX_PLAIN).read_to_end(&mut json).ok()?;
    let entry: Entry = serde_json::from_slice(&json).ok()?;
    (entry.run == run).then_some(entry)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{build, entry, run};
    use super::*;

    #[test]
    fn the_newest_entries_stay() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::of(dir.path());
        assert_eq!(folder.runs(), []);
        for hour in 0..KEPT as u64 + 2 {
            folder.put(&Entry { builds: vec![build("a-1", 1.0)], ..entry(hour) }).unwrap();
        }
        assert_eq!(folder.runs().len(), KEPT);
        assert_eq!((folder.get(run(1)), folder.get(run(2)).unwrap().builds.len()), (None, 1));
    }

    #[test]
    fn large_entries_stay_only_as_far_as_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::of(dir.path());
        // What does not shrink: each digit stands for itself.
        let noise = |seed: u64| -> String {
            let mut state = seed | 1;
            let mut digit = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                char::from(33 + (state >> 58) as u8)
            };
            (0..2_000_000).map(|_| digit()).collect()
        };
        for hour in 0..4 {
            folder.put(&Entry { verdict: noise(hour), ..entry(hour) }).unwrap();
        }
        assert_eq!(folder.runs(), [run(3), run(2)]);
    }

    #[test]
    fn what_is_not_what_its_name_says_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::at(dir.path());
        let other = pack(&entry(2)).unwrap();
        for bytes in [&b"no zstd"[..], &other, &other[..other.len() - 3], b""] {
            std::fs::write(folder.file(run(1)), bytes).unwrap();
            assert_eq!(folder.get(run(1)), None);
        }
        let bomb = zstd::encode_all(io::repeat(b' ').take(MAX_PLAIN + 10), 1).unwrap();
        assert!(bomb.len() < MAX_PACKED);
        assert_eq!(unpack(&bomb, run(1)), None);
    }
}
