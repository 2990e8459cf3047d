//! Which paths to push: all that the roots refer to, less what other caches hold.
//!
//! Who is asked for a path is given in as a [`Source`], so that this works over any connection.

use std::collections::BTreeSet;

use crate::id::StorePath;
use crate::nix_compat::daemon::PathInfo;

/// What a walk from some roots found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Closure {
    /// Paths to push, references before referrers.
    pub push: Vec<PathInfo>,
    /// Paths that other caches hold. What they refer to was not looked at: whoever has it must complete it.
    pub held: BTreeSet<StorePath>,
    /// Paths that are not valid in the store.
    pub invalid: BTreeSet<StorePath>,
}

/// Who is asked on the way; both answer in the order of the paths.
pub trait Source {
    /// Why it cannot answer; ends the walk.
    type Error;

    /// Which of these paths other caches hold. Paths that were built just now need not be asked for: false.
    fn held(&mut self, paths: Vec<StorePath>) -> impl Future<Output = Result<Vec<bool>, Self::Error>> + Send;

    /// What the store knows about these paths; `None` for one that is not valid there.
    fn infos(
        &mut self,
        paths: Vec<StorePath>,
    ) -> impl Future<Output = Result<Vec<Option<PathInfo>>, Self::Error>> + Send;
}

/// Walks the references of `roots`, one level at a time; each path is asked for once.
pub async fn closure<S: Source>(
    roots: impl IntoIterator<Item = StorePath>,
    source: &mut S,
) -> Result<Closure, S::Error> {
    let mut closure = Closure::default();
    let mut found = Vec::new();
    let mut level: BTreeSet<StorePath> = roots.into_iter().collect();
    let mut seen = level.clone();
    while !level.is_empty() {
        let asked: Vec<StorePath> = level.into_iter().collect();
        let answers = source.held(asked.clone()).await?;
        let mut open = Vec::new();
        for (at, path) in asked.into_iter().enumerate() {
            if answers.get(at).copied().unwrap_or(false) {
                closure.held.insert(path);
            } else {
                open.push(path);
            }
        }
        let mut answers = source.infos(open.clone()).await?.into_iter();
        level = BTreeSet::new();
        for path in open {
            match answers.next().flatten() {
                Some(info) => {
                    level.extend(info.others().filter(|path| seen.insert((*path).clone())).cloned());
                    found.push(info);
                }
                None => {
                    closure.invalid.insert(path);
                }
            }
        }
    }
    closure.push = PathInfo::references_first(found);
    Ok(closure)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    use super::super::testing::{info, path};
    use super::*;

    /// A store with these paths; another cache holds path 1.
    struct Fake {
        store: BTreeMap<StorePath, PathInfo>,
        asked: Vec<StorePath>,
    }

    impl Source for Fake {
        type Error = Infallible;

        async fn held(&mut self, paths: Vec<StorePath>) -> Result<Vec<bool>, Infallible> {
            self.asked.extend(paths.clone());
            Ok(paths.iter().map(|asked| *asked == path(1)).collect())
        }

        async fn infos(&mut self, paths: Vec<StorePath>) -> Result<Vec<Option<PathInfo>>, Infallible> {
            tokio::task::yield_now().await;
            Ok(paths.iter().map(|path| self.store.get(path).cloned()).collect())
        }
    }

    #[tokio::test]
    async fn walks_until_other_caches_hold_it() {
        // 9 → 5, 4; 5 → 5, 3; 4 → 3, 2; 3 → 1 (held), 7 is gone from the store.
        let infos = [info(9, &[5, 4]), info(5, &[5, 3]), info(4, &[3, 2]), info(3, &[1]), info(2, &[7]), info(1, &[0])];
        let store = infos.into_iter().map(|info| (info.path.clone(), info)).collect();
        let mut fake = Fake { store, asked: Vec::new() };
        // In a task, as the driver does it.
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move { (closure([path(9)], &mut fake).await.unwrap(), fake.asked) });
        let (closure, asked) = tasks.join_next().await.unwrap().unwrap();
        let order: Vec<_> = closure.push.iter().map(|info| info.path.clone()).collect();
        assert_eq!(order.len(), 5);
        for (at, info) in closure.push.iter().enumerate() {
            for reference in info.others() {
                let before = order[..at].contains(reference);
                assert!(before || closure.held.contains(reference) || closure.invalid.contains(reference));
            }
        }
        assert_eq!(closure.held, BTreeSet::from([path(1)]));
        assert_eq!(closure.invalid, BTreeSet::from([path(7)]));
        let distinct: BTreeSet<_> = asked.iter().collect();
        assert_eq!(distinct.len(), asked.len(), "each path is asked once");
        assert!(!asked.contains(&path(0)), "nothing below a held path is looked at");
    }

    #[test]
    fn a_cycle_loses_nothing() {
        let sorted = PathInfo::references_first(vec![info(1, &[2]), info(2, &[1]), info(3, &[1])]);
        assert_eq!(sorted.len(), 3);
    }
}
