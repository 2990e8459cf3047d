//! One method an operation. Layouts are those of `daemon.cc` and `remote-store.cc` of Nix for protocol ≥ 1.35.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::basic_drv::BasicDerivation;
use super::build_result::{BuildMode, BuildResult, DerivedPath};
use super::connection::Connection;
use super::error::DaemonError;
use super::message::{Message, Messages};
use super::options::ClientOptions;
use super::path_info::{PathInfo, Unkeyed};
use crate::id::StorePath;
use crate::nix_compat::wire::Encoder;

/// The number of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
#[expect(missing_docs, reason = "the names of the protocol")]
pub enum Op {
    IsValidPath = 1,
    EnsurePath = 10,
    AddTempRoot = 11,
    AddIndirectRoot = 12,
    SetOptions = 19,
    QueryPathInfo = 26,
    QueryValidPaths = 31,
    BuildDerivation = 36,
    AddSignatures = 37,
    NarFromPath = 38,
    AddToStoreNar = 39,
    QueryMissing = 40,
    QueryDerivationOutputMap = 41,
    BuildPathsWithResults = 46,
    AddPermRoot = 47,
}

/// What it would take to have some paths.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Missing {
    /// Derivations that would be built.
    pub will_build: BTreeSet<StorePath>,
    /// Paths that would be fetched.
    pub will_substitute: BTreeSet<StorePath>,
    /// Paths that can be neither built nor fetched.
    pub unknown: BTreeSet<StorePath>,
    /// Compressed bytes to fetch, as far as caches say.
    pub download_size: u64,
    /// Bytes of the NARs to fetch.
    pub nar_size: u64,
}

/// A message that nobody asked for: developers may see it.
fn unheard(message: Message) {
    tracing::trace!(?message, "unheard");
}

impl Connection {
    /// Sets the options of this connection.
    pub async fn set_options(&mut self, options: &ClientOptions, messages: Messages<'_>) -> Result<(), DaemonError> {
        let mut request = start(Op::SetOptions);
        options.write(&mut request);
        self.call("setting options", request.as_bytes(), messages).await
    }

    /// Whether each path is valid, asked in one burst. Nothing keeps them valid: see [`Connection::hold_valid`].
    pub async fn valid_paths(&mut self, paths: &[StorePath]) -> Result<Vec<bool>, DaemonError> {
        let requests = self.of_paths(Op::IsValidPath, paths);
        self.burst("asking whether paths are valid", requests.as_bytes(), paths.len(), &mut unheard).await
    }

