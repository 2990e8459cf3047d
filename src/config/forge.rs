//! Which CI system this runs in, and what it takes besides lines of a log.

use std::path::{Path, PathBuf};

use super::{Env, branch};

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
    /// Its name in words of the command line and in documents.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Github => "github",
            Self::Forgejo => "forgejo",
            Self::Gitea => "gitea",
            Self::Gitlab => "gitlab",
        }
    }

    /// Which one a repository is at, as far as the address tells from which it was cloned.
    #[must_use]
    pub fn of_remote(url: &str) -> Option<Self> {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let host = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest).split(['/', ':']).next().unwrap_or_default();
        let known = [
            ("github", Self::Github),
            ("gitlab", Self::Gitlab),
            ("codeberg", Self::Forgejo),
            ("forgejo", Self::Forgejo),
            ("gitea", Self::Gitea),
        ];
        known.into_iter().find_map(|(word, forge)| host.split('.').any(|part| part == word).then_some(forge))
    }

    /// Whether it shows remarks beside the code that it finds in the log.
    #[must_use]
    pub fn takes_annotations(self) -> bool {
        match self {
            Self::Github | Self::Forgejo | Self::Gitea => true,
            Self::Gitlab => false,
        }
    }
}

/// Of what a run is, as far as the CI system or git says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Whereabouts {
    /// The CI system, `github`.
    pub forge: Option<&'static str>,
    /// `acme/infra`.
    pub repository: Option<String>,
    /// The branch; of a pull request the one that is proposed.
    pub branch: Option<String>,
    /// The number of the pull request.
    pub change: Option<String>,
    /// Where the CI system shows this run.
    pub url: Option<String>,
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

    /// Of what this run is; where no CI system says, the branch is that which is checked out in this directory.
    pub(super) fn whereabouts(&self, dir: Option<&Path>) -> Whereabouts {
        let text = |name: &str| self.get(name).map(str::to_owned);
        match self.forge() {
            None if self.is_ci() => Whereabouts::default(),
            None => Whereabouts { branch: dir.and_then(branch::checked_out), ..Whereabouts::default() },
            Some(forge @ Forge::Gitlab) => Whereabouts {
                forge: Some(forge.name()),
                repository: text("CI_PROJECT_PATH"),
                branch: text("CI_MERGE_REQUEST_SOURCE_BRANCH_NAME").or_else(|| text("CI_COMMIT_BRANCH")),
                change: text("CI_MERGE_REQUEST_IID"),
                url: text("CI_PIPELINE_URL"),
            },
            Some(forge) => self.actions(forge.name()),
        }
    }

    /// The same by the variables of GitHub, which Forgejo and Gitea set as well.
    fn actions(&self, forge: &'static str) -> Whereabouts {
        let reference = self.get("GITHUB_REF").unwrap_or_default();
        let repository = self.get("GITHUB_REPOSITORY");
        let pull = reference.strip_prefix("refs/pull/").and_then(|rest| rest.split('/').next());
        let proposed = self.get("GITHUB_HEAD_REF").filter(|branch| !branch.is_empty());
        let url = || {
            let (server, run) = (self.get("GITHUB_SERVER_URL")?, self.get("GITHUB_RUN_ID")?);
            Some(format!("{server}/{}/actions/runs/{run}", repository?))
        };
        Whereabouts {
            forge: Some(forge),
            repository: repository.map(str::to_owned),
            branch: proposed.or_else(|| reference.strip_prefix("refs/heads/")).map(str::to_owned),
            change: pull.map(str::to_owned),
            url: url(),
        }
    }

    /// The file in which this step may leave values for later ones.
    pub(super) fn step_output(&self) -> Option<PathBuf> {
        self.get("GITHUB_OUTPUT").map(PathBuf::from)
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
    fn a_run_is_of_a_branch_or_a_pull_request() {
        let of = |vars: &[(&'static str, &'static str)]| Env::of(vars.iter().copied()).whereabouts(None);
        let text = |text: &str| Some(text.to_owned());
        let github = [
            ("GITHUB_ACTIONS", "true"),
            ("GITHUB_REPOSITORY", "acme/infra"),
            ("GITHUB_SERVER_URL", "https://github.com"),
            ("GITHUB_RUN_ID", "77"),
        ];
        let common = Whereabouts {
            forge: Some("github"),
            repository: text("acme/infra"),
            url: text("https://github.com/acme/infra/actions/runs/77"),
            ..Whereabouts::default()
        };
        let with = |more: &[(&'static str, &'static str)]| of(&[&github, more].concat());
        let main = Whereabouts { branch: text("main"), ..common.clone() };
        assert_eq!(with(&[("GITHUB_REF", "refs/heads/main"), ("GITHUB_HEAD_REF", "")]), main);
        let pull = Whereabouts { branch: text("nginx"), change: text("812"), ..common.clone() };
        assert_eq!(with(&[("GITHUB_REF", "refs/pull/812/merge"), ("GITHUB_HEAD_REF", "nginx")]), pull);
        assert_eq!(with(&[("GITHUB_REF", "refs/tags/v1")]), common);
        assert_eq!(of(&[("FORGEJO_ACTIONS", "1"), ("GITHUB_ACTIONS", "1")]).forge, Some("forgejo"));
        let gitlab = of(&[
            ("GITLAB_CI", "true"),
            ("CI_PROJECT_PATH", "acme/infra"),
            ("CI_MERGE_REQUEST_IID", "7"),
            ("CI_MERGE_REQUEST_SOURCE_BRANCH_NAME", "nginx"),
        ]);
        assert_eq!((gitlab.branch, gitlab.change, gitlab.repository), (text("nginx"), text("7"), text("acme/infra")));
        assert_eq!(of(&[("CI", "true")]), Whereabouts::default());
    }

    #[test]
    fn an_address_tells_the_forge() {
        for (url, forge) in [
            ("git@github.com:acme/infra.git", Some(Forge::Github)),
            ("https://me:secret@gitlab.acme.net/acme/infra", Some(Forge::Gitlab)),
            ("ssh://git@codeberg.org:22/acme/infra", Some(Forge::Forgejo)),
            ("https://git.acme.net/mirror/github.com", None),
            ("/srv/git/infra", None),
        ] {
            assert_eq!(Forge::of_remote(url), forge, "{url}");
        }
    }

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
