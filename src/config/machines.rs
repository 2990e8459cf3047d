//! Nix's syntax for builders: what `--builders`, the `builders` of nix.conf and /etc/nix/machines are written in. Pure:
//! files that it names are read by a function of the caller.
//!
//! An entry ends with a line or `;`; `#` begins a comment; `@FILE` stands for what is in that file. Its columns are
//! parted by blanks, and `-` says nothing:
//! URL, systems, ssh key, jobs, speed, features, mandatory features, base64 of the host's public key.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::address::{Address, host_key};
use crate::error::Error;
use crate::id::System;

/// How deep files may name files.
const MAX_DEPTH: usize = 8;

/// The most that is taken of a file.
pub(super) const MAX_BYTES: u64 = 1 << 20;

/// The most entries, with all that files name.
const MAX_ENTRIES: usize = 10_000;

/// The most files that are read.
const MAX_FILES: usize = 100;

/// How an entry is written.
const EXAMPLE: &str = "ssh-ng://ci@big1.acme.net x86_64-linux - 16 1 kvm,big-parallel - -";

/// One entry. What a column does not say is `None` or empty.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    /// Where it is.
    pub address: Address,
    /// What it builds.
    pub systems: Option<Vec<System>>,
    /// File with a private key.
    pub ssh_key: Option<PathBuf>,
    /// Builds at once.
    pub max_jobs: Option<u32>,
    /// How fast it is, beside others; above 0.
    pub speed: Option<f64>,
    /// Features that drvs may require.
    pub features: Option<Vec<String>>,
    /// Features that every drv must require.
    pub mandatory: Vec<String>,
    /// `ssh-ed25519 AAAA…`.
    pub host_key: Option<String>,
}

/// Where something was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// A file, or what else has this syntax: `--builders`.
    pub name: Arc<str>,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.name, self.line, self.column)
    }
}

/// Why an entry cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}")]
pub struct MachineError {
    /// Where.
    pub place: Place,
    /// What is wrong there.
    pub message: String,
    /// What is expected.
    pub hint: String,
    /// It is a file, which cannot be read.
    pub unreadable: bool,
}

impl From<MachineError> for Error {
    fn from(error: MachineError) -> Self {
        Self::usage(error.to_string()).hint(error.hint)
    }
}

/// An entry and where it begins.
pub type Entry = (Place, Machine);

impl fmt::Display for Machine {
    /// As an entry with all columns.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_dash = |text: Option<String>| text.filter(|text| !text.is_empty()).unwrap_or_else(|| "-".to_owned());
        let systems = self.systems.as_ref().map(|list| list.iter().map(|s| s.0.as_str()).collect::<Vec<_>>().join(","));
        let key = self.ssh_key.as_ref().map(|path| path.display().to_string());
        write!(f, "{} {} {} ", self.address.url, or_dash(systems), or_dash(key))?;
        let (jobs, speed) = (self.max_jobs.map(|n| n.to_string()), self.speed.map(|n| n.to_string()));
        let features = self.features.as_ref().map(|list| list.join(","));
        write!(f, "{} {} {} ", or_dash(jobs), or_dash(speed), or_dash(features))?;
        let host_key = self.host_key.as_ref().map(|key| STANDARD.encode(key));
        write!(f, "{} {}", or_dash(Some(self.mandatory.join(","))), or_dash(host_key))
    }
}

impl Machine {
    /// Whether this is all that was said: a word, which may name something else than a host.
    #[must_use]
    pub fn is_word(&self, word: &str) -> bool {
        self.to_string() == format!("ssh://{word} - - - - - - -")
    }
}

/// All entries of a text, those that cannot be used as errors. `name` is what the text is called in errors. A file that
/// is not there is no error, as in Nix.
pub fn entries(name: &str, text: &str, read: &dyn Fn(&Path) -> io::Result<String>) -> Vec<Result<Entry, MachineError>> {
    let mut reading = Reading { read, found: Vec::new(), files: 0 };
    reading.text(&Arc::from(name), text, 0);
    reading.found
}

/// A word and where it is.
struct Word<'a> {
    column: usize,
    text: &'a str,
}

struct Reading<'a> {
    read: &'a dyn Fn(&Path) -> io::Result<String>,
    found: Vec<Result<Entry, MachineError>>,
    files: usize,
}

