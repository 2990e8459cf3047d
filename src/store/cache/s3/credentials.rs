//! Where the keys for S3 come from: the environment, or a profile in the files that all tools for S3 share.
//!
//! The order is that of Nix and the AWS tools: a profile that the URL names; `AWS_ACCESS_KEY_ID` and
//! `AWS_SECRET_ACCESS_KEY`; the profile that `AWS_PROFILE` names, else `default`. None of them is no error: buckets that
//! everybody may read need no keys.

use std::fmt;
use std::path::{Path, PathBuf};

use super::super::login::{LoginEnv, LoginSource};

/// Bytes of a profile file that are read at most.
const MAX_FILE: u64 = 1024 * 1024;

/// The profile that is meant where nobody names one.
const DEFAULT: &str = "default";

/// The keys of one user of S3. `Debug` shows nothing of them.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    /// Which user; goes along with every request, but is not shown either.
    pub(super) key_id: String,
    /// Signs the requests and never leaves this machine.
    pub(super) secret: String,
    /// Goes along where the keys are valid for some hours only.
    pub(super) session: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// Why a profile that was asked for is of no use. Says nothing of what is in it.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The file cannot be read.
    #[error("cannot read '{}'", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No file has the profile that somebody named.
    #[error("no profile '{name}' with keys in {}", files(looked))]
    Missing {
        /// The profile.
        name: String,
        /// The files that were looked into.
        looked: Vec<PathBuf>,
    },
    /// The profile says how to get keys from elsewhere.
    #[error("the profile '{name}' in '{}' has no keys of its own but '{word}', which drover does not do", path.display())]
    Elsewhere {
        /// The profile.
        name: String,
        /// The file.
        path: PathBuf,
        /// What it has instead.
        word: String,
    },
    /// One half of a pair of keys.
    #[error("{place} has {has} but not {lacks}")]
    Half {
        /// The environment, or which profile in which file.
        place: String,
        /// What is there.
        has: &'static str,
        /// What is not.
        lacks: &'static str,
    },
}

fn files(paths: &[PathBuf]) -> String {
    let shown: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    if shown.is_empty() { "any file (HOME is not set)".to_owned() } else { shown.join(" or ") }
}

/// The keys that there are, and where they are from.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) credentials: Option<Credentials>,
    pub(super) source: LoginSource,
}

/// Looks for keys; `profile` is the one that the URL names.
pub(super) fn find(profile: Option<&str>, env: &LoginEnv) -> Result<Found, ProfileError> {
    let found = |credentials, source| Found { credentials: Some(credentials), source };
    if profile.is_none()
        && let Some(credentials) = of_env(env)?
    {
        return Ok(found(credentials, LoginSource::Variable(KEY_ID)));
    }
    let named = profile.or(env.get("AWS_PROFILE"));
    let name = named.unwrap_or(DEFAULT);
    let looked = places(env);
    for (place, path) in &looked {
        let Some(text) = read(path)? else { continue };
        let at = || format!("the profile '{name}' in '{}'", path.display());
        match of_profile(&text, *place, name) {
            Some(profile) => match profile.credentials(at)? {
                Some(credentials) => {
                    return Ok(found(credentials, LoginSource::Profile { name: name.to_owned(), path: path.clone() }));
                }
                None => profile.is_elsewhere(name, path)?,
            },
            None => continue,
        }
    }
    let looked: Vec<PathBuf> = looked.into_iter().map(|(_, path)| path).collect();
    if named.is_some() {
        return Err(ProfileError::Missing { name: name.to_owned(), looked });
    }
    let source =
        LoginSource::Nowhere { looked: format!("neither {KEY_ID} nor a default profile in {}", files(&looked)) };
    Ok(Found { credentials: None, source })
}

const KEY_ID: &str = "AWS_ACCESS_KEY_ID";
const SECRET: &str = "AWS_SECRET_ACCESS_KEY";
const SESSION: &str = "AWS_SESSION_TOKEN";

