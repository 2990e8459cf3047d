//! One log file a drv, as bytes: `logs/HASH-NAME.log`. Owns how much of a log is kept and what its last lines are.
//! The log is that of the last attempt of its drv: those of the attempts before, the first of which is 1, are
//! `HASH-NAME.log.1` and so on. An attempt on which nothing ever ran has none.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::{RecordError, RunDir, clean};

/// How many last lines of a log a failure shows.
pub const TAIL_LINES: usize = 25;

/// The part of a log at its end that is kept in memory once the file is full.
const TAIL_BYTES: usize = 256 << 10;

/// Of one line at most this much is looked at for the last lines.
const TAIL_LINE_BYTES: usize = 16 << 10;

/// Writes the log of one attempt. The file appears when the builder begins, or with the first line: an empty file is
/// that of a builder that printed nothing.
///
/// Of a log larger than the limit the beginning and the last 256 KiB stay (less, if the limit is smaller), with a
/// line between them that says how much is missing.
#[derive(Debug)]
pub struct LogWriter {
    path: PathBuf,
    file: Option<BufWriter<File>>,
    head_left: u64,
    tail_limit: usize,
    tail: VecDeque<u8>,
    dropped: u64,
    lines: u64,
    last: VecDeque<Vec<u8>>,
}

/// What a finished log holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Kept {
    /// Lines written, kept or not.
    pub lines: u64,
    /// The last [`TAIL_LINES`] lines, cleaned; empty lines at the end are left out.
    pub tail: Vec<String>,
}

impl LogWriter {
    /// For the log of a drv (its path, or `HASH-NAME.drv`), of which at most about `max` bytes are kept. Touches
    /// nothing yet.
    #[must_use]
    pub fn new(dir: &RunDir, drv: &str, max: u64) -> Self {
        let tail_limit = TAIL_BYTES.min(usize::try_from(max / 2).unwrap_or(TAIL_BYTES));
        Self {
            path: dir.logs().join(file_name(drv)),
            file: None,
            head_left: max - tail_limit as u64,
            tail_limit,
            tail: VecDeque::new(),
            dropped: 0,
            lines: 0,
            last: VecDeque::with_capacity(TAIL_LINES),
        }
    }

    /// Where the log is, once it has a line.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lines so far.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// The builder runs.
    ///
    /// # Errors
    /// If the file cannot be made.
    pub fn begin(&mut self) -> Result<(), RecordError> {
        if self.file.is_none() {
            self.file = Some(create(&self.path)?);
        }
        Ok(())
    }

    /// Adds one line, without its newline.
    ///
    /// # Errors
    /// If the file cannot be made or written; the last lines and the count are right all the same.
    pub fn line(&mut self, line: &[u8]) -> Result<(), RecordError> {
        self.lines += 1;
        if self.last.len() == TAIL_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line[line.len().saturating_sub(TAIL_LINE_BYTES)..].to_vec());
        self.begin()?;
        let needed = line.len() as u64 + 1;
        if self.tail.is_empty() && self.dropped == 0 && needed <= self.head_left {
            self.head_left -= needed;
            return self.put(|file| {
                file.write_all(line)?;
                file.write_all(b"\n")
            });
        }
        self.tail.extend(line.iter().copied().chain([b'\n']));
        let excess = self.tail.len().saturating_sub(self.tail_limit);
        self.tail.drain(..excess);
        self.dropped += excess as u64;
        Ok(())
    }

    /// The last lines so far, cleaned.
    #[must_use]
    pub fn tail(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.last.iter().map(|line| clean(line)).collect();
        while lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
        lines
    }

    /// Writes what is left and says what the log holds.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn finish(mut self) -> Result<Kept, RecordError> {
        let tail = std::mem::take(&mut self.tail);
        let dropped = self.dropped;
        if self.file.is_some() {
            self.put(|file| {
                if dropped > 0 {
                    writeln!(file, "\n[drover: {dropped} bytes left out here]")?;
                }
                let (front, back) = tail.as_slices();
                file.write_all(front)?;
                file.write_all(back)?;
                file.flush()
            })?;
        }
        Ok(Kept { lines: self.lines, tail: self.tail() })
    }

    fn put(&mut self, act: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>) -> Result<(), RecordError> {
        match &mut self.file {
            Some(file) => act(file).map_err(RecordError::io("write", &self.path)),
            None => Ok(()),
        }
    }
}

