//! Reading a record back. Owns which lines are accepted: a line cut off at the end (a killed run) and events of a
//! newer drover are left out and counted, a newer format and a damaged line are errors.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::RecordError;
use crate::event::{Event, FORMAT};

/// The longest line that is read; a list of a hundred thousand store paths fits.
const MAX_LINE: usize = 16 << 20;

/// A whole record.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Record {
    /// What happened, in order.
    pub events: Vec<Event>,
    /// Events that this drover does not know; a newer one wrote them.
    pub unknown: u64,
    /// The last line was cut off.
    pub cut: bool,
}

/// Reads the events of one file, one after the other.
#[derive(Debug)]
pub struct Reader<R = BufReader<File>> {
    path: PathBuf,
    input: R,
    line: Vec<u8>,
    number: u64,
    unknown: u64,
    cut: bool,
}

/// What every event has, known or not.
#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "seq")]
    _seq: u64,
    #[serde(rename = "at")]
    _at: u64,
    event: String,
    format: Option<u32>,
}

enum Line {
    Known(Box<Event>),
    Unknown,
    Bad(String),
}

/// Reads a whole record.
///
/// # Errors
/// If the file cannot be read, is no record, is of a newer format, or is damaged before its last line.
pub fn read(path: &Path) -> Result<Record, RecordError> {
    let mut reader = Reader::open(path)?;
    let mut events = Vec::new();
    while let Some(event) = reader.next_event()? {
        events.push(event);
    }
    Ok(Record { events, unknown: reader.unknown, cut: reader.cut })
}

impl Reader {
    /// Opens a record.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(path: &Path) -> Result<Self, RecordError> {
        let file = File::open(path).map_err(RecordError::io("open", path))?;
        Ok(Self::new(path, BufReader::with_capacity(256 << 10, file)))
    }
}

impl<R: BufRead> Reader<R> {
    /// Reads from any stream; `path` is what errors call it.
    pub fn new(path: &Path, input: R) -> Self {
        Self { path: path.to_owned(), input, line: Vec::new(), number: 0, unknown: 0, cut: false }
    }

    /// Events left out so far because this drover does not know them.
    #[must_use]
    pub fn unknown(&self) -> u64 {
        self.unknown
    }

    /// Whether the last line was cut off; known at the end.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// The next known event; `None` at the end.
    ///
    /// # Errors
    /// As [`read`].
    pub fn next_event(&mut self) -> Result<Option<Event>, RecordError> {
        loop {
            let Some(whole) = self.next_line()? else { return Ok(None) };
            let parsed = parse(&self.line);
            if self.number == 1 {
                self.check_first(&parsed)?;
            }
            match parsed {
                Line::Known(event) => return Ok(Some(*event)),
                Line::Unknown => self.unknown += 1,
                Line::Bad(_) if !whole => {
                    self.cut = true;
                    return Ok(None);
                }
                Line::Bad(why) => {
                    return Err(RecordError::Damaged { path: self.path.clone(), line: self.number, why });
                }
            }
        }
    }

    /// Reads a line into `self.line`: `Some(true)` if it ends in a newline, `None` at the end of the file.
    fn next_line(&mut self) -> Result<Option<bool>, RecordError> {
        self.line.clear();
        self.number += 1;
        let mut limited = std::io::Read::take(&mut self.input, MAX_LINE as u64 + 1);
        limited.read_until(b'\n', &mut self.line).map_err(RecordError::io("read", &self.path))?;
        if self.line.len() > MAX_LINE {
            let why = format!("the line is longer than {} MiB", MAX_LINE >> 20);
            return Err(RecordError::Damaged { path: self.path.clone(), line: self.number, why });
        }
        let whole = self.line.ends_with(b"\n");
        Ok((!self.line.is_empty()).then_some(whole))
    }

    /// The first line says what this is, also to a drover that does not know the rest of it.
    fn check_first(&self, parsed: &Line) -> Result<(), RecordError> {
        let envelope: Option<Envelope> = serde_json::from_slice(&self.line).ok();
        match envelope {
            Some(Envelope { event, format: Some(found), .. }) if event == "run_started" => {
                if found > FORMAT {
                    return Err(RecordError::Newer { path: self.path.clone(), found, known: FORMAT });
                }
                match parsed {
                    Line::Known(_) => Ok(()),
                    Line::Unknown | Line::Bad(_) => Err(RecordError::NoRecord { path: self.path.clone() }),
                }
            }
            _ => Err(RecordError::NoRecord { path: self.path.clone() }),
        }
    }
}

/// A line that is a sound event but not one of ours (a new fact, or a known one that says something new) is unknown;
/// anything else that does not parse is bad.
fn parse(line: &[u8]) -> Line {
    let why = match serde_json::from_slice::<Event>(line) {
        Ok(event) => return Line::Known(Box::new(event)),
        Err(error) => error.to_string(),
    };
    match serde_json::from_slice::<Envelope>(line) {
        Ok(_) => Line::Unknown,
        Err(_) => Line::Bad(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = r#"{"seq":0,"at":0,"event":"run_started","format":1,"run":"01KAJX3M000000000000000000","drover":"0.1.0","command":"run","what":[],"started":"2026-11-21T08:14:00Z","nix":"2.34.8"}"#;

    fn all(text: &str) -> Result<Record, RecordError> {
        let mut reader = Reader::new(Path::new("test"), text.as_bytes());
        let mut events = Vec::new();
        while let Some(event) = reader.next_event()? {
            events.push(event);
        }
        Ok(Record { events, unknown: reader.unknown(), cut: reader.is_cut() })
    }

    #[test]
    fn a_cut_last_line_is_left_out() {
        let text =
            format!("{FIRST}\n{{\"seq\":1,\"at\":5,\"event\":\"run_ended\",\"exit\":0}}\n{{\"seq\":2,\"at\":9,\"ev");
        let record = all(&text).unwrap();
        assert_eq!((record.events.len(), record.cut), (2, true));
    }

    #[test]
    fn events_of_a_newer_drover_are_counted_and_left_out() {
        let text = format!(
            "{FIRST}\n{}\n{}\n{}\n",
            r#"{"seq":1,"at":5,"event":"tea_made","sugar":2}"#,
            r#"{"seq":2,"at":5,"event":"drv_ended","drv":1,"outcome":"teleported"}"#,
            r#"{"seq":3,"at":6,"event":"run_ended","exit":0,"mood":"good"}"#
        );
        let record = all(&text).unwrap();
        assert_eq!((record.events.len(), record.unknown, record.cut), (2, 2, false));
    }

    #[test]
    fn a_newer_format_is_refused_by_name() {
        let text = r#"{"seq":0,"at":0,"event":"run_started","format":7,"all":"else is different"}"#;
        let error = all(&format!("{text}\n")).unwrap_err();
        assert_eq!(error.to_string(), "test is written in format 7, this drover reads up to 1");
    }

    #[test]
    fn a_damaged_line_in_the_middle_says_where() {
        let text = format!("{FIRST}\n\0\0garbage\n{{\"seq\":2,\"at\":9,\"event\":\"run_ended\",\"exit\":0}}\n");
        assert!(matches!(all(&text), Err(RecordError::Damaged { line: 2, .. })));
    }

    #[test]
    fn other_files_are_no_records() {
        for text in ["hello\n", "{}\n", "{\"seq\":0,\"at\":0,\"event\":\"run_ended\",\"exit\":0}\n", "[1,2]"] {
            assert!(matches!(all(text), Err(RecordError::NoRecord { .. })), "{text}");
        }
        assert_eq!(all("").unwrap(), Record::default());
    }
}