fn of_env(env: &LoginEnv) -> Result<Option<Credentials>, ProfileError> {
    let half = |has, lacks| ProfileError::Half { place: "the environment".to_owned(), has, lacks };
    match (env.get(KEY_ID), env.get(SECRET)) {
        (Some(key_id), Some(secret)) => Ok(Some(Credentials {
            key_id: key_id.to_owned(),
            secret: secret.to_owned(),
            session: env.get(SESSION).map(str::to_owned),
        })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(half(KEY_ID, SECRET)),
        (None, Some(_)) => Err(half(SECRET, KEY_ID)),
    }
}

/// Which of the two files: their section names differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `[NAME]`.
    Credentials,
    /// `[profile NAME]`, but `[default]`.
    Config,
}

fn places(env: &LoginEnv) -> Vec<(Kind, PathBuf)> {
    let file = |variable: &str, name: &str| match env.get(variable) {
        Some(path) => Some(PathBuf::from(path)),
        None => env.get("HOME").map(|home| Path::new(home).join(".aws").join(name)),
    };
    let credentials = file("AWS_SHARED_CREDENTIALS_FILE", "credentials").map(|path| (Kind::Credentials, path));
    let config = file("AWS_CONFIG_FILE", "config").map(|path| (Kind::Config, path));
    credentials.into_iter().chain(config).collect()
}

fn read(path: &Path) -> Result<Option<String>, ProfileError> {
    use std::io::Read as _;
    let mut text = Vec::new();
    match std::fs::File::open(path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut text)) {
        Ok(_) => Ok(Some(String::from_utf8_lossy(&text).into_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ProfileError::Read { path: path.to_owned(), source }),
    }
}

/// What a profile says of keys.
#[derive(Default)]
struct Profile {
    key_id: Option<String>,
    secret: Option<String>,
    session: Option<String>,
    /// A word that says to get them elsewhere.
    elsewhere: Option<String>,
}

impl Profile {
    fn credentials(&self, place: impl Fn() -> String) -> Result<Option<Credentials>, ProfileError> {
        let half = |has, lacks| ProfileError::Half { place: place(), has, lacks };
        match (&self.key_id, &self.secret) {
            (Some(key_id), Some(secret)) => {
                Ok(Some(Credentials { key_id: key_id.clone(), secret: secret.clone(), session: self.session.clone() }))
            }
            (None, None) => Ok(None),
            (Some(_), None) => Err(half("aws_access_key_id", "aws_secret_access_key")),
            (None, Some(_)) => Err(half("aws_secret_access_key", "aws_access_key_id")),
        }
    }

    fn is_elsewhere(&self, name: &str, path: &Path) -> Result<(), ProfileError> {
        match &self.elsewhere {
            Some(word) => {
                Err(ProfileError::Elsewhere { name: name.to_owned(), path: path.to_owned(), word: word.clone() })
            }
            None => Ok(()),
        }
    }
}

