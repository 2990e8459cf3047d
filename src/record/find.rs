//! Finding the log that a person means (`drover log`) among all runs, the newest first.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::logs::{earlier_logs, file_name};
use super::{Reader, RecordError, Run, list};
use crate::event::{Evaluated, Fact};
use crate::id::{AttrId, DrvId};

/// Characters of the hash in a store path's name.
const HASH: usize = 32;

/// How many near names an error gives.
const NEAR: usize = 3;

/// A log that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// In which run.
    pub run: Run,
    /// `nginx-1.29.4`.
    pub name: String,
    /// The log file of the last attempt.
    pub path: PathBuf,
    /// Those of the attempts before it, in order.
    pub earlier: Vec<PathBuf>,
    /// Logs of other drvs in the same run that fit as well (the same name for another system).
    pub others: Vec<PathBuf>,
}

/// The log of the last attempt of what is asked for: the path of a .drv (or `HASH-NAME.drv`), a name with version, a
/// name without one, or an attr by its full path or short name. An attr that failed gives the log of the drv that
/// broke it.
///
/// # Errors
/// If no run has such a log, with the nearest names that have one, or a record cannot be read.
pub fn find_log(state_dir: &Path, asked: &str) -> Result<Found, RecordError> {
    let runs = list(state_dir)?;
    let logs: Vec<Vec<String>> = runs.iter().map(|run| log_names(&run.dir.logs())).collect();
    let file = file_name(asked);
    let fits: [&dyn Fn(&str) -> bool; 3] = [&|log| log == file, &|log| name_of(log) == asked, &|log| {
        name_of(log).strip_prefix(asked).is_some_and(is_version)
    }];
    for fit in fits {
        for (run, logs) in runs.iter().zip(&logs) {
            let matching: Vec<&String> = logs.iter().filter(|log| fit(log)).collect();
            if let Some(found) = newest(run, &matching) {
                return Ok(found);
            }
        }
    }
    for (run, logs) in runs.iter().zip(&logs) {
        let wanted = drvs_of_attr(run, asked);
        let matching: Vec<&String> =
            wanted.iter().filter_map(|drv| logs.iter().find(|log| **log == file_name(drv))).collect();
        if let Some(first) = matching.first() {
            return Ok(found(run, first, &[]));
        }
    }
    Err(RecordError::NoLog { asked: asked.to_owned(), near: nearest(asked, logs.iter().flatten()) })
}

/// File names of the logs in a folder; none if there is no such folder.
fn log_names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".log"))
        .collect();
    names.sort_unstable();
    names
}

/// `NAME` of `HASH-NAME.log`.
fn name_of(log: &str) -> &str {
    let stem = log.strip_suffix(".log").unwrap_or(log);
    match stem.split_once('-') {
        Some((hash, name)) if hash.len() == HASH => name,
        _ => stem,
    }
}

/// Whether this follows the name of a package: `-1.29.4`.
fn is_version(rest: &str) -> bool {
    rest.strip_prefix('-').is_some_and(|version| version.starts_with(|c: char| c.is_ascii_digit()))
}

/// Of several logs the one written last.
fn newest(run: &Run, matching: &[&String]) -> Option<Found> {
    let written = |log: &&&String| std::fs::metadata(run.dir.logs().join(log)).and_then(|meta| meta.modified()).ok();
    let chosen = matching.iter().max_by_key(written)?;
    Some(found(run, chosen, matching))
}

impl Found {
    /// The log of an attempt, from 1; `None` if there are not so many.
    #[must_use]
    pub fn attempt(&self, number: usize) -> Option<&Path> {
        let logs = self.earlier.iter().chain([&self.path]);
        number.checked_sub(1).and_then(|before| logs.map(PathBuf::as_path).nth(before))
    }
}

fn found(run: &Run, log: &str, matching: &[&String]) -> Found {
    let folder = run.dir.logs();
    let path = folder.join(log);
    Found {
        run: run.clone(),
        name: name_of(log).to_owned(),
        earlier: earlier_logs(&path),
        path,
        others: matching.iter().filter(|other| **other != log).map(|other| folder.join(other)).collect(),
    }
}

/// The drvs whose log tells about an attr, the best first: the one that broke it, then its own.
fn drvs_of_attr(run: &Run, asked: &str) -> Vec<String> {
    let Ok(mut reader) = Reader::open(&run.dir.events()) else { return Vec::new() };
    let mut attrs: BTreeMap<AttrId, Vec<String>> = BTreeMap::new();
    let mut drvs: BTreeMap<DrvId, String> = BTreeMap::new();
    // A record that is damaged further on still names what it names.
    while let Ok(Some(event)) = reader.next_event() {
        match event.fact {
            Fact::AttrListed { attr, path, name, .. } if &*name == asked || path.to_string() == asked => {
                attrs.insert(attr, Vec::new());
            }
            Fact::EvalEnded { attr, evaluated: Evaluated::Drv { drv, .. }, .. } => {
                if let Some(own) = attrs.get_mut(&attr) {
                    own.push(drv.to_string());
                }
            }
            Fact::DrvNeeded { drv, path, .. } if !attrs.is_empty() => {
                drvs.insert(drv, path.to_string());
            }
            Fact::AttrEnded { attr, root: Some(root), .. } => {
                if let (Some(own), Some(path)) = (attrs.get_mut(&attr), drvs.get(&root)) {
                    own.insert(0, path.clone());
                }
            }
            _ => {}
        }
    }
    attrs.into_values().flatten().collect()
}