    /// Those of the paths that are valid. With `substitute` the daemon first fetches what it can, closures included.
    pub async fn query_valid_paths<'a>(
        &mut self,
        paths: impl IntoIterator<Item = &'a StorePath>,
        substitute: bool,
        messages: Messages<'_>,
    ) -> Result<BTreeSet<StorePath>, DaemonError> {
        let mut request = start(Op::QueryValidPaths);
        request.paths(&self.layout.dir, paths).bool(substitute);
        self.call("asking which paths are valid", request.as_bytes(), messages).await
    }

    /// Keeps paths from the garbage collector for as long as this connection lives. They need not be valid yet.
    pub async fn add_temp_roots(&mut self, paths: &[StorePath]) -> Result<(), DaemonError> {
        let requests = self.of_paths(Op::AddTempRoot, paths);
        let _ok: Vec<bool> = self.burst("holding paths", requests.as_bytes(), paths.len(), &mut unheard).await?;
        Ok(())
    }

    /// [`Connection::add_temp_roots`], then [`Connection::valid_paths`], in one burst: what is valid now stays so.
    pub async fn hold_valid(&mut self, paths: &[StorePath]) -> Result<Vec<bool>, DaemonError> {
        let mut requests = Encoder::new();
        for path in paths {
            for op in [Op::AddTempRoot, Op::IsValidPath] {
                requests.u64(op as u64).path(&self.layout.dir, path);
            }
        }
        let answers: Vec<bool> =
            self.burst("holding paths", requests.as_bytes(), paths.len() * 2, &mut unheard).await?;
        Ok(answers.into_iter().skip(1).step_by(2).collect())
    }

    /// Says which of the paths are valid, and holds those: what is valid now stays so. One question for all of them,
    /// so that those that are not valid cost next to nothing.
    pub async fn hold_if_valid(&mut self, paths: &[StorePath]) -> Result<Vec<bool>, DaemonError> {
        let seen = self.query_valid_paths(paths, false, &mut unheard).await?;
        let there: Vec<StorePath> = paths.iter().filter(|path| seen.contains(*path)).cloned().collect();
        if there.is_empty() {
            return Ok(vec![false; paths.len()]);
        }
        // What was valid a moment ago may be collected by now.
        let mut held = self.hold_valid(&there).await?.into_iter();
        Ok(paths.iter().map(|path| seen.contains(path) && held.next().unwrap_or(false)).collect())
    }

    /// What is known of a path; `None` if it is not valid.
    pub async fn path_info(&mut self, path: &StorePath) -> Result<Option<PathInfo>, DaemonError> {
        Ok(self.path_infos(std::slice::from_ref(path)).await?.pop().flatten())
    }

    /// What is known of each path, asked in one burst; `None` for those that are not valid.
    pub async fn path_infos(&mut self, paths: &[StorePath]) -> Result<Vec<Option<PathInfo>>, DaemonError> {
        let requests = self.of_paths(Op::QueryPathInfo, paths);
        let infos: Vec<Option<Unkeyed>> =
            self.burst("asking about paths", requests.as_bytes(), paths.len(), &mut unheard).await?;
        Ok(infos.into_iter().zip(paths).map(|(info, path)| info.map(|info| info.of(path.clone()))).collect())
    }

    /// Makes a path valid by fetching it and its closure, if it is not valid already.
    pub async fn ensure_path(&mut self, path: &StorePath, messages: Messages<'_>) -> Result<(), DaemonError> {
        let request = self.of_paths(Op::EnsurePath, std::slice::from_ref(path));
        let _ok: bool = self.call("fetching a path", request.as_bytes(), messages).await?;
        Ok(())
    }

    /// Builds a derivation whose inputs are valid. A failed build is an `Ok`; an error is a refusal.
    pub async fn build_derivation(
        &mut self,
        drv_path: &StorePath,
        drv: &BasicDerivation,
        mode: BuildMode,
        messages: Messages<'_>,
    ) -> Result<BuildResult, DaemonError> {
        let mut request = self.of_paths(Op::BuildDerivation, std::slice::from_ref(drv_path));
        drv.write(&self.layout.dir, &mut request);
        request.u64(mode as u64);
        self.call("building a derivation", request.as_bytes(), messages).await
    }

    /// Has the daemon build derivations that are in its store, and all that they need. It may give fewer results than
    /// were asked for, so they are to be found by path.
    pub async fn build_paths(
        &mut self,
        paths: &[DerivedPath],
        mode: BuildMode,
        messages: Messages<'_>,
    ) -> Result<Vec<(DerivedPath, BuildResult)>, DaemonError> {
        let mut request = start(Op::BuildPathsWithResults);
        self.derived_paths(&mut request, paths);
        request.u64(mode as u64);
        self.call("building derivations", request.as_bytes(), messages).await
    }

    /// What it would take to have these.
    pub async fn query_missing(
        &mut self,
        paths: &[DerivedPath],
        messages: Messages<'_>,
    ) -> Result<Missing, DaemonError> {
        let mut request = start(Op::QueryMissing);
        self.derived_paths(&mut request, paths);
        self.call("asking what is missing", request.as_bytes(), messages).await
    }

    /// Output names and paths of a derivation that is valid there; `None` for paths that are not known (yet).
    pub async fn output_map(&mut self, drv: &StorePath) -> Result<BTreeMap<String, Option<StorePath>>, DaemonError> {
        let request = self.of_paths(Op::QueryDerivationOutputMap, std::slice::from_ref(drv));
        self.call("asking for outputs", request.as_bytes(), &mut unheard).await
    }

    /// Tells the daemon of a symlink into the store that is to be a root. Only for a daemon on this machine.
    pub async fn add_indirect_root(&mut self, link: &Path) -> Result<(), DaemonError> {
        use std::os::unix::ffi::OsStrExt as _;
        let mut request = start(Op::AddIndirectRoot);
        request.bytes(link.as_os_str().as_bytes());
        let _ok: bool = self.call("adding a root", request.as_bytes(), &mut unheard).await?;
        Ok(())
    }

    /// Has the daemon make a root that outlives this connection: a symlink at `link`, an absolute path where the daemon
    /// is, to a path, which Nix does not ask to be valid. Directories above it are made. For trusted clients of
    /// Nix ≥ 2.20; it can only be removed as a file.
    pub async fn add_perm_root(&mut self, path: &StorePath, link: &Path) -> Result<(), DaemonError> {
        use std::os::unix::ffi::OsStrExt as _;
        let mut request = self.of_paths(Op::AddPermRoot, std::slice::from_ref(path));
        request.bytes(link.as_os_str().as_bytes());
        let _link: String = self.call("adding a lasting root", request.as_bytes(), &mut unheard).await?;
        Ok(())
    }

    /// Adds signatures (`key:base64`) to a valid path.
    pub async fn add_signatures(&mut self, path: &StorePath, signatures: &[String]) -> Result<(), DaemonError> {
        let mut request = self.of_paths(Op::AddSignatures, std::slice::from_ref(path));
        request.list(signatures, |to, signature| {
            to.bytes(signature);
        });
        let _ok: bool = self.call("adding signatures", request.as_bytes(), &mut unheard).await?;
        Ok(())
    }

    /// One request a path.
    pub(super) fn of_paths(&self, op: Op, paths: &[StorePath]) -> Encoder {
        let mut requests = Encoder::new();
        for path in paths {
            requests.u64(op as u64).path(&self.layout.dir, path);
        }
        requests
    }

    fn derived_paths(&self, request: &mut Encoder, paths: &[DerivedPath]) {
        request.list(paths, |to, path| {
            to.bytes(path.render_legacy(&self.layout.dir));
        });
    }
}

fn start(op: Op) -> Encoder {
    let mut request = Encoder::new();
    request.u64(op as u64);
    request
}
