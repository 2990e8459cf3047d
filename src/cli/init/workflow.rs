//! What a workflow has to know, whatever the forge: which drover it takes, and which secrets.

use std::io;

use sha2::{Digest as _, Sha256};

use crate::config::{PushWhen, Settings};
use crate::error::{Error, Fault, Result};
use crate::nix_compat::hex;

/// Where drover is published.
const HOME: &str = env!("CARGO_PKG_REPOSITORY");

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Set while a release is compiled: what is published is then this very executable.
const RELEASE: Option<&str> = option_env!("DROVER_RELEASE");

/// See the module's page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Workflow {
    pub(super) binary: Binary,
    /// The default branch.
    pub(super) branch: String,
    /// Variables that hold secrets, by the names that drover and Nix know.
    pub(super) secrets: Vec<&'static str>,
    /// Some cache of drover.toml is pushed to.
    pub(super) pushes: bool,
    /// One job plans, and others build rows of the plan.
    pub(super) matrix: bool,
}

/// How a job comes by drover.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Binary {
    /// It downloads one that was released, and looks whether it is the one that is meant.
    Released {
        url: String,
        /// In hex.
        sha256: String,
    },
    /// It lets Nix build it, or fetch what Nix has built.
    Flake { reference: String, why: String },
}

impl Binary {
    /// As `--sha256` says; else what is running, if that was released; else Nix has to build it.
    pub(super) fn choose(sha256: Option<&str>) -> Result<Self> {
        let own = match (sha256, RELEASE) {
            (None, Some(_)) => Some(own_hash()?),
            _ => None,
        };
        Self::of(sha256, own)
    }

    fn of(sha256: Option<&str>, own: Option<String>) -> Result<Self> {
        let is_hash = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match (sha256, own) {
            (Some(text), _) if !is_hash(text) => {
                Err(Error::usage(format!("--sha256 '{text}': 64 hexadecimal digits are wanted"))
                    .hint("sha256sum drover    or the file of sums beside the release"))
            }
            (Some(text), _) => Ok(Self::released(text.to_ascii_lowercase())),
            (None, Some(own)) => Ok(Self::released(own)),
            (None, None) => Ok(Self::Flake {
                reference: format!("{}/v{VERSION}", HOME.replacen("https://github.com/", "github:", 1)),
                why: "this drover was not released, so that no hash of it is known: the workflow lets Nix build it"
                    .to_owned(),
            }),
        }
    }

    fn released(sha256: String) -> Self {
        Self::Released { url: format!("{HOME}/releases/download/v{VERSION}/drover-{}-linux", machine()), sha256 }
    }

    /// What begins a command.
    pub(super) fn command(&self) -> &'static str {
        match self {
            Self::Released { .. } => "drover",
            Self::Flake { .. } => "nix run \"$DROVER_FLAKE\" --",
        }
    }

    /// The variables that say which drover it is, as lines of YAML at so many columns, and why it is that one.
    pub(super) fn variables(&self, columns: usize) -> String {
        let values = match self {
            Self::Released { url, sha256 } => {
                vec![format!("DROVER_URL: {url}"), format!("DROVER_SHA256: \"{sha256}\"")]
            }
            Self::Flake { reference, .. } => vec![format!("DROVER_FLAKE: {reference}")],
        };
        indented(self.remark().iter().map(|line| (*line).to_owned()).chain(values), columns)
    }

    fn remark(&self) -> &'static [&'static str] {
        match self {
            Self::Released { .. } => &["# A drover that was released, and its sha256."],
            Self::Flake { .. } => &[
                "# Nix builds this drover, or takes it from a cache: the one that wrote this was not a released one, so that",
                "# there is no hash to hold a download against. `drover init --ci … --sha256 HEX` writes the quicker form.",
            ],
        }
    }

    /// The commands after which `drover` can be typed, with `dir` on the `PATH` by other means.
    pub(super) fn get(&self, dir: &str) -> Vec<String> {
        match self {
            Self::Released { .. } => vec![
                format!("mkdir -p \"{dir}\""),
                format!(
                    "curl --fail --silent --show-error --location --retry 3 --output \"{dir}/drover\" \"$DROVER_URL\""
                ),
                format!("echo \"$DROVER_SHA256  {dir}/drover\" | sha256sum --check"),
                format!("chmod +x \"{dir}/drover\""),
            ],
            Self::Flake { .. } => Vec::new(),
        }
    }
}

/// Releases and runners are of the machine that this is.
pub(super) fn machine() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "aarch64",
        _ => "x86_64",
    }
}

/// The hash of the running executable, in hex.
fn own_hash() -> Result<String> {
    let read = || -> io::Result<String> {
        let mut file = std::fs::File::open(std::env::current_exe()?)?;
        let mut hash = Sha256::new();
        io::copy(&mut file, &mut hash)?;
        Ok(hex::encode(&hash.finalize()))
    };
    read().map_err(|error| {
        Error::new(Fault::Unreachable, format!("cannot read this drover: {error}"))
            .hint("drover init --ci FORGE --sha256 HEX")
    })
}

/// The variables with which jobs log in where drover.toml says.
pub(super) fn secrets(settings: &Settings) -> Vec<&'static str> {
    let mut names = Vec::new();
    let pushed = settings.caches.iter().filter(|cache| cache.push != PushWhen::No);
    for cache in pushed.filter(|cache| cache.token_file.is_none()) {
        match cache.url.split(':').next() {
            Some("cachix") => names.push("CACHIX_AUTH_TOKEN"),
            Some("s3") => names.extend(["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]),
            _ => {}
        }
    }
    if settings.builders.iter().any(|builder| !builder.is_local()) {
        names.extend(["DROVER_SSH_KEY", "DROVER_SSH_KNOWN_HOSTS"]);
    }
    names.dedup();
    names
}

/// Lines at so many columns.
pub(super) fn indented<S: AsRef<str>>(lines: impl IntoIterator<Item = S>, columns: usize) -> String {
    let lines = lines.into_iter().map(|line| format!("{:columns$}{}", "", line.as_ref()));
    lines.collect::<Vec<_>>().join("\n")
}

/// The template with each `@NAME@` replaced. A line that holds nothing else goes where its value is empty.
pub(super) fn filled(template: &str, values: &[(&str, &str)]) -> String {
    let mut text = template.to_owned();
    for (name, value) in values {
        let mark = format!("@{name}@");
        if value.is_empty() {
            text = text.replace(&format!("{mark}\n"), "");
        }
        text = text.replace(&mark, value);
    }
    text
}