impl Reading<'_> {
    fn text(&mut self, name: &Arc<str>, text: &str, depth: usize) {
        for (line, text) in text.lines().enumerate() {
            let said = text.split('#').next().unwrap_or_default();
            let mut column = 1;
            for part in said.split(';') {
                let place = |column| Place { name: name.clone(), line: line + 1, column };
                let words = words(part, column);
                column += part.chars().count() + 1;
                let Some(first) = words.first() else { continue };
                if self.found.len() >= MAX_ENTRIES {
                    return;
                }
                match first.text.strip_prefix('@') {
                    Some(_) => self.file(place(first.column), part.trim().trim_start_matches('@').trim(), depth),
                    None => {
                        let entry = machine(&words);
                        self.found.push(match entry {
                            Ok(machine) => Ok((place(first.column), machine)),
                            Err((column, message, hint)) => {
                                let place = place(column);
                                Err(MachineError { place, message, hint, unreadable: false })
                            }
                        });
                    }
                }
            }
        }
    }

    fn file(&mut self, place: Place, path: &str, depth: usize) {
        let unreadable =
            |message: String, hint: String| MachineError { place: place.clone(), message, hint, unreadable: true };
        self.files += 1;
        if path.is_empty() || depth >= MAX_DEPTH || self.files > MAX_FILES {
            let message = if path.is_empty() { "no file follows the @" } else { "files name too many files" };
            let error = unreadable(message.to_owned(), "@/etc/nix/machines".to_owned());
            return self.found.push(Err(MachineError { unreadable: false, ..error }));
        }
        let looked = crate::process::quote(path);
        match (self.read)(Path::new(path)) {
            Ok(text) if text.len() as u64 <= MAX_BYTES => self.text(&Arc::from(path), &text, depth + 1),
            Ok(_) => {
                let message = format!("{path} is too long: a list of builders has at most {MAX_BYTES} bytes");
                self.found.push(Err(unreadable(message, format!("ls -l {looked}"))));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                let message = format!("cannot read {path}: {error}");
                self.found.push(Err(unreadable(message, format!("ls -l {looked}"))));
            }
        }
    }
}

/// The words of an entry, of which the first character is in this column.
fn words(part: &str, first: usize) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let mut start = None;
    for (count, (at, c)) in part.char_indices().chain([(part.len(), ' ')]).enumerate() {
        match (c.is_ascii_whitespace(), start) {
            (false, None) => start = Some((at, first + count)),
            (true, Some((from, column))) => {
                words.push(Word { column, text: &part[from..at] });
                start = None;
            }
            _ => {}
        }
    }
    words
}

/// What is wrong, and in which column of the line.
type Wrong = (usize, String, String);

