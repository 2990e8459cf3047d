//! Dialling one builder: what it takes, what comes of it, and whether it is worth doing again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::build::{Pool, Site};
use crate::config::BuilderSettings;
use crate::config::builders::SshSettings;
use crate::event::{Class, Failure};
use crate::id::{StoreDir, System};
use crate::nix_compat::daemon::Trust;
use crate::sched::Builder;
use crate::store::any::Store;
use crate::store::local::Wishes;
use crate::store::remote::{DialError, DialKind, Key, RemoteOptions, RemoteStore};
use crate::store::roots::Roots;

use super::trust;

/// How long a builder may take to answer when it is dialled.
const PATIENCE: Duration = Duration::from_secs(5);

/// A builder that has been reached.
pub(super) struct Dialled {
    pub(super) store: RemoteStore,
    pub(super) site: Arc<Site>,
    pub(super) builder: Builder,
}

/// All that dialling one builder takes.
pub(super) struct Dialling {
    pub(super) options: RemoteOptions,
    pub(super) wishes: Wishes,
    pub(super) known: Builder,
    pub(super) settings: BuilderSettings,
    pub(super) local: System,
    pub(super) offline: bool,
}

impl Dialling {
    /// Logs in, shakes hands, and asks for what its configuration does not say.
    pub(super) async fn dial(self) -> Result<Dialled, DialError> {
        let store = RemoteStore::dial(self.options).await?;
        let Self { wishes, mut known, settings, local, offline, .. } = self;
        let about = store.about().await;
        if settings.systems.is_none() && !about.systems.is_empty() {
            known.systems = about.systems.iter().cloned().collect();
        }
        if known.systems.is_empty() {
            known.systems.insert(local);
        }
        if settings.features.is_none() {
            known.features = about.features.iter().cloned().collect();
        }
        let jobs = about.max_jobs.and_then(|jobs| u32::try_from(jobs).ok()).filter(|jobs| *jobs > 0);
        known.slots = settings.max_jobs.or(jobs).unwrap_or(1);
        known.trusting = store.trust() != Trust::Untrusted || about.takes_unsigned;
        let any = Store::Remote(store.clone());
        // One without caches of its own fetches from ours, if it obeys us.
        let willing = !about.shell || about.substitutes || about.substituters.is_empty();
        let fetches = !offline && willing && (store.trust() == Trust::Trusted || about.substitutes || !about.shell);
        let wishes = Wishes { substitute: Some(fetches), ..trust::told(&any, wishes) };
        let pool = Arc::new(Pool::new(any.clone(), wishes));
        let roots = Arc::new(Mutex::new(Roots::new(any)));
        Ok(Dialled { store, site: Arc::new(Site::new(pool, roots, fetches)), builder: known })
    }
}

/// How a builder is reached.
pub(crate) fn remote_options(ssh: &SshSettings, settings: &BuilderSettings, store_dir: StoreDir) -> RemoteOptions {
    let runtime = ssh.runtime_dir.clone().filter(|dir| dir.is_dir()).unwrap_or_else(std::env::temp_dir);
    let runtime: PathBuf = runtime;
    let plain = RemoteOptions::new(settings.name.as_str(), settings.url.as_str(), &runtime, store_dir);
    let own = settings.key.as_ref();
    let key = own.or(ssh.key.as_ref().filter(|_| settings.ssh_key.is_none()));
    RemoteOptions {
        ssh_key: settings.ssh_key.clone(),
        key: key.map(|key| Key::new(key.expose())),
        host_keys: match &settings.host_key {
            Some(key) => vec![key.clone()],
            None => ssh.known_hosts.clone(),
        },
        ssh_opts: ssh.options.clone(),
        patience: PATIENCE,
        ..plain
    }
}

/// As events know it.
pub(super) fn dial_failure(error: &DialError) -> Failure {
    Failure::new(Class::BuilderLost, error.what.as_str())
}

/// Whether waiting does not mend it: somebody has to change something.
pub(super) fn is_hopeless(kind: &DialKind) -> bool {
    match kind {
        DialKind::HostKeyUnknown
        | DialKind::HostKeyChanged
        | DialKind::NotLetIn
        | DialKind::NoNix
        | DialKind::Garbage { .. }
        | DialKind::StoreDir
        | DialKind::TooOld
        | DialKind::Forbidden
        | DialKind::Usage => true,
        DialKind::Unreachable | DialKind::Refused | DialKind::TimedOut(_) | DialKind::Other => false,
    }
}
