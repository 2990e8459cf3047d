//! Caches of all kinds on this machine, new and empty.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::attic_server::AtticServer;
use super::bucket::{Bucket, KEY_ID, SECRET};
use super::cachix::Cachix;
use super::niks3_server::Niks3Server;
use super::nix::Lab;
use super::server::Server;

/// The kinds.
pub(crate) const KINDS: [&str; 6] = ["file", "http", "s3", "cachix", "attic", "niks3"];

/// What services take for a login here.
const TOKEN: &str = "t0ken";

/// One cache. It ends when dropped.
pub(crate) enum Target {
    File(PathBuf),
    Http(Server),
    S3(Bucket),
    Cachix(Cachix),
    Attic(AtticServer),
    Niks3(Niks3Server),
}

impl Target {
    /// An empty cache of this kind for the lab's store; its files, if it has any, are in this directory, which is not
    /// there yet.
    pub(crate) fn start(kind: &str, lab: &Lab, dir: &Path) -> Self {
        let (store_dir, key) = (lab.store_dir(), lab.work().join("service.key"));
        if !key.exists() {
            lab.write("service.key", &lab.run("nix", &["key", "generate-secret", "--key-name", "service-1"]));
        }
        match kind {
            "file" => Self::File(dir.to_owned()),
            "http" => Self::Http(Server::start(dir, Duration::ZERO)),
            "s3" => Self::S3(Bucket::serve(dir, true)),
            "cachix" => Self::Cachix(Cachix::start(&store_dir, TOKEN)),
            "attic" => Self::Attic(AtticServer::start("acme", &store_dir, &key, TOKEN)),
            "niks3" => Self::Niks3(Niks3Server::start(&store_dir, Some(&key), TOKEN)),
            other => panic!("no cache of kind {other}"),
        }
    }

    /// What `--push-to` is given.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::File(dir) => format!("file://{}", dir.display()),
            Self::Http(server) => server.url.clone(),
            Self::S3(bucket) => bucket.url(""),
            Self::Cachix(server) => format!("cachix:acme?host={}", server.host),
            Self::Attic(server) => format!("attic:{}acme", server.endpoint.replace("://", &format!("://me:{TOKEN}@"))),
            Self::Niks3(server) => format!("niks3:{}", server.url),
        }
    }

    /// A service answers so much later from now on.
    pub(crate) fn is_far(&self, away: Duration) {
        match self {
            Self::Cachix(server) => server.state().latency = away,
            Self::Attic(server) => server.state.control.delay(away),
            Self::File(_) | Self::Http(_) | Self::S3(_) | Self::Niks3(_) => panic!("it is no service of this sort"),
        }
    }

    /// Where logins come from.
    pub(crate) fn env(lab: &Lab) -> [(&'static str, String); 4] {
        let file = lab.write("token", TOKEN);
        [
            ("CACHIX_AUTH_TOKEN", TOKEN.to_owned()),
            ("NIKS3_AUTH_TOKEN_FILE", file.display().to_string()),
            ("AWS_ACCESS_KEY_ID", KEY_ID.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.to_owned()),
        ]
    }

    /// It has so many paths, and nobody did anything odd to it.
    pub(crate) fn assert_sound(&self, paths: usize) {
        let records = |dir: &Path| {
            let files = std::fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
            files.filter(|file| file.extension().is_some_and(|end| end == "narinfo")).count()
        };
        let there = match self {
            Self::File(dir) => records(dir),
            Self::Http(server) => {
                server.assert_in_order(paths);
                paths
            }
            Self::S3(bucket) => records(&bucket.dir()),
            Self::Cachix(server) => {
                server.expect_sound();
                server.names().len()
            }
            Self::Attic(server) => {
                assert!(server.state.odd().is_empty(), "{:?}", server.state.odd());
                server.state.names().len()
            }
            Self::Niks3(server) => {
                assert!(server.bucket.odd().is_empty(), "{:?}", server.bucket.odd());
                server.bucket.names().len()
            }
        };
        assert_eq!(there, paths);
    }
}
