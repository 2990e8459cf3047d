//! What a client may set for its connection (`SetOptions`).

use super::message::Level;
use crate::nix_compat::wire::Encoder;

/// The options of a connection. The positional ones always overwrite what the daemon's nix.conf says, so they should
/// be what Nix's settings say unless the user asked otherwise. Of an untrusted client the daemon takes only a few.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientOptions {
    /// Keep the directories of failed builds.
    pub keep_failed: bool,
    /// Within one request: go on with what does not depend on a failure.
    pub keep_going: bool,
    /// Build what cannot be substituted.
    pub try_fallback: bool,
    /// Log messages up to this level are sent; activities always are.
    pub verbosity: Level,
    /// Builds at once on this connection, at least 1: with 0 the daemon rejects every build.
    pub max_jobs: u64,
    /// Seconds without output after which a build is stopped; 0 is never.
    pub max_silent_time: u64,
    /// Processors for one build; 0 is all.
    pub cores: u64,
    /// Fetch from caches what can be fetched.
    pub use_substitutes: bool,
    /// Further settings by name: `timeout`, `builders`, `substituters`, …
    pub overrides: Vec<(String, String)>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            keep_failed: false,
            keep_going: true,
            try_fallback: false,
            verbosity: Level::INFO,
            max_jobs: 1,
            max_silent_time: 0,
            cores: 0,
            use_substitutes: true,
            overrides: Vec::new(),
        }
    }
}

impl ClientOptions {
    /// Adds them in the layout of the request.
    pub(super) fn write(&self, to: &mut Encoder) {
        to.bool(self.keep_failed)
            .bool(self.keep_going)
            .bool(self.try_fallback)
            .u64(self.verbosity.0)
            .u64(self.max_jobs.max(1))
            .u64(self.max_silent_time)
            .u64(1) // obsolete: use of the build hook
            .u64(0) // build logs are sent
            .u64(0) // obsolete: type of the log
            .u64(0) // obsolete: printing of the build trace
            .u64(self.cores)
            .bool(self.use_substitutes)
            .list(&self.overrides, |to, (name, value)| {
                to.bytes(name).bytes(value);
            });
    }
}
