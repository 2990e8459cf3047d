//! Which runs there are and how they are called: newest first, `last`, and prefixes of their ULIDs.

use std::path::Path;

use super::{RecordError, RunDir, runs_dir};
use crate::id::RunId;

/// The characters of a run's id that are shown when no other run shares them.
const SHORT: usize = 8;

/// One recorded run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Which.
    pub id: RunId,
    /// Its id as shown: as short as the other runs of the same state directory allow.
    pub short: String,
    /// Where it is kept.
    pub dir: RunDir,
}

/// All runs of a state directory, newest first. No state directory is no runs.
///
/// # Errors
/// If the directory is there and cannot be read.
pub fn list(state_dir: &Path) -> Result<Vec<Run>, RecordError> {
    let folder = runs_dir(state_dir);
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(RecordError::io("read", &folder)(error)),
    };
    let mut ids: Vec<RunId> = Vec::new();
    for entry in entries {
        let entry = entry.map_err(RecordError::io("read", &folder))?;
        // Anything else that lies there is not ours to mention.
        if let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
            ids.push(id);
        }
    }
    ids.sort_unstable_by(|a, b| b.cmp(a));
    let shorts = short_ids(&ids);
    Ok(ids.into_iter().zip(shorts).map(|(id, short)| Run { id, short, dir: RunDir::new(state_dir, id) }).collect())
}

/// The run that a person means: `last`, a full id, or a prefix that only one run has, in any case of letters.
///
/// # Errors
/// If there is no such run, or several; the error lists them.
pub fn lookup(state_dir: &Path, asked: &str) -> Result<Run, RecordError> {
    let mut runs = list(state_dir)?;
    let ids: Vec<RunId> = runs.iter().map(|run| run.id).collect();
    Ok(runs.swap_remove(named(&ids, asked)?))
}

/// The same among these, newest first: its place.
///
/// # Errors
/// As [`lookup`].
pub fn named(runs: &[RunId], asked: &str) -> Result<usize, RecordError> {
    let prefix = asked.to_ascii_uppercase();
    let fits = |run: &RunId| match asked {
        "last" => runs.first() == Some(run),
        _ => !prefix.is_empty() && run.to_string().starts_with(&prefix),
    };
    let found: Vec<usize> = (0..runs.len()).filter(|place| fits(&runs[*place])).collect();
    match found.as_slice() {
        [] => Err(RecordError::NoRun { asked: asked.to_owned() }),
        [one] => Ok(*one),
        some => {
            let shorts = short_ids(runs);
            let candidates = some.iter().filter_map(|place| shorts.get(*place).cloned()).collect();
            Err(RecordError::Ambiguous { asked: asked.to_owned(), candidates })
        }
    }
}

/// The id of a run as shown beside the runs that are there already. For a run that just begins.
///
/// # Errors
/// As [`list`].
pub fn short_id(state_dir: &Path, run: RunId) -> Result<String, RecordError> {
    let mut ids: Vec<RunId> = list(state_dir)?.into_iter().map(|run| run.id).filter(|id| *id != run).collect();
    ids.insert(0, run);
    Ok(short_ids(&ids).swap_remove(0))
}

/// Each id cut to 8 characters, or to as many as it takes to tell it from all the others.
#[must_use]
pub fn short_ids(ids: &[RunId]) -> Vec<String> {
    let texts: Vec<String> = ids.iter().map(RunId::to_string).collect();
    let mut order: Vec<usize> = (0..texts.len()).collect();
    order.sort_unstable_by(|a, b| texts[*a].cmp(&texts[*b]));
    let shared = |a: usize, b: usize| texts[a].bytes().zip(texts[b].bytes()).take_while(|(x, y)| x == y).count();
    let mut lengths = vec![SHORT; texts.len()];
    // In sorted order, the longest prefix that an id shares with any other is shared with a neighbour.
    for pair in order.windows(2) {
        let (a, b) = (pair[0], pair[1]);
        if texts[a] != texts[b] {
            let needed = shared(a, b) + 1;
            lengths[a] = lengths[a].max(needed);
            lengths[b] = lengths[b].max(needed);
        }
    }
    texts.iter().zip(lengths).map(|(text, length)| text[..length.min(text.len())].to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(ids: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for id in ids {
            std::fs::create_dir_all(dir.path().join("runs").join(id)).unwrap();
        }
        dir
    }

    const OLD: &str = "01KAJX3M000000000000000000";
    const TWIN_A: &str = "01KAKQ7TAA0000000000000000";
    const TWIN_B: &str = "01KAKQ7TAB0000000000000000";

    #[test]
    fn newest_first_and_only_as_long_as_needed() {
        let dir = state(&[OLD, TWIN_A, TWIN_B, "not-a-run"]);
        let shorts: Vec<String> = list(dir.path()).unwrap().into_iter().map(|run| run.short).collect();
        assert_eq!(shorts, ["01KAKQ7TAB", "01KAKQ7TAA", "01KAJX3M"]);
        assert_eq!(list(&dir.path().join("nowhere")).unwrap(), []);
    }

    #[test]
    fn runs_are_found_by_last_and_by_unique_prefix() {
        let dir = state(&[OLD, TWIN_A, TWIN_B]);
        assert_eq!(lookup(dir.path(), "last").unwrap().id.to_string(), TWIN_B);
        assert_eq!(lookup(dir.path(), "01kaj").unwrap().id.to_string(), OLD);
        assert_eq!(lookup(dir.path(), TWIN_A).unwrap().id.to_string(), TWIN_A);
    }

    #[test]
    fn an_ambiguous_prefix_lists_the_candidates() {
        let dir = state(&[OLD, TWIN_A, TWIN_B]);
        let error = lookup(dir.path(), "01KAKQ7T").unwrap_err();
        assert_eq!(error.to_string(), "01KAKQ7T may be one of 01KAKQ7TAB, 01KAKQ7TAA");
        assert!(matches!(lookup(dir.path(), "02"), Err(RecordError::NoRun { .. })));
        assert!(matches!(lookup(dir.path(), ""), Err(RecordError::NoRun { .. })));
    }
}
