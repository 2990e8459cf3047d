//! Secrets stay where they are: each place that drover takes one from has a secret planted in it, and afterwards all
//! that was printed, all files that are left, and all arguments of processes meanwhile are searched for it.
//!
//! A new place is one line of the table at the end, and the function that plants it.
#![expect(clippy::disallowed_methods, reason = "what a run inherits and what a spy sees is what is tested")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;

use crate::support::attic_server::AtticServer;
use crate::support::cachix::Cachix;
use crate::support::fake_cache::FakeCache;
use crate::support::niks3_server::Niks3Server;
use crate::support::nix::{Lab, newest};
use crate::support::site::{Ran, Site, finish};

const FLAKE: &str = r#"{
  outputs = _: {
    packages.x86_64-linux.app = derivation {
      name = "app-1.0"; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo app > $out" ];
    };
  };
}
"#;

/// Tries again at once.
const QUICK: &str = "retry-attempts=2&retry-delay=1&retry-delay-rate-limited=1&retry-max-delay=5";

/// Somebody who wants to see the secret.
trait Server {
    /// The secret was good for something.
    fn was_used(&self) -> bool;
    /// From now on the secret is good for nothing.
    fn refuse(&self);
}

impl Server for FakeCache {
    fn was_used(&self) -> bool {
        self.uploads().len() > 1
    }

    fn refuse(&self) {
        self.token("another");
    }
}

impl Server for Cachix {
    fn was_used(&self) -> bool {
        !self.names().is_empty()
    }

    fn refuse(&self) {
        self.state().tokens.clear();
        self.state().keys.truncate(1);
    }
}

impl Server for AtticServer {
    fn was_used(&self) -> bool {
        !self.state.names().is_empty()
    }

    fn refuse(&self) {
        self.state.token(Some("another"));
    }
}

impl Server for Niks3Server {
    fn was_used(&self) -> bool {
        !self.bucket.names().is_empty()
    }

    fn refuse(&self) {
        self.state.token(Some("another"));
    }
}

/// A secret that has been planted.
struct Planted {
    server: Box<dyn Server>,
    /// What drover.toml says.
    toml: String,
    env: Vec<(&'static str, String)>,
    /// Files that hold it by right; `drover.toml` may always.
    files: Vec<PathBuf>,
    /// What must be found nowhere: the secret, and what stands for it.
    secrets: Vec<String>,
}

impl Planted {
    fn new(server: impl Server + 'static, toml: String, secrets: &[&str]) -> Self {
        let secrets = secrets.iter().map(|secret| (*secret).to_owned()).collect();
        Self { server: Box::new(server), toml, env: Vec::new(), files: Vec::new(), secrets }
    }

    fn env(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.env.push((name, value.into()));
        self
    }

