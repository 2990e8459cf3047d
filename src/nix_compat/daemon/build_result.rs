//! How a build ended, as the daemon says it.

use std::collections::BTreeMap;
use std::time::Duration;

pub use nix_derivation::{DerivedPath, SingleDerivedPath};
use tokio::io::AsyncRead;

use crate::id::{StoreDir, StorePath};
use crate::nix_compat::ansi;
use crate::nix_compat::wire::{
    MAX_ITEMS, WireError, lossy_start, read_bool, read_bytes, read_count, read_text, read_u64,
};

/// What kind of building is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u64)]
pub enum BuildMode {
    /// Build what is missing.
    #[default]
    Normal = 0,
    /// Also rebuild what is damaged; for trusted clients.
    Repair = 1,
    /// Build again and compare.
    Check = 2,
}

/// `BuildResult::Status` of Nix. A number that drover does not know is [`BuildStatus::MiscFailure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u64)]
#[expect(missing_docs, reason = "the names of the protocol")]
pub enum BuildStatus {
    Built = 0,
    Substituted = 1,
    AlreadyValid = 2,
    PermanentFailure = 3,
    InputRejected = 4,
    OutputRejected = 5,
    TransientFailure = 6,
    CachedFailure = 7,
    TimedOut = 8,
    MiscFailure = 9,
    DependencyFailed = 10,
    LogLimitExceeded = 11,
    NotDeterministic = 12,
    ResolvesToAlreadyValid = 13,
    NoSubstituters = 14,
}

impl BuildStatus {
    const ALL: [Self; 15] = [
        Self::Built,
        Self::Substituted,
        Self::AlreadyValid,
        Self::PermanentFailure,
        Self::InputRejected,
        Self::OutputRejected,
        Self::TransientFailure,
        Self::CachedFailure,
        Self::TimedOut,
        Self::MiscFailure,
        Self::DependencyFailed,
        Self::LogLimitExceeded,
        Self::NotDeterministic,
        Self::ResolvesToAlreadyValid,
        Self::NoSubstituters,
    ];

    /// From its number.
    #[must_use]
    pub fn from_number(number: u64) -> Self {
        usize::try_from(number).ok().and_then(|index| Self::ALL.get(index).copied()).unwrap_or(Self::MiscFailure)
    }

    /// Whether all outputs are there now.
    #[must_use]
    pub fn is_success(self) -> bool {
        matches!(self, Self::Built | Self::Substituted | Self::AlreadyValid | Self::ResolvesToAlreadyValid)
    }
}

/// How a build ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildResult {
    /// The kind of end.
    pub status: BuildStatus,
    /// Why it failed, with colours and the last lines of the log; empty after a success.
    pub error: Vec<u8>,
    /// How often it ran; 0 from Nix 2.34 on, whatever happened.
    pub times_built: u64,
    /// Two runs differed (only with [`BuildMode::Check`]).
    pub non_deterministic: bool,
    /// Seconds since 1970; 0 from Nix 2.34 on.
    pub start_time: u64,
    /// Seconds since 1970; 0 from Nix 2.34 on.
    pub stop_time: u64,
    /// Processor time in user mode, where it is known (protocol ≥ 1.37 and cgroups).
    pub cpu_user: Option<Duration>,
    /// Processor time in the kernel.
    pub cpu_system: Option<Duration>,
    /// Output name → path, of the outputs that were asked for.
    pub outputs: BTreeMap<String, StorePath>,
}

impl BuildResult {
    /// The error as text without colours.
    #[must_use]
    pub fn error_text(&self) -> String {
        ansi::text(&self.error).trim().to_owned()
    }

    /// Reads one, in the layout of protocol 1.`minor` without features.
    pub(super) async fn read<R: AsyncRead + Unpin>(
        reader: &mut R,
        dir: &StoreDir,
        minor: u16,
    ) -> Result<Self, WireError> {
        let status = BuildStatus::from_number(read_u64(reader).await?);
        let error = read_bytes(reader).await?;
        let times_built = read_u64(reader).await?;
        let non_deterministic = read_bool(reader).await?;
        let start_time = read_u64(reader).await?;
        let stop_time = read_u64(reader).await?;
        let (mut cpu_user, mut cpu_system) = (None, None);
        if minor >= 37 {
            cpu_user = read_microseconds(reader).await?;
            cpu_system = read_microseconds(reader).await?;
        }
        let count = read_count(reader, MAX_ITEMS).await?;
        let mut outputs = BTreeMap::new();
        for _ in 0..count {
            let id = read_text(reader).await?;
            let realisation = read_bytes(reader).await?;
            // Before the `!` is a hash that some versions fill with a dummy.
            let (_, name) = id
                .rsplit_once('!')
                .ok_or_else(|| WireError::malformed(format!("{id:?} does not name an output of a derivation")))?;
            outputs.insert(name.to_owned(), out_path(&realisation, dir)?);
        }
        Ok(Self { status, error, times_built, non_deterministic, start_time, stop_time, cpu_user, cpu_system, outputs })
    }
}

async fn read_microseconds<R: AsyncRead + Unpin>(reader: &mut R) -> Result<Option<Duration>, WireError> {
    match read_u64(reader).await? {
        0 => Ok(None),
        // Signed on the wire; a negative time would be nonsense, and is none.
        1 => Ok(i64::from_le_bytes(read_u64(reader).await?.to_le_bytes()).try_into().ok().map(Duration::from_micros)),
        other => Err(WireError::malformed(format!("{other} is no tag of an optional time"))),
    }
}

/// `outPath` of a realisation: a base name, or (harmlessly accepted) a full path.
fn out_path(realisation: &[u8], dir: &StoreDir) -> Result<StorePath, WireError> {
    #[derive(serde::Deserialize)]
    struct Realisation {
        #[serde(rename = "outPath")]
        out_path: String,
    }
    let bad = |why: String| WireError::malformed(format!("realisation {:?}: {why}", lossy_start(realisation)));
    let Realisation { out_path } = serde_json::from_slice(realisation).map_err(|error| bad(error.to_string()))?;
    if out_path.starts_with('/') {
        dir.parse_path(out_path.as_bytes()).map_err(|error| bad(error.to_string()))
    } else {
        StorePath::from_basename(out_path.as_bytes()).map_err(|error| bad(error.to_string()))
    }
}