/// The names that are most like the one asked for.
fn nearest<'a>(asked: &str, logs: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut names: Vec<&str> = logs.map(|log| name_of(log)).collect();
    names.sort_unstable();
    names.dedup();
    let mut scored: Vec<(f64, &str)> =
        names.into_iter().map(|name| (strsim::jaro_winkler(asked, name), name)).collect();
    scored.retain(|(score, _)| *score > 0.7);
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.into_iter().take(NEAR).map(|(_, name)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, FORMAT, Moment, Status};
    use crate::id::{Kind, RunId};
    use crate::record::{LogWriter, RunDir, Writer};

    const NGINX: &str = "/nix/store/7d4kq0fz1v3c8b2n5m6l9x0y1w2r3s4d-nginx-1.29.4.drv";
    const WEB3: &str = "/nix/store/1d4kq0fz1v3c8b2n5m6l9x0y1w2r3s4d-nixos-system-web3.drv";

    fn put(dir: &RunDir, drv: &str, text: &str) {
        let mut log = LogWriter::new(dir, drv, 1000);
        log.line(text.as_bytes()).unwrap();
        log.finish().unwrap();
    }

    fn text(found: &Found) -> String {
        std::fs::read_to_string(&found.path).unwrap()
    }

    #[test]
    fn by_drv_by_name_and_by_package_the_newest_run_wins() {
        let state = tempfile::tempdir().unwrap();
        let run = |n: u32| RunDir::new(state.path(), RunId(format!("01KAJX3M00000000000000000{n}").parse().unwrap()));
        put(&run(1), NGINX, "old");
        put(&run(2), NGINX, "new");
        put(&run(1), WEB3, "host");
        for asked in [NGINX, "7d4kq0fz1v3c8b2n5m6l9x0y1w2r3s4d-nginx-1.29.4.drv", "nginx-1.29.4", "nginx"] {
            assert_eq!(text(&find_log(state.path(), asked).unwrap()), "new\n", "{asked}");
        }
        put(&run(2), NGINX, "newer");
        let found = find_log(state.path(), "nginx").unwrap();
        let attempts = [1, 2].map(|n| std::fs::read_to_string(found.attempt(n).unwrap()).unwrap());
        assert_eq!(attempts, ["new\n", "newer\n"]);
        assert_eq!((text(&found).as_str(), found.attempt(0), found.attempt(3)), ("newer\n", None, None));
        assert_eq!(text(&find_log(state.path(), "nixos-system-web3").unwrap()), "host\n");
        let error = find_log(state.path(), "ngnix-1.29.4").unwrap_err();
        assert!(matches!(&error, RecordError::NoLog { near, .. } if near == &["nginx-1.29.4"]), "{error:?}");
    }

    #[test]
    fn an_attr_gives_the_log_of_what_broke_it() {
        let state = tempfile::tempdir().unwrap();
        let dir = RunDir::new(state.path(), "01KAJX3M000000000000000000".parse().unwrap());
        let facts = [
            Fact::RunStarted {
                format: FORMAT,
                run: dir.run(),
                drover: "0.1.0".into(),
                command: "run".into(),
                what: vec![],
                started: jiff::Timestamp::UNIX_EPOCH,
                nix: "2.34.8".into(),
            },
            Fact::AttrListed {
                attr: AttrId(0),
                path: "nixosConfigurations.web3".parse().unwrap(),
                kind: Kind::NixosConfigurations,
                name: "web3".into(),
            },
            Fact::DrvNeeded {
                drv: DrvId(4),
                path: NGINX.into(),
                name: "nginx-1.29.4".into(),
                system: "x86_64-linux".into(),
                inputs: vec![],
                fetch: false,
                opaque: false,
                features: Vec::new(),
                attr: Some(AttrId(0)),
                expected: None,
                outputs: vec![],
            },
            Fact::AttrEnded { attr: AttrId(0), status: Status::Failed, reason: None, root: Some(DrvId(4)) },
        ];
        let mut writer = Writer::create(&dir, None).unwrap();
        for (seq, fact) in facts.into_iter().enumerate() {
            writer.write(&Event { seq: seq as u64, at: Moment(0), fact }).unwrap();
        }
        put(&dir, NGINX, "no SSL");
        for asked in ["web3", "nixosConfigurations.web3"] {
            assert_eq!(text(&find_log(state.path(), asked).unwrap()), "no SSL\n");
        }
    }
}