    fn file(mut self, path: PathBuf) -> Self {
        self.files.push(path);
        self
    }
}

/// A word that stands nowhere else.
fn secret() -> String {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    format!("hunter2{:x}x{:x}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed) + 0xabc)
}

/// `[cache.acme]` that is pushed to.
fn cache(url: &str, more: &str) -> String {
    format!("[cache.acme]\nurl = \"{url}\"\npush = true\n{more}\n")
}

fn write(path: PathBuf, text: &str) -> PathBuf {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    path
}

/// A plain cache that takes uploads with this `Authorization`.
fn plain(site: &Site, authorization: &str) -> FakeCache {
    let dir = site.lab.path("served");
    fs::create_dir_all(&dir).unwrap();
    let server = FakeCache::start(&dir).writable();
    server.writable_by(authorization);
    server
}

fn basic(login: &str) -> String {
    format!("Basic {}", STANDARD.encode(login))
}

/// A key, as Nix writes it, and as Cachix does.
fn key(seed: &str) -> (String, String, String) {
    let mut bytes = [7; 32];
    for (byte, of) in bytes.iter_mut().zip(seed.bytes().rev()) {
        *byte = of;
    }
    let key = SigningKey::from_bytes(&bytes);
    let payload = STANDARD.encode(key.to_keypair_bytes());
    (format!("acme-1:{payload}"), payload, STANDARD.encode(key.verifying_key().as_bytes()))
}

fn token_file(site: &Site) -> Planted {
    let token = secret();
    let server = plain(site, &format!("Bearer {token}"));
    let file = site.lab.write("token", &token);
    let toml = cache(&format!("{}?{QUICK}", server.url), &format!("token-file = \"{}\"", file.display()));
    Planted::new(server, toml, &[&token]).file(file)
}

fn login_in_url(site: &Site) -> Planted {
    let password = secret();
    let login = basic(&format!("me:{password}"));
    let server = plain(site, &login);
    let toml = cache(&format!("{}?{QUICK}", server.url.replace("://", &format!("://me:{password}@"))), "");
    Planted::new(server, toml, &[&password, &login[6..]])
}

fn login_in_variable(site: &Site) -> Planted {
    let password = secret();
    let login = basic(&format!("me:{password}"));
    let server = plain(site, &login);
    let url = format!("{}?{QUICK}", server.url.replace("://", &format!("://me:{password}@")));
    Planted::new(server, String::new(), &[&password, &login[6..]]).env("DROVER_PUSH_TO", url)
}

fn netrc(site: &Site) -> Planted {
    let password = secret();
    let login = basic(&format!("me:{password}"));
    let server = plain(site, &login);
    let file = site.lab.write("netrc", &format!("machine 127.0.0.1 login me password {password}\n"));
    site.lab.configure(&format!("netrc-file = {}", file.display()));
    let toml = cache(&format!("{}?{QUICK}", server.url), "");
    Planted::new(server, toml, &[&password, &login[6..]]).file(file)
}

fn secret_key(site: &Site) -> Planted {
    let (named, payload, _) = key(&secret());
    let dir = site.lab.path("served");
    fs::create_dir_all(&dir).unwrap();
    let server = FakeCache::start(&dir).writable();
    let file = site.lab.write("key", &named);
    let toml = cache(&format!("{}?{QUICK}", server.url), &format!("secret-key = \"{}\"", file.display()));
    Planted::new(server, toml, &[&payload[..40]]).file(file)
}

fn share(site: &Site) -> Planted {
    let (token, (named, payload, _)) = (secret(), key(&secret()));
    let server = plain(site, &format!("Bearer {token}"));
    let (file, key) = (site.lab.write("token", &token), site.lab.write("key", &named));
    let toml = format!(
        "[share]\nurl = \"{}\"\ntoken-file = \"{}\"\nsecret-key = \"{}\"\n{}",
        server.url,
        file.display(),
        key.display(),
        cache(&format!("{}?{QUICK}", server.url), &format!("token-file = \"{}\"", file.display()))
    );
    Planted::new(server, toml, &[&token, &payload[..40]]).file(file).file(key)
}

/// A token of Nix's own, which is in its settings.
fn nix_access_token(site: &Site) -> Planted {
    let token = secret();
    let mut planted = token_file(site).env("NIX_CONFIG", format!("access-tokens = github.com={token}"));
    planted.secrets.push(token);
    planted
}

/// Cachix with this token, and its URL.
fn cachix(site: &Site, token: &str) -> (Cachix, String) {
    let server = Cachix::start(&site.lab.store_dir(), token);
    let url = format!("cachix:acme?host={}&{QUICK}", server.host);
    (server, url)
}

fn cachix_variable(site: &Site) -> Planted {
    let token = secret();
    let (server, url) = cachix(site, &token);
    Planted::new(server, cache(&url, ""), &[&token]).env("CACHIX_AUTH_TOKEN", &token)
}

fn cachix_token_file(site: &Site) -> Planted {
    let token = secret();
    let (server, url) = cachix(site, &token);
    let file = site.lab.write("token", &token);
    let toml = cache(&url, &format!("token-file = \"{}\"", file.display()));
    Planted::new(server, toml, &[&token]).file(file)
}

fn cachix_signing_key(site: &Site) -> Planted {
    let (token, (_, payload, public)) = (secret(), key(&secret()));
    let (server, url) = cachix(site, &token);
    server.state().keys.push(format!("acme.cachix.org-2:{public}"));
    let planted = Planted::new(server, cache(&url, ""), &[&token, &payload[..40]]);
    planted.env("CACHIX_AUTH_TOKEN", &token).env("CACHIX_SIGNING_KEY", &payload)
}

/// Of a private cache, which is read with the token, too.
fn cachix_configuration(site: &Site) -> Planted {
    let (token, (_, payload, public)) = (secret(), key(&secret()));
    let (server, url) = cachix(site, &token);
    server.state().keys.push(format!("acme.cachix.org-2:{public}"));
    server.state().public = false;
    let text = format!(
        "{{ authToken = \"{token}\", hostname = \"https://cachix.org\"\n\
         , binaryCaches = [ {{ name = \"acme\", secretKey = \"{payload}\" }} ] }}"
    );
    let file = write(site.lab.path("config/cachix/cachix.dhall"), &text);
    let secrets = [&token, &payload[..40], &STANDARD.encode(format!(":{token}"))];
    Planted::new(server, cache(&url, ""), &secrets).file(file)
}

/// Attic's server, with a key of its own.
fn attic(site: &Site, token: &str) -> AtticServer {
    AtticServer::start("acme", &site.lab.store_dir(), &site.key("acme-1").secret, token)
}

fn attic_configuration(site: &Site) -> Planted {
    let token = secret();
    let server = attic(site, &token);
    let file = write(site.lab.path("config/attic/config.toml"), &server.config(&token));
    Planted::new(server, cache(&format!("attic:ci:acme?{QUICK}"), ""), &[&token]).file(file)
}

fn attic_token_file(site: &Site) -> Planted {
    let token = secret();
    let server = attic(site, &token);
    let file = site.lab.write("token", &token);
    let url = format!("attic:{}acme?{QUICK}", server.endpoint);
    Planted::new(server, cache(&url, &format!("token-file = \"{}\"", file.display())), &[&token]).file(file)
}

/// niks3's server, with a key of its own.
fn niks3(site: &Site, token: &str) -> (Niks3Server, String) {
    let server = Niks3Server::start(&site.lab.store_dir(), Some(&site.key("acme-1").secret), token);
    let url = format!("niks3:{}?{QUICK}", server.url);
    (server, url)
}

fn niks3_variable(site: &Site) -> Planted {
    let token = secret();
    let (server, url) = niks3(site, &token);
    let file = site.lab.write("niks3-token", &token);
    let value = file.display().to_string();
    Planted::new(server, cache(&url, ""), &[&token]).env("NIKS3_AUTH_TOKEN_FILE", value).file(file)
}

fn niks3_configuration(site: &Site) -> Planted {
    let token = secret();
    let (server, url) = niks3(site, &token);
    let file = write(site.lab.path("config/niks3/auth-token"), &token);
    Planted::new(server, cache(&url, ""), &[&token]).file(file)
}

/// A bucket of a server that looks at no signature.
fn bucket(site: &Site) -> (FakeCache, String) {
    let dir = site.lab.path("served");
    fs::create_dir_all(dir.join("bucket")).unwrap();
    let server = FakeCache::start(&dir).writable();
    let url = format!("s3://bucket?endpoint={}&region=eu-west-1&addressing-style=path&{QUICK}", server.url);
    (server, url)
}

fn s3_variables(site: &Site) -> Planted {
    let (key, session) = (secret(), secret());
    let (server, url) = bucket(site);
    let planted = Planted::new(server, cache(&url, ""), &[&key, &session]);
    let planted = planted.env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE").env("AWS_SECRET_ACCESS_KEY", &key);
    planted.env("AWS_SESSION_TOKEN", &session)
}

fn s3_profile(site: &Site) -> Planted {
    let key = secret();
    let (server, url) = bucket(site);
    let text = format!("[acme]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = {key}\n");
    let file = write(site.lab.path("home/.aws/credentials"), &text);
    Planted::new(server, cache(&url, ""), &[&key]).env("AWS_PROFILE", "acme").file(file)
}

/// The arguments of all processes of this machine, looked at again and again until told to stop: those that hold one
/// of the secrets.
fn spy(secrets: &[String], stop: &AtomicBool) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    while !stop.load(Ordering::Relaxed) {
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(arguments) = fs::read(entry.path().join("cmdline")) else { continue };
            if secrets.iter().any(|secret| holds(&arguments, secret)) {
                seen.insert(String::from_utf8_lossy(&arguments).replace('\0', " "));
            }
        }
        // Commands that begin and end in between are few: each takes Nix longer than this to start.
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    seen
}

fn holds(bytes: &[u8], secret: &str) -> bool {
    bytes.windows(secret.len()).any(|window| window == secret.as_bytes())
}

/// All files below a directory, but those that hold the secret by right.
fn files(dir: &Path, planted: &Planted) -> Vec<PathBuf> {
    let entries = walkdir::WalkDir::new(dir).into_iter().flatten().filter(|entry| entry.file_type().is_file());
    // The flake is in the store, too.
    let is_config = |path: &Path| path.file_name().is_some_and(|name| name.as_bytes().ends_with(b"drover.toml"));
    entries
        .map(|entry| entry.path().to_owned())
        .filter(|path| !is_config(path) && !planted.files.contains(path))
        .collect()
}

/// Runs drover in every way that might tell something.
fn rounds(site: &Site, planted: &Planted) -> Vec<Ran> {
    let events = site.lab.path("events.jsonl").display().to_string();
    let commands: [&[&str]; 6] = [
        &["run", "-vv", "--json", "--events", &events],
        &["push", "--json"],
        &["doctor"],
        &["doctor", "--show-config", "--json"],
        &["doctor", "--show-config"],
        &["report", "--json"],
    ];
    let run = |args: &&[&str]| {
        let mut command = site.command(args);
        let inherited = std::env::vars().map(|(name, _)| name);
        for name in inherited.filter(|name| ["AWS_", "CACHIX_", "NIKS3_"].iter().any(|kind| name.starts_with(kind))) {
            command.env_remove(name);
        }
        command.env("DROVER_LOG", "trace").env("RUST_BACKTRACE", "full");
        command.envs(planted.env.iter().map(|(name, value)| (name, value)));
        finish(command, args)
    };
    commands.iter().map(run).collect()
}

/// The secret is used, and refused, and told nowhere.
fn nothing_tells(plant: fn(&Site) -> Planted) {
    let site = Site::of(Lab::plain(&newest()), FLAKE);
    let planted = plant(&site);
    site.edit("drover.toml", &planted.toml);
    let stop = AtomicBool::new(false);
    let (rans, seen) = std::thread::scope(|scope| {
        let spy = scope.spawn(|| spy(&planted.secrets, &stop));
        let mut rans = rounds(&site, &planted);
        rans[0].expect(0);
        assert!(planted.server.was_used(), "nothing was pushed\n{}", rans[0].stderr);
        planted.server.refuse();
        rans.extend(rounds(&site, &planted));
        stop.store(true, Ordering::Relaxed);
        (rans, spy.join().unwrap())
    });
    assert_eq!(seen, BTreeSet::new(), "in the arguments of processes");
    for secret in &planted.secrets {
        for ran in &rans {
            let told = holds(&ran.stdout, secret) || holds(ran.stderr.as_bytes(), secret);
            assert!(!told, "'{secret}' was printed\n{}\n{}", ran.out(), ran.stderr);
        }
        for file in files(&site.lab.path(""), &planted) {
            let Ok(bytes) = fs::read(&file) else { continue };
            assert!(!holds(&bytes, secret), "'{secret}' is in {}", file.display());
        }
    }
    let logged = |ran: &Ran| ran.stderr.contains("TRACE") || ran.stderr.contains("DEBUG");
    assert!(logged(&rans[0]), "there was no log\n{}", rans[0].stderr);
}

#[test]
fn what_is_told_is_found() {
    let site = Site::of(Lab::plain(&newest()), FLAKE);
    let planted = token_file(&site);
    let by_right = files(&site.lab.path(""), &planted);
    let told = site.lab.write("log/told", &format!("level=trace {}\n", planted.secrets[0]));
    let found: Vec<PathBuf> =
        files(&site.lab.path(""), &planted).into_iter().filter(|file| !by_right.contains(file)).collect();
    assert_eq!(found.as_slice(), std::slice::from_ref(&told));
    assert!(holds(&fs::read(told).unwrap(), &planted.secrets[0]));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let spy = scope.spawn(|| spy(&planted.secrets, &stop));
        let mut command = std::process::Command::new("sh");
        let script = "sleep 0.5; exit 0";
        command.args(["-c", script, &planted.secrets[0]]).status().unwrap();
        stop.store(true, Ordering::Relaxed);
        let seen = spy.join().unwrap();
        assert!(seen.iter().any(|arguments| arguments.contains(script)), "{seen:?}");
    });
}

/// Each place that a secret is taken from is a test.
macro_rules! places {
    ($($place:ident)*) => {
        mod places {
            $(#[test]
            fn $place() {
                super::nothing_tells(super::$place);
            })*
        }
    };
}

places! {
    token_file
    login_in_url
    login_in_variable
    netrc
    secret_key
    share
    nix_access_token
    cachix_variable
    cachix_token_file
    cachix_signing_key
    cachix_configuration
    attic_configuration
    attic_token_file
    niks3_variable
    niks3_configuration
    s3_variables
    s3_profile
}
