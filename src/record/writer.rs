//! Writing a record while the run happens. Owns the two files that events go to and when they are flushed; does not
//! own the logs of builds (`logs`).

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::{RecordError, RunDir};
use crate::event::{Event, Fact};

/// How much is buffered between two flushes.
const BUFFER: usize = 64 << 10;

/// Writes the events of one run to its folder, and to a second file where `--events` asks for one.
///
/// Each event that ends something is with the system before [`Writer::write`] returns, so the record of a killed run
/// says all that was finished. The others wait for the next such event or [`Writer::flush`]: call it once a turn.
/// A file that fails is closed and its error returned once; the run and the other file go on.
#[derive(Debug)]
pub struct Writer {
    sinks: Vec<Sink>,
    line: Vec<u8>,
}

#[derive(Debug)]
struct Sink {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Writer {
    /// Makes the folder of the run and opens its `events.jsonl`, locked as long as the writer lives so that others
    /// see that this run is going on. `also` is a second file that gets the same lines.
    ///
    /// # Errors
    /// If a folder or a file cannot be made.
    pub fn create(dir: &RunDir, also: Option<&Path>) -> Result<Self, RecordError> {
        // The one that somebody named comes first: a wrong name leaves no empty record behind.
        let also = also.map(|path| Sink::create(path.to_owned())).transpose()?;
        fs::create_dir_all(dir.path()).map_err(RecordError::io("create", dir.path()))?;
        let own = Sink::create(dir.events())?;
        // Some network file systems have no locks. Then a live run looks like a killed one, which `prune` alone minds.
        let _ = own.file.get_ref().try_lock();
        Ok(Self { sinks: std::iter::once(own).chain(also).collect(), line: Vec::new() })
    }

    /// Writes one event.
    ///
    /// # Errors
    /// The first failure of a file, once; nothing more is written to that file.
    pub fn write(&mut self, event: &Event) -> Result<(), RecordError> {
        self.line.clear();
        // Writing to memory does not fail, and an event has no maps with keys that JSON cannot express.
        if serde_json::to_writer(&mut self.line, event).is_err() {
            return Ok(());
        }
        self.line.push(b'\n');
        let flush = ends_something(&event.fact);
        let line = std::mem::take(&mut self.line);
        let result = self.each(|file| {
            file.write_all(&line)?;
            if flush { file.flush() } else { Ok(()) }
        });
        self.line = line;
        result
    }

    /// Hands over what is still buffered.
    ///
    /// # Errors
    /// As [`Writer::write`].
    pub fn flush(&mut self) -> Result<(), RecordError> {
        self.each(Write::flush)
    }

    /// Does something to every file, drops those that fail and gives the first error.
    fn each(&mut self, mut act: impl FnMut(&mut BufWriter<File>) -> io::Result<()>) -> Result<(), RecordError> {
        let mut first = Ok(());
        self.sinks.retain_mut(|sink| match act(&mut sink.file) {
            Ok(()) => true,
            Err(source) => {
                if first.is_ok() {
                    first = Err(RecordError::Io { act: "write", path: sink.path.clone(), source });
                }
                false
            }
        });
        first
    }
}

impl Sink {
    fn create(path: PathBuf) -> Result<Self, RecordError> {
        // One that came with somebody's branch may lead to any file; what leads to a pipe is meant.
        if path.is_symlink() && (path.is_file() || !path.exists()) {
            std::fs::remove_file(&path).map_err(RecordError::io("replace", &path))?;
        }
        let file = File::create(&path).map_err(RecordError::io("create", &path))?;
        Ok(Self { path, file: BufWriter::with_capacity(BUFFER, file) })
    }
}

/// Whether a record that is cut after this event should hold it.
fn ends_something(fact: &Fact) -> bool {
    matches!(
        fact,
        Fact::RunStarted { .. }
            | Fact::FlakeLocked { .. }
            | Fact::StageEnded { .. }
            | Fact::AttemptStarted { .. }
            | Fact::AttemptEnded { .. }
            | Fact::DrvEnded { .. }
            | Fact::AttrEnded { .. }
            | Fact::FetchEnded { .. }
            | Fact::PushEnded { .. }
            | Fact::PushVerified { .. }
            | Fact::PushLeftOut { .. }
            | Fact::Warning { .. }
            | Fact::Cancelled { .. }
            | Fact::RunFailed { .. }
            | Fact::RunEnded { .. }
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Moment;
    use crate::id::{AttrId, DrvId, RunId};
    use crate::record::read;

    fn events() -> Vec<Event> {
        let facts = vec![
            Fact::RunStarted {
                format: crate::event::FORMAT,
                run: "01KAJX3M000000000000000000".parse().unwrap(),
                drover: "0.1.0".into(),
                command: "run".into(),
                what: vec![],
                started: jiff::Timestamp::UNIX_EPOCH,
                nix: "2.34.8".into(),
            },
            Fact::EvalStarted { attr: AttrId(0), worker: 0 },
            Fact::DrvEnded { drv: DrvId(0), outcome: crate::event::DrvOutcome::Built },
            Fact::EvalStarted { attr: AttrId(1), worker: 0 },
        ];
        facts.into_iter().enumerate().map(|(i, fact)| Event { seq: i as u64, at: Moment(i as u64), fact }).collect()
    }

    #[test]
    fn what_ended_is_on_disk_at_once_and_the_rest_after_a_flush() {
        let state = tempfile::tempdir().unwrap();
        let dir = RunDir::new(state.path(), RunId("01KAJX3M000000000000000000".parse().unwrap()));
        let also = state.path().join("events-too");
        let mut writer = Writer::create(&dir, Some(&also)).unwrap();
        let events = events();
        for event in &events {
            writer.write(event).unwrap();
        }
        assert_eq!(read(&dir.events()).unwrap().events, events[..3]);
        assert!(dir.is_live());
        writer.flush().unwrap();
        assert_eq!(read(&dir.events()).unwrap().events, events);
        assert_eq!(read(&also).unwrap().events, events);
        drop(writer);
        assert!(!dir.is_live());
    }

    #[test]
    fn a_full_second_file_is_said_once_and_stops_nothing() {
        let full = Path::new("/dev/full");
        if !full.exists() {
            eprintln!("skipped: this system has no /dev/full");
            return;
        }
        let state = tempfile::tempdir().unwrap();
        let dir = RunDir::new(state.path(), RunId("01KAJX3M000000000000000000".parse().unwrap()));
        let mut writer = Writer::create(&dir, Some(full)).unwrap();
        let results: Vec<bool> = events().iter().map(|event| writer.write(event).is_err()).collect();
        assert_eq!(results.iter().filter(|failed| **failed).count(), 1);
        writer.flush().unwrap();
        assert_eq!(read(&dir.events()).unwrap().events.len(), 4);
    }
}