fn machine(words: &[Word<'_>]) -> Result<Machine, Wrong> {
    if let Some(extra) = words.get(8) {
        let message = format!("'{}' is column 9; an entry has at most 8", extra.text);
        return Err((extra.column, message, format!("no blanks after commas: {EXAMPLE}")));
    }
    let column = |n: usize| words.get(n - 1).filter(|word| word.text != "-");
    let wrong = |word: &Word<'_>, message: String, hint: &str| (word.column, message, hint.to_owned());
    let Some(url) = column(1) else {
        return Err((words.first().map_or(1, |word| word.column), "column 1 is a URL".to_owned(), EXAMPLE.to_owned()));
    };
    let address = Address::parse(url.text).map_err(|what| wrong(url, what, EXAMPLE))?;
    let list = |word: &Word<'_>| -> Vec<String> {
        word.text.split(',').filter(|item| !item.is_empty()).map(str::to_owned).collect()
    };
    // What follows would be taken as the next column.
    if let Some(word) = [2, 6, 7].into_iter().filter_map(column).find(|word| word.text.ends_with(',')) {
        return Err(wrong(word, format!("'{}' ends with a comma", word.text), "no blanks after commas: a,b"));
    }
    let systems = column(2).map(|word| (word, list(word))).filter(|(_, list)| !list.is_empty());
    if let Some((word, bad)) =
        systems.as_ref().and_then(|(word, list)| Some((word, list.iter().find(|s| !is_system(s))?)))
    {
        let message = format!("'{bad}' is no system; column 2 is what it builds");
        return Err(wrong(word, message, "x86_64-linux,aarch64-linux    or - to ask the builder"));
    }
    let max_jobs = column(4).map(|word| {
        let hint = "16    or - for the max-jobs of the builder itself";
        word.text.parse().map_err(|_| {
            wrong(word, format!("'{}' is no whole number; column 4 is how many it builds at once", word.text), hint)
        })
    });
    let speed = column(5).map(|word| {
        let number = word.text.parse().ok().and_then(speed);
        let message = || format!("'{}' is no number from 0 up; column 5 is how fast it is beside others", word.text);
        number.ok_or_else(|| wrong(word, message(), "2    twice as fast as one with 1"))
    });
    let host_key = column(8).map(|word| {
        let text = STANDARD.decode(word.text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        text.as_deref().and_then(host_key).ok_or_else(|| {
            let message = "column 8 is the base64 of the host's public key, the line 'ssh-ed25519 AAAA…'".to_owned();
            wrong(word, message, "base64 -w0 /etc/ssh/ssh_host_ed25519_key.pub    on the builder")
        })
    });
    let features = column(6).map(list).filter(|list| !list.is_empty());
    Ok(Machine {
        address,
        systems: systems.map(|(_, list)| list.into_iter().map(System).collect()),
        ssh_key: column(3).map(|word| PathBuf::from(word.text)),
        max_jobs: max_jobs.transpose()?,
        speed: speed.transpose()?,
        features,
        mandatory: column(7).map(list).unwrap_or_default(),
        host_key: host_key.transpose()?,
    })
}

/// A speed that can be counted with; 0 is 1, as in Nix.
pub(super) fn speed(number: f64) -> Option<f64> {
    (number.is_finite() && number >= 0.0).then_some(if number == 0.0 { 1.0 } else { number })
}

/// Whether this is a system as Nix writes it: `x86_64-linux`.
pub(super) fn is_system(name: &str) -> bool {
    name.split_once('-').is_some_and(|(cpu, os)| {
        let word = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
        word(cpu) && word(os)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBNmnKb5jRrWyI4j0PWZlPTPHoqs0cM2LT1r9Hh4Ydlv";

    fn nothing(_: &Path) -> io::Result<String> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn of(text: &str) -> Vec<Machine> {
        entries("m", text, &nothing).into_iter().map(|entry| entry.unwrap().1).collect()
    }

    fn error(text: &str) -> MachineError {
        entries("m", text, &nothing).into_iter().find_map(Result::err).unwrap()
    }

    #[test]
    fn all_columns() {
        let text =
            format!("ssh-ng://ci@big1 x86_64-linux,i686-linux /k 16 2.5 kvm,big-parallel gpu {}", STANDARD.encode(KEY));
        let machine = &of(&text)[0];
        assert_eq!(machine.systems, Some(vec![System::from("x86_64-linux"), System::from("i686-linux")]));
        assert_eq!((machine.max_jobs, machine.speed), (Some(16), Some(2.5)));
        assert_eq!(machine.ssh_key.as_deref(), Some(Path::new("/k")));
        assert_eq!(machine.features.as_deref(), Some(&["kvm".to_owned(), "big-parallel".to_owned()][..]));
        assert_eq!((machine.mandatory.as_slice(), machine.host_key.as_deref()), (&["gpu".to_owned()][..], Some(KEY)));
        assert_eq!(machine.to_string(), text);
    }

    #[test]
    fn what_is_not_said_is_none() {
        for text in ["big1", "big1 -", "big1\t- - - - - - -\r", "  big1 - - -  # the big one", ";; big1 ;"] {
            let machines = of(text);
            assert_eq!((machines.len(), machines[0].to_string().as_str()), (1, "ssh://big1 - - - - - - -"), "{text}");
        }
        assert_eq!(of("big1 - - - 0")[0].speed, Some(1.0));
        assert!(of("\n # nobody ; big1\n").is_empty());
    }

    #[test]
    fn entries_are_parted_by_lines_and_semicolons() {
        let hosts = |text: &str| of(text).into_iter().map(|m| m.address.host).collect::<Vec<_>>();
        assert_eq!(hosts("a; b x86_64-linux\nc # d; e\n;f"), ["a", "b", "c", "f"]);
    }

    #[test]
    fn files_are_read_and_those_that_are_missing_are_not() {
        let read = |path: &Path| match path.to_str() {
            Some("/m") => Ok("b\n@/n ; c\n@/missing".to_owned()),
            Some("/n") => Ok("d x\n".to_owned()),
            Some("/loop") => Ok("@/loop".to_owned()),
            Some("/secret") => Err(io::ErrorKind::PermissionDenied.into()),
            _ => Err(io::ErrorKind::NotFound.into()),
        };
        let all = entries("--builders", "a; @ /m ; e", &read);
        let hosts: Vec<_> = all.iter().flatten().map(|(_, machine)| machine.address.host.as_str()).collect();
        assert_eq!(hosts, ["a", "b", "c", "e"]);
        assert_eq!(all[2].as_ref().unwrap_err().place.to_string(), "/n:1:3");
        assert_eq!(all[3].as_ref().unwrap().0.to_string(), "/m:2:7");
        for (text, what) in [("@/loop", "too many"), ("@/secret", "cannot read /secret"), ("@", "no file follows")] {
            let all = entries("m", text, &read);
            assert!(all.len() == 1 && all[0].as_ref().unwrap_err().message.contains(what), "{all:?}");
        }
    }

    #[test]
    fn errors_name_the_place_and_what_is_expected() {
        for (text, place, what) in [
            ("big1 x86_64-linux - many", "m:1:21", "'many' is no whole number; column 4"),
            ("a\n b; big1 - - 1 -2", "m:2:16", "'-2' is no number from 0 up; column 5"),
            ("big1 - - 1 nan", "m:1:12", "column 5"),
            ("é; big1 x86_64-linux, aarch64-linux", "m:1:9", "ends with a comma"),
            ("big1 - - 1 1 a b c d", "m:1:20", "at most 8"),
            ("big1 16", "m:1:6", "'16' is no system"),
            ("- x86_64-linux", "m:1:1", "column 1 is a URL"),
            ("https://big1", "m:1:1", "cannot be reached by 'https://'"),
            ("big1 - - - - - - AAAAC3NzaC1lZDI1NTE5", "m:1:18", "column 8 is the base64"),
        ] {
            let error = error(text);
            assert_eq!(error.place.to_string(), place, "{text}: {error}");
            assert!(error.message.contains(what) && !error.hint.is_empty(), "{text}: {error}");
        }
    }

    fn some_machine() -> impl Strategy<Value = Machine> {
        let word = "[a-z0-9+_.:-]{1,12}".prop_filter("says nothing", |text| text != "-");
        let words = || proptest::collection::vec(word.clone(), 1..4);
        let systems = proptest::collection::vec("[a-z0-9_]{1,8}-[a-z]{1,8}", 1..4);
        let systems = systems.prop_map(|list| list.into_iter().map(System).collect::<Vec<_>>());
        let url = prop_oneof![
            "(ssh|ssh-ng)://([a-z]{1,4}@)?[a-z0-9]{1,8}(\\.[a-z]{1,4})?(:[0-9]{1,4})?(\\?compress=true)?",
            "unix:///[a-z]{1,9}",
            Just("local".to_owned())
        ];
        let first = (url, proptest::option::of(systems), proptest::option::of("/[a-z/.]{1,9}"), any::<Option<u32>>());
        let speed = proptest::option::of((1..1_000_000_u32).prop_map(|n| f64::from(n) / 64.0));
        let rest = (speed, proptest::option::of(words()), prop_oneof![Just(Vec::new()), words()], any::<bool>());
        (first, rest).prop_map(|((url, systems, key, max_jobs), (speed, features, mandatory, keyed))| Machine {
            address: Address::parse(&url).unwrap(),
            systems,
            ssh_key: key.map(PathBuf::from),
            max_jobs,
            speed,
            features,
            mandatory,
            host_key: keyed.then(|| KEY.to_owned()),
        })
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(machines in proptest::collection::vec(some_machine(), 0..4), lines: bool) {
            let printed: Vec<String> = machines.iter().map(ToString::to_string).collect();
            prop_assert_eq!(of(&printed.join(if lines { "\n" } else { " ; " })), machines);
        }

        #[test]
        fn nothing_panics_and_places_are_in_the_text(text in "[ -~\n\té@;#,-]{0,80}") {
            for entry in entries("m", &text, &nothing) {
                let place = match entry { Ok((place, _)) => place, Err(error) => error.place };
                let line = text.lines().nth(place.line - 1).unwrap();
                prop_assert!((1..=line.chars().count()).contains(&place.column), "{}", place);
            }
        }

        #[test]
        fn any_text_at_all(text: String) {
            entries("m", &text, &|_| Ok(text.clone()));
        }
    }
}