/// The section of this profile: `key = value` lines, `#` and `;` begin comments, indented lines belong to the key above
/// them and are of no interest.
fn of_profile(text: &str, kind: Kind, name: &str) -> Option<Profile> {
    let is_ours = |section: &str| {
        let mut words = section.split_whitespace();
        match (kind, words.next(), words.next()) {
            (Kind::Config, Some("profile"), Some(word)) => word == name,
            (Kind::Config, Some(word), None) => word == DEFAULT && name == DEFAULT,
            (Kind::Credentials, Some(word), None) => word == name,
            _ => false,
        }
    };
    let (mut profile, mut inside) = (None, false);
    for line in text.lines() {
        if let Some(section) = line.trim().strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            inside = is_ours(section);
            if inside {
                profile.get_or_insert_with(Profile::default);
            }
            continue;
        }
        let indented = line.starts_with([' ', '\t']);
        let Some((key, value)) = line.split_once('=').filter(|_| inside && !indented && !line.starts_with(['#', ';']))
        else {
            continue;
        };
        let profile = profile.get_or_insert_with(Profile::default);
        let value = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
        match key.trim() {
            "aws_access_key_id" => profile.key_id = value,
            "aws_secret_access_key" => profile.secret = value,
            "aws_session_token" => profile.session = value,
            word @ ("credential_process" | "role_arn" | "sso_session" | "sso_start_url" | "source_profile") => {
                profile.elsewhere = Some(word.to_owned());
            }
            _ => {}
        }
    }
    profile
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREDENTIALS: &str = "# mine\n[default]\naws_access_key_id = AKDEFAULT\naws_secret_access_key=se=cret\n\
                               s3 =\n  aws_session_token = nested\n\n[ci]\naws_access_key_id=AKCI\n\
                               aws_secret_access_key = ci\naws_session_token = token\n[half]\naws_access_key_id = x\n";
    const CONFIG: &str = "[default]\nregion = x\n[profile dev]\naws_access_key_id = AKDEV\n\
                          aws_secret_access_key = dev\n[profile sso]\nsso_session = corp\n[dev]\naws_access_key_id = no\n";

    /// `KEY-ID SECRET SESSION, source` of what is found, or the error.
    fn found(profile: Option<&str>, env: &[(&str, &str)]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_string_lossy().into_owned();
        std::fs::create_dir(dir.path().join(".aws")).unwrap();
        std::fs::write(dir.path().join(".aws/credentials"), CREDENTIALS).unwrap();
        std::fs::write(dir.path().join(".aws/config"), CONFIG).unwrap();
        let env = env.iter().copied().chain([("HOME", home.as_str())]).collect();
        let text = match find(profile, &env) {
            Ok(Found { credentials: Some(keys), source }) => {
                format!("{} {} {}, {source}", keys.key_id, keys.secret, keys.session.unwrap_or_default())
            }
            Ok(Found { credentials: None, source }) => format!("nothing, {source}"),
            Err(error) => error.to_string(),
        };
        text.replace(&home, "~")
    }

    #[test]
    fn the_nearest_keys_win() {
        let env = [("AWS_ACCESS_KEY_ID", "AKENV"), ("AWS_SECRET_ACCESS_KEY", "env")];
        assert_eq!(found(None, &env), "AKENV env , login from: AWS_ACCESS_KEY_ID");
        let ci = "AKCI ci token, login from: profile 'ci' in ~/.aws/credentials";
        assert_eq!(found(Some("ci"), &env), ci);
        assert_eq!(found(None, &[("AWS_PROFILE", "ci")]), ci);
        assert_eq!(found(None, &[]), "AKDEFAULT se=cret , login from: profile 'default' in ~/.aws/credentials");
        assert_eq!(found(Some("dev"), &[]), "AKDEV dev , login from: profile 'dev' in ~/.aws/config");
    }

    #[test]
    fn what_cannot_be_used_is_told_with_its_place() {
        assert_eq!(found(Some("gone"), &[]), "no profile 'gone' with keys in ~/.aws/credentials or ~/.aws/config");
        assert!(
            found(Some("half"), &[]).ends_with("/credentials' has aws_access_key_id but not aws_secret_access_key")
        );
        assert!(found(Some("sso"), &[]).contains("has no keys of its own but 'sso_session'"));
        let half = found(None, &[("AWS_ACCESS_KEY_ID", "x")]);
        assert_eq!(half, "the environment has AWS_ACCESS_KEY_ID but not AWS_SECRET_ACCESS_KEY");
        let nothing = found(None, &[("AWS_SHARED_CREDENTIALS_FILE", "/no/such"), ("AWS_CONFIG_FILE", "/none")]);
        assert!(nothing.starts_with("nothing, no login found: neither AWS_ACCESS_KEY_ID nor"), "{nothing}");
    }

    #[test]
    fn keys_are_never_shown() {
        let keys = Credentials { key_id: "AK".into(), secret: "s".into(), session: None };
        assert_eq!(format!("{keys:?}"), "Credentials(…)");
    }
}
