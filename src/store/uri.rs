//! Where the store of a URI is: how it is reached, which directory its paths name, and where its files are.
//!
//! Follows `openStore` of Nix's `store-registration.cc` and `local-fs-store.cc`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::StoreError;
use super::settings::Installation;
use crate::id::StoreDir;

/// How a store is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reach {
    /// A daemon listens here.
    Socket(PathBuf),
    /// A daemon of our own does it: `nix-daemon --stdio`.
    Spawn {
        /// `--store`, where it is not what Nix chooses by itself.
        store: Option<String>,
    },
}

/// Where a store is.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) reach: Reach,
    pub(super) store_dir: StoreDir,
    /// Where its files are; `None` if they are not on this machine, or nobody knows.
    pub(super) physical: Option<PathBuf>,
    pub(super) uri: Arc<str>,
}

impl Place {
    /// Finds it. `socket` overrides where the daemon's socket is.
    pub(super) fn of(uri: &str, nix: &Installation, socket: Option<&Path>) -> Result<Self, StoreError> {
        let socket = || match socket {
            Some(socket) => socket.to_owned(),
            None => Path::new(&nix.state_dir).join("daemon-socket/socket"),
        };
        let (scheme, params) = Params::split(uri);
        let dir = params.get("store").unwrap_or_else(|| nix.store_dir.clone());
        let store_dir = StoreDir::new(dir.trim_end_matches('/'))
            .map_err(|error| StoreError::Output { command: "nix -v --version", what: error.to_string() })?;
        let under = |root: &str| match root.trim_end_matches('/') {
            "" => PathBuf::from(store_dir.as_str()),
            root => PathBuf::from(format!("{root}{store_dir}")),
        };
        let files = |root: &str| {
            let root = params.get("root").unwrap_or_else(|| root.to_owned());
            params.get("real").map_or_else(|| under(&root), PathBuf::from)
        };
        let spawn = || Reach::Spawn { store: Some(uri.to_owned()) };
        let (reach, physical) = match scheme.as_str() {
            "auto" | "" => match choice(Path::new(&nix.state_dir), &socket()) {
                Choice::Direct => (spawn(), Some(files(""))),
                Choice::Daemon => (Reach::Socket(socket()), Some(files(""))),
                Choice::Elsewhere => (spawn(), None),
            },
            "daemon" => (Reach::Socket(socket()), Some(files(""))),
            "local" | "local://" => (spawn(), Some(files(""))),
            path if path.starts_with("unix://") => {
                let path = &path["unix://".len()..];
                let path = if path.is_empty() { socket() } else { PathBuf::from(path) };
                (Reach::Socket(path), Some(files("")))
            }
            path if path.contains("://") => (spawn(), None),
            path if path.contains('/') => (spawn(), Some(files(path))),
            _ => (spawn(), None),
        };
        // Left to itself, Nix chooses as it does for everybody.
        let reach = match reach {
            Reach::Spawn { .. } if uri == "auto" => Reach::Spawn { store: None },
            other => other,
        };
        Ok(Self { reach, store_dir, physical, uri: uri.into() })
    }
}

/// What `auto` stands for.
enum Choice {
    Direct,
    Daemon,
    Elsewhere,
}

/// Whoever may write the database does so, else there is a daemon, else Nix finds a place in the home directory.
fn choice(state_dir: &Path, socket: &Path) -> Choice {
    use rustix::fs::{Access, access};
    if access(state_dir, Access::READ_OK | Access::WRITE_OK).is_ok() {
        Choice::Direct
    } else if socket.exists() {
        Choice::Daemon
    } else if !state_dir.exists() && rustix::process::geteuid().is_root() {
        Choice::Direct
    } else {
        Choice::Elsewhere
    }
}

/// The parameters of a store URI.
pub(super) struct Params(Vec<(String, String)>);

impl Params {
    /// The URI without parameters, and these.
    pub(super) fn split(uri: &str) -> (String, Self) {
        let (scheme, query) = uri.split_once('?').unwrap_or((uri, ""));
        let pair = |pair: &str| pair.split_once('=').map(|(name, value)| (name.to_owned(), decode(value)));
        (scheme.to_owned(), Self(query.split('&').filter_map(pair).collect()))
    }

    pub(super) fn get(&self, name: &str) -> Option<String> {
        self.0.iter().rev().find(|(known, value)| known == name && !value.is_empty()).map(|(_, value)| value.clone())
    }
}

/// Undoes percent-encoding; a `%` that encodes nothing stays.
fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [byte, after @ ..] = rest {
        let digit = |at: usize| after.get(at).and_then(|c| char::from(*c).to_digit(16));
        if let (b'%', Some(high), Some(low)) = (*byte, digit(0), digit(1)) {
            bytes.push((high * 16 + low) as u8);
            rest = &after[2..];
        } else {
            bytes.push(*byte);
            rest = after;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::settings::Version;

    fn place(uri: &str, state_dir: &str) -> Place {
        let version = Version::parse("nix (Nix) 2.34.8").unwrap();
        let nix = Installation { version, store_dir: "/nix/store".into(), state_dir: state_dir.into() };
        Place::of(uri, &nix, None).unwrap()
    }

    #[test]
    fn every_form_of_uri_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().to_str().unwrap();
        let spawn = |store: &str| Reach::Spawn { store: Some(store.to_owned()) };
        let socket = |path: String| Reach::Socket(path.into());
        for (uri, reach, store_dir, physical) in [
            ("auto", Reach::Spawn { store: None }, "/nix/store", Some("/nix/store")),
            ("daemon", socket(format!("{state}/daemon-socket/socket")), "/nix/store", Some("/nix/store")),
            ("unix:///run/s", socket("/run/s".into()), "/nix/store", Some("/nix/store")),
            ("/tmp/a", spawn("/tmp/a"), "/nix/store", Some("/tmp/a/nix/store")),
            ("./a/", spawn("./a/"), "/nix/store", Some("./a/nix/store")),
            ("local?root=/tmp/b", spawn("local?root=/tmp/b"), "/nix/store", Some("/tmp/b/nix/store")),
            ("local?store=/x%20y/s&real=/r", spawn("local?store=/x%20y/s&real=/r"), "/x y/s", Some("/r")),
            ("local?store=/x/s", spawn("local?store=/x/s"), "/x/s", Some("/x/s")),
            ("ssh-ng://host", spawn("ssh-ng://host"), "/nix/store", None),
        ] {
            let place = place(uri, state);
            assert_eq!(place.reach, reach, "{uri}");
            assert_eq!(place.store_dir.as_str(), store_dir, "{uri}");
            assert_eq!(place.physical.as_deref(), physical.map(Path::new), "{uri}");
        }
    }
}
