//! How long records are kept: the newest [`KEEP`] runs, logs included. A run that is still being written stays.

use std::path::Path;

use super::{RecordError, list};
use crate::id::RunId;

/// How many runs are kept unless the config says otherwise. A run of a fleet with its logs is a few MiB.
pub const KEEP: usize = 50;

/// Removes all but the newest `keep` runs and says which went.
///
/// # Errors
/// If the state directory cannot be read, or a folder cannot be removed.
pub fn prune(state_dir: &Path, keep: usize) -> Result<Vec<RunId>, RecordError> {
    let mut removed = Vec::new();
    for run in list(state_dir)?.into_iter().skip(keep) {
        if run.dir.is_live() {
            continue;
        }
        match std::fs::remove_dir_all(run.dir.path()) {
            Ok(()) => removed.push(run.id),
            // Another drover prunes at the same time.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(RecordError::io("remove", run.dir.path())(error)),
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{RunDir, Writer};

    #[test]
    fn the_newest_and_the_live_stay() {
        let state = tempfile::tempdir().unwrap();
        let dir = |n: u32| RunDir::new(state.path(), RunId(format!("01KAJX3M00000000000000000{n}").parse().unwrap()));
        for n in 0..5 {
            std::fs::create_dir_all(dir(n).path()).unwrap();
        }
        let live = Writer::create(&dir(0), None).unwrap();
        let removed = prune(state.path(), 2).unwrap();
        assert_eq!(removed, [dir(2).run(), dir(1).run()]);
        let left: Vec<_> = list(state.path()).unwrap().into_iter().map(|run| run.id).collect();
        assert_eq!(left, [dir(4).run(), dir(3).run(), dir(0).run()]);
        drop(live);
        assert_eq!(prune(state.path(), 2).unwrap(), [dir(0).run()]);
    }
}
