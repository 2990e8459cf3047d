//! Which CI system this runs in, and what it takes besides lines of a log.

use std::path::PathBuf;

use super::Env;

/// A CI system that does more with a log than to keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forge {
    /// GitHub Actions.
    Github,
    /// Forgejo Actions.
    Forgejo,
    /// Gitea Actions.
    Gitea,
    /// GitLab CI.
    Gitlab,
}

impl Forge {
    /// Whether it shows remarks beside the code that it finds in the log.
    #[must_use]
    pub fn takes_annotations(self) -> bool {
        match self {
            Self::Github | Self::Forgejo | Self::Gitea => true,
            Self::Gitlab => false,
        }
    }
}

/// Where a step may leave a page in Markdown. Forgejo and Gitea set the first as well.
const STEP_SUMMARY: [&str; 3] = ["GITHUB_STEP_SUMMARY", "FORGEJO_STEP_SUMMARY", "GITEA_STEP_SUMMARY"];

impl Env {
    /// The CI system that this runs in, if it is one of these.
    #[must_use]
    pub fn forge(&self) -> Option<Forge> {
        // Those that grew from Gitea say that they are GitHub, too.
        let forges = [
            ("FORGEJO_ACTIONS", Forge::Forgejo),
            ("GITEA_ACTIONS", Forge::Gitea),
            ("GITHUB_ACTIONS", Forge::Github),
            ("GITLAB_CI", Forge::Gitlab),
        ];
        let is = |name: &str| self.get(name).is_some_and(|value| value != "false" && value != "0");
        forges.into_iter().find_map(|(name, forge)| is(name).then_some(forge))
    }

    /// The file in which this step may leave a page in Markdown.
    pub(super) fn step_summary(&self) -> Option<PathBuf> {
        STEP_SUMMARY.into_iter().find_map(|name| self.get(name)).map(PathBuf::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forges_say_who_they_are() {
        let forge = |vars: &[(&'static str, &'static str)]| Env::of(vars.iter().copied()).forge();
        assert_eq!(forge(&[("CI", "true")]), None);
        assert_eq!(forge(&[("GITHUB_ACTIONS", "true")]), Some(Forge::Github));
        assert_eq!(forge(&[("GITHUB_ACTIONS", "true"), ("FORGEJO_ACTIONS", "true")]), Some(Forge::Forgejo));
        assert_eq!(forge(&[("GITEA_ACTIONS", "true"), ("GITHUB_ACTIONS", "true")]), Some(Forge::Gitea));
        assert_eq!(forge(&[("GITLAB_CI", "true")]), Some(Forge::Gitlab));
        assert_eq!(forge(&[("GITHUB_ACTIONS", "false")]), None);
        let page = Env::of([("GITHUB_STEP_SUMMARY", "/tmp/page")]).step_summary();
        assert_eq!(page, Some("/tmp/page".into()));
    }
}
