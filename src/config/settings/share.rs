//! Sharing records of evaluations.

use std::fmt;
use std::path::PathBuf;

use super::super::file::ShareTable;
use super::super::{Env, public_url};
use crate::error::{Error, Result};

/// Where and how records of evaluations are shared. Its URL may hold a login, which `Debug` does not show.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ShareSettings {
    /// Its URL; `None`: only the folder of the state directory is.
    pub url: Option<String>,
    /// Keys that may have signed records, besides those of caches.
    pub public_keys: Vec<String>,
    /// File with the secret key to sign with, besides those of the caches that are pushed to.
    pub secret_key: Option<PathBuf>,
    /// File with a token that is sent with every request.
    pub token_file: Option<PathBuf>,
    /// This is the pull request of a fork: nothing is signed or written.
    pub read_only: bool,
}

impl fmt::Debug for ShareSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShareSettings").field("read_only", &self.read_only).finish_non_exhaustive()
    }
}

/// What `[share]` says, where drover can do it.
pub(super) fn share(table: ShareTable, env: &Env) -> Result<ShareSettings> {
    let ShareTable { url, public_keys, secret_key, token_file } = table;
    if let Some(url) = &url {
        let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
        let hint = "url = \"file:///srv/drover\"    or https://…, s3://…; without one, carry the folder share/ of the state directory";
        if !url.contains("://") && matches!(scheme, "" | "http" | "https" | "file" | "s3") {
            let url = public_url(url);
            return Err(Error::usage(format!("drover.toml: [share] url = '{url}' is no URL")).hint(hint));
        }
        if !matches!(scheme, "http" | "https" | "file" | "s3") {
            return Err(Error::usage(format!(
                "drover.toml: [share] takes no '{scheme}' URL yet, only file://, http://, https:// and s3://"
            ))
            .hint(hint));
        }
    }
    Ok(ShareSettings { url, public_keys, secret_key, token_file, read_only: env.is_foreign_pull_request() })
}

#[cfg(test)]
mod tests {
    use super::super::Words;
    use super::super::testing::resolve;

    #[test]
    fn a_share_is_a_directory_or_a_server() {
        let url = |url: &str| resolve(Words::default(), &[], &format!("[share]\nurl = '{url}'\n"));
        for good in ["file:///srv/x", "http://h/x", "https://me:pw@h", "s3://bucket?region=x"] {
            assert_eq!(url(good).unwrap().share.url.as_deref(), Some(good));
        }
        for (bad, what) in
            [("attic:x", "no 'attic' URL yet"), ("cachix:x", "no 'cachix' URL yet"), ("/srv/x", "is no URL")]
        {
            let error = url(bad).unwrap_err();
            assert!(error.message.contains(what) && error.hint.is_some(), "{error:?}");
        }
        assert!(!format!("{:?}", url("https://me:hunter2@h").unwrap()).contains("hunter2"));
    }

    #[test]
    fn a_forks_pull_request_writes_to_no_share() {
        let file = "[share]\nurl = 'file:///srv/x'\n";
        let read_only = |env: &[(&str, &str)]| resolve(Words::default(), env, file).unwrap().share.read_only;
        let gitlab = |source| [("CI_MERGE_REQUEST_PROJECT_ID", "1"), ("CI_MERGE_REQUEST_SOURCE_PROJECT_ID", source)];
        assert!(!read_only(&[("CI", "true"), ("GITLAB_CI", "true")]));
        assert!(read_only(&gitlab("2")) && !read_only(&gitlab("1")));
    }
}