fn create(path: &Path) -> Result<BufWriter<File>, RecordError> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(RecordError::io("create", folder))?;
    }
    if path.exists() {
        let earlier = earlier(path, earlier_logs(path).len() + 1);
        std::fs::rename(path, &earlier).map_err(RecordError::io("create", &earlier))?;
    }
    File::create(path).map(BufWriter::new).map_err(RecordError::io("create", path))
}

/// Where the log of an attempt is that was not the last, from 1.
fn earlier(path: &Path, number: usize) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// The logs of the attempts before the last, in order.
pub(super) fn earlier_logs(path: &Path) -> Vec<PathBuf> {
    (1..).map(|number| earlier(path, number)).take_while(|log| log.exists()).collect()
}

/// `HASH-NAME.log` for `…/HASH-NAME.drv`. Names of store paths hold no `/`; others lose what is before it.
pub(super) fn file_name(drv: &str) -> String {
    let base = drv.rsplit('/').next().unwrap_or(drv);
    format!("{}.log", base.strip_suffix(".drv").unwrap_or(base))
}

/// The last `count` lines of a log file, cleaned, read from its end.
///
/// # Errors
/// If the file cannot be read.
pub fn last_lines(path: &Path, count: usize) -> Result<Vec<String>, RecordError> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES as u64)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(RecordError::io("read", path))?;
    let mut lines: Vec<String> = bytes.split(|byte| *byte == b'\n').map(clean).collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    Ok(lines.split_off(lines.len().saturating_sub(count)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_dir(state: &Path) -> RunDir {
        RunDir::new(state, "01KAJX3M000000000000000000".parse().unwrap())
    }

    const DRV: &str = "/nix/store/7d4kq0fz1v3c8b2n5m6l9x0y1w2r3s4d-nginx-1.29.4.drv";

    #[test]
    fn a_log_is_kept_as_bytes_and_its_end_is_cleaned() {
        let state = tempfile::tempdir().unwrap();
        let mut log = LogWriter::new(&run_dir(state.path()), DRV, 1 << 20);
        assert!(!log.path().exists());
        for line in [&b"\x1b[1mbuilding\x1b[0m"[..], b"caf\xe9", b"1%\r2%\r100%", b""] {
            log.line(line).unwrap();
        }
        let path = log.path().to_owned();
        assert_eq!(path.file_name().unwrap(), "7d4kq0fz1v3c8b2n5m6l9x0y1w2r3s4d-nginx-1.29.4.log");
        let kept = log.finish().unwrap();
        assert_eq!(kept, Kept { lines: 4, tail: vec!["building".into(), "caf\u{fffd}".into(), "100%".into()] });
        assert_eq!(std::fs::read(&path).unwrap(), b"\x1b[1mbuilding\x1b[0m\ncaf\xe9\n1%\r2%\r100%\n\n");
        assert_eq!(last_lines(&path, 2).unwrap(), ["caf\u{fffd}", "100%"]);
    }

    #[test]
    fn of_a_large_log_beginning_and_end_stay() {
        let state = tempfile::tempdir().unwrap();
        let mut log = LogWriter::new(&run_dir(state.path()), DRV, 1000);
        for n in 0..1000 {
            log.line(format!("line {n:04}").as_bytes()).unwrap();
        }
        let path = log.path().to_owned();
        let kept = log.finish().unwrap();
        assert_eq!((kept.lines, kept.tail.len()), (1000, TAIL_LINES));
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("line 0000\nline 0001\n"), "{text}");
        assert!(text.ends_with("line 0998\nline 0999\n"), "{text}");
        assert!(text.contains("[drover: 9000 bytes left out here]"), "{text}");
        assert!(text.len() < 1100);
    }

    #[test]
    fn each_attempt_has_its_log_and_a_silent_one_leaves_nothing() {
        let state = tempfile::tempdir().unwrap();
        let dir = run_dir(state.path());
        for text in ["first", "second", "third"] {
            let mut log = LogWriter::new(&dir, DRV, 1000);
            log.line(text.as_bytes()).unwrap();
            log.finish().unwrap();
        }
        let silent = LogWriter::new(&dir, "/nix/store/x-silent.drv", 1000);
        assert_eq!(silent.finish().unwrap(), Kept::default());
        let last = dir.logs().join(file_name(DRV));
        assert_eq!(last_lines(&last, 9).unwrap(), ["third"]);
        let earlier: Vec<Vec<String>> = earlier_logs(&last).iter().map(|log| last_lines(log, 9).unwrap()).collect();
        assert_eq!(earlier, [["first"], ["second"]]);
        assert_eq!(std::fs::read_dir(dir.logs()).unwrap().count(), 3);
    }
}
