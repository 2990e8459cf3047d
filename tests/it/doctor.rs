//! `drover doctor` finds faults that are planted in a real environment: real Nix, real servers on loopback, real
//! repositories, real file systems and users. Each finding has its area and severity, and ends in something to type.
#![expect(clippy::disallowed_methods, reason = "test code has to spawn drover as another user")]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::eval::{commit, git};
use crate::support::fake_cache::{FakeCache, Fault};
use crate::support::nix::{Lab, Nix, each_nix, newest};
use crate::support::program::write_program;
use crate::support::site::{Key, Ran, Site, finish};

const FLAKE: &str = "{ outputs = _: { packages = { }; }; }\n";

/// The user and group `nobody`.
const NOBODY: u32 = 65534;

/// Words with which commands begin. What begins otherwise has to be a line of a config file.
const COMMANDS: [&str; 22] = [
    "${EDITOR:-vi}",
    "(umask",
    "chmod",
    "curl",
    "df",
    "drover",
    "echo",
    "export",
    "getent",
    "git",
    "ls",
    "nix",
    "nix-collect-garbage",
    "nix-daemon",
    "sh",
    "ssh",
    "ssh-keyscan",
    "sudo",
    "systemctl",
    "unset",
    "mkdir",
    "id",
];

/// A site that is as it should be, with some of the settings that matter.
fn healthy(nix: &Nix) -> Site {
    let site = Site::of(Lab::plain(nix), FLAKE);
    conf(&site, "");
    site
}

/// Writes nix.conf; later lines win.
fn conf(site: &Site, more: &str) {
    site.lab.configure(&format!("sandbox = true\n{more}"));
}

/// What `drover doctor --json` says.
pub(crate) struct Examined {
    ran: Ran,
    pub(crate) document: Value,
}

impl Examined {
    pub(crate) fn of(mut command: Command) -> Self {
        command.arg("--json");
        let ran = finish(command, &["doctor", "--json"]);
        let document = ran.json();
        assert_eq!(document["version"], 1);
        assert_eq!(ran.code, Some(i32::from(document["ok"] == false)), "{document:#}");
        assert!(ran.stderr.is_empty(), "{}", ran.stderr);
        for finding in document["findings"].as_array().unwrap() {
            let text = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
            assert!(!text("message").is_empty() && !text("why").is_empty(), "{finding:#}");
            assert!(is_typed(&text("fix")), "nothing to type: {finding:#}");
        }
        Self { ran, document }
    }

    /// There has to be a finding of this area and severity whose message holds these words; gives it.
    #[track_caller]
    pub(crate) fn has(&self, area: &str, severity: &str, words: &str) -> &Value {
        let found = self.document["findings"].as_array().unwrap().iter().find(|finding| {
            finding["area"] == area
                && finding["severity"] == severity
                && finding["message"].as_str().is_some_and(|message| message.contains(words))
        });
        found.unwrap_or_else(|| panic!("no {severity} of {area} with '{words}': {:#}", self.document))
    }

    /// The same, and its fix holds these words.
    #[track_caller]
    pub(crate) fn mends(&self, area: &str, severity: &str, words: &str, fix: &str) {
        let finding = self.has(area, severity, words);
        assert!(finding["fix"].as_str().unwrap().contains(fix), "{finding:#}");
    }

    #[track_caller]
    fn is_healthy(&self) {
        assert_eq!(self.document["ok"], true, "{:#}", self.document);
        assert_eq!(self.ran.code, Some(0));
    }

    /// There is no finding of this area.
    #[track_caller]
    pub(crate) fn is_fine(&self, area: &str) {
        let found = self.document["areas"].as_array().unwrap().iter().find(|found| found["area"] == area);
        assert_eq!(found.unwrap_or_else(|| panic!("{area} was not looked at"))["ok"], true, "{:#}", self.document);
    }
}

/// A command, or a line `name = value` of a config file.
fn is_typed(fix: &str) -> bool {
    let first = fix.split_whitespace().next().unwrap_or_default();
    let key = first.chars().all(|c| c.is_ascii_lowercase() || ".-".contains(c)) && !first.is_empty();
    COMMANDS.contains(&first) || (key && fix[first.len()..].starts_with(" = "))
}

fn examine(site: &Site, args: &[&str]) -> Examined {
    Examined::of(site.command(&[&["doctor"], args].concat()))
}

/// Here, so that a server can answer meanwhile.
async fn examine_beside(command: Command) -> Examined {
    tokio::task::spawn_blocking(|| Examined::of(command)).await.unwrap()
}

/// A cache that real Nix has filled with a path signed by a key.
fn filled_cache(site: &Site, key: &Key) -> PathBuf {
    site.lab.configure("");
    let drv = site.lab.drv("hello-1.0", "echo hello > $out", "");
    let out = site.lab.run("nix-store", &["--realise", &drv]);
    let dir = site.lab.path("filled.d");
    let to = format!("file://{}?secret-key={}", dir.display(), key.secret.display());
    site.lab.run("nix", &["copy", "--to", &to, out.lines().next().unwrap()]);
    conf(site, "");
    dir
}

#[test]
fn a_healthy_site_has_no_findings() {
    each_nix(|nix| {
        let site = healthy(nix);
        let (mine, theirs) = (site.key("mine-1"), site.key("theirs-1"));
        let filled = filled_cache(&site, &theirs);
        let toml = format!(
            "[cache.mine]\nurl = 'file://{}'\npush = true\nsecret-key = '{}'\npublic-keys = ['{}']\n",
            site.cache().display(),
            mine.secret.display(),
            mine.public
        );
        fs::set_permissions(&mine.secret, fs::Permissions::from_mode(0o600)).unwrap();
        site.edit("drover.toml", &toml);
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let server = FakeCache::serve(&filled).await;
            conf(&site, &format!("substituters = {}\nextra-trusted-public-keys = {}\n", server.url, theirs.public));
            let examined = examine_beside(site.command(&["doctor"])).await;
            let findings = examined.document["findings"].as_array().unwrap();
            if !findings.is_empty() && findings.iter().all(|finding| finding["area"] == "disk") {
                println!("the disk of this machine really is nearly full, all else is healthy");
                return;
            }
            examined.is_healthy();
        });
        assert!(!site.cache().exists(), "looking at a cache does not make it");
        let text = site.drover(&["doctor", "--offline"]).out();
        assert!(text.contains("ok       git"), "{text}");
    });
}

#[test]
fn nix_itself() {
    each_nix(|nix| {
        let site = healthy(nix);
        conf(&site, "experimental-features =\nsandbox = false\nsubstitute = false\n");
        let examined = examine(&site, &[]);
        examined.mends("nix", "warning", "nix-command, flakes", "extra-experimental-features = nix-command flakes");
        examined.mends("builders", "warning", "without a sandbox", "sandbox = true");
        examined.mends("caches", "warning", "substitute is false", "substitute = true");
        conf(&site, "max-jobs = 0\n");
        examine(&site, &[]).mends("builders", "error", "there is no other builder", "drover run --max-jobs auto");
    });
}

#[test]
fn no_nix_or_an_old_one() {
    let site = healthy(&newest());
    let bin = site.lab.path("bin");
    fs::create_dir(&bin).unwrap();
    let which = |name: &str| {
        let path = std::env::var("PATH").unwrap();
        path.split(':').map(|dir| Path::new(dir).join(name)).find(|file| file.exists()).unwrap()
    };
    std::os::unix::fs::symlink(which("git"), bin.join("git")).unwrap();
    let with_path = || {
        let mut command = site.command(&["doctor"]);
        command.env("PATH", &bin);
        command
    };
    let mut none = with_path();
    none.args(["--option", "substituters", ""]);
    let none = Examined::of(none);
    none.mends("nix", "error", "there is no 'nix'", "nixos.org/nix/install");
    none.is_fine("git");
    // No Nix that old runs on today's machines.
    write_program(&bin.join("nix"), "#!/bin/sh\necho 'nix (Nix) 2.3'\n");
    Examined::of(with_path()).has("nix", "error", "Nix 2.3");
}

#[test]
fn a_store_that_cannot_be_opened() {
    each_nix(|nix| {
        let site = healthy(nix);
        let socket = site.lab.path("gone.sock");
        let ask = || {
            let mut command = site.command(&["doctor"]);
            command.env("NIX_REMOTE", "daemon").env("NIX_DAEMON_SOCKET_PATH", &socket);
            Examined::of(command)
        };
        ask().mends("store", "error", "No such file", "systemctl start");
        // A daemon that has died leaves its socket.
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        ask().mends("store", "error", "Connection refused", "systemctl start");
        let mut nowhere = site.command(&["doctor"]);
        nowhere.args(["--store", "/proc/no/store"]);
        Examined::of(nowhere).has("store", "error", "/proc/no/store");
    });
}

#[test]
fn a_store_that_does_not_answer_is_not_waited_for() {
    let site = healthy(&newest());
    let socket = site.lab.path("deaf.sock");
    // The kernel accepts connections for it; nobody ever reads them.
    let _deaf = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let mut command = site.command(&["doctor"]);
    command.env("NIX_REMOTE", format!("unix://{}", socket.display()));
    let examined = Examined::of(command);
    examined.mends("store", "error", "gave no answer within", "nix store info");
    examined.is_fine("nix");
    examined.is_fine("git");
}

/// drover as the user `nobody`, who owns the state directory and nothing else; `None` if that user cannot reach the
/// programs on this machine.
#[expect(clippy::print_stdout, reason = "cargo shows it for failing tests only; a skipped test says why")]
fn as_nobody(site: &Site) -> Option<Command> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can become another user");
        return None;
    }
    let programs = [site.lab.nix.bin.join("nix"), PathBuf::from(env!("CARGO_BIN_EXE_drover"))];
    let reached = |program: &PathBuf| Command::new(program).arg("--version").uid(NOBODY).gid(NOBODY).output().is_ok();
    if !programs.iter().all(reached) {
        println!("skipped: nobody cannot reach {programs:?}");
        return None;
    }
    fs::set_permissions(site.lab.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    for dir in ["home", "state", "cache", "tmp", "data"] {
        chown(site.lab.path(dir), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let status = Command::new("chown").args(["-R", "nobody"]).arg(&site.flake).status().unwrap();
    assert!(status.success());
    let mut command = site.command(&["doctor"]);
    command.uid(NOBODY).gid(NOBODY);
    Some(command)
}

#[test]
fn a_user_whom_the_daemon_does_not_trust() {
    each_nix(|nix| {
        let site = healthy(nix);
        let key = site.key("ours-1");
        let Some(mut command) = as_nobody(&site) else { return };
        let daemon = site.lab.daemon();
        command.env("NIX_REMOTE", format!("unix://{}", daemon.socket.display()));
        fs::create_dir_all(site.lab.path("config/nix")).unwrap();
        let user = format!("extra-substituters = http://127.0.0.1:1\nextra-trusted-public-keys = {}\n", key.public);
        fs::write(site.lab.path("config/nix/nix.conf"), user).unwrap();
        fs::set_permissions(site.lab.path("conf"), fs::Permissions::from_mode(0o755)).unwrap();
        let examined = Examined::of(command);
        let substituter = "extra-trusted-substituters = http://127.0.0.1:1";
        examined.mends("store", "warning", "ignores the cache http://127.0.0.1:1", substituter);
        examined.mends("store", "warning", "ignores the public key ours-1", &key.public);
        let note = &examined.document["notes"][0];
        assert_eq!(note["area"], "store");
        assert!(note["fix"].as_str().unwrap().starts_with("extra-trusted-users = nobody"), "{note:#}");
    });
}

#[test]
fn a_user_whom_the_daemon_does_not_let_in() {
    each_nix(|nix| {
        let site = healthy(nix);
        conf(&site, "allowed-users = root\n");
        let Some(mut command) = as_nobody(&site) else { return };
        let daemon = site.lab.daemon();
        command.env("NIX_REMOTE", format!("unix://{}", daemon.socket.display()));
        let examined = Examined::of(command);
        examined.mends("store", "error", "hangs up on nobody", "allowed-users = nobody");
    });
}

#[test]
fn directories_of_somebody_else() {
    let site = healthy(&newest());
    site.edit("drover.toml", &format!("[cache.out]\nurl = 'file://{}'\npush = true\n", site.lab.path("out").display()));
    fs::create_dir(site.lab.path("out")).unwrap();
    fs::write(site.lab.path("out/nix-cache-info"), format!("StoreDir: {}\n", site.lab.store_dir())).unwrap();
    let key = site.key("acme-1");
    fs::set_permissions(&key.secret, fs::Permissions::from_mode(0o600)).unwrap();
    let Some(mut command) = as_nobody(&site) else { return };
    command.args(["--push-to", &site.cache_url(&key)]);
    chown(site.lab.path("state"), Some(0), Some(0)).unwrap();
    command.env("TMPDIR", site.lab.path("work"));
    let examined = Examined::of(command);
    examined.mends("state", "error", "ermission denied", "--state-dir DIR");
    examined.mends("push", "error", "cannot write to cache out", "chown");
    examined.mends("push", "error", "ermission denied", "sudo chown \"$USER\"");
    examined.has("push", "error", "acme-1.key: Permission denied");
    examined.mends("push", "warning", "is not signed", "nix key generate-secret --key-name out-1");
    examined.mends("disk", "error", "TMPDIR", "export TMPDIR=");
}

#[tokio::test]
async fn caches_that_do_not_answer() {
    let site = healthy(&newest());
    let dir = site.lab.path("served");
    fs::create_dir(&dir).unwrap();
    let (other, slow, denied, clock) = (
        FakeCache::serve(&dir).await,
        FakeCache::serve(&dir).await,
        FakeCache::serve(&dir).await,
        FakeCache::serve(&dir).await,
    );
    other.always("nix-cache-info", Fault::Body(b"StoreDir: /other/store\n".to_vec()));
    slow.always("nix-cache-info", Fault::Hang);
    denied.login("bWU6cGFzcw==");
    let late = Fault::With(200, "date", "Sat, 21 Nov 2015 11:00:00 GMT".to_owned());
    clock.always("nix-cache-info", late);
    let missing = FakeCache::serve(&dir).await;
    let urls = [&other, &slow, &denied, &clock, &missing].map(|server| server.url.clone()).join(" ");
    conf(&site, &format!("substituters = {urls} http://127.0.0.1:1 http://no-such-host.invalid gopher://hole\n"));
    let netrc = site.lab.path("conf/netrc");
    let ask = async || examine_beside(site.command(&["doctor"])).await;
    let examined = ask().await;
    examined.mends("caches", "warning", "there is no host no-such-host.invalid", "getent hosts no-such-host.invalid");
    examined.mends("caches", "warning", "connection refused", "curl -v http://127.0.0.1:1/nix-cache-info");
    examined.mends("caches", "warning", "nothing within", "curl -v");
    examined.mends("caches", "warning", "/other/store", "take http://127.0.0.1");
    examined.has("caches", "warning", "is no binary cache");
    examined.has("caches", "warning", "no client for 'gopher'");
    examined.mends("caches", "warning", "netrc does not exist) (HTTP status 401)", "machine 127.0.0.1 login");
    // Other servers have the right time, so it is not this machine.
    examined.is_fine("clock");

    conf(&site, &format!("substituters = {}\n", clock.url));
    let examined = ask().await;
    let ahead = examined.has("clock", "warning", "ahead of");
    assert!(ahead["message"].as_str().unwrap().contains('h'), "{ahead:#}");

    conf(&site, &format!("substituters = {}\n", denied.url));
    fs::write(&netrc, "machine elsewhere login me password hunter2\n").unwrap();
    fs::set_permissions(&netrc, fs::Permissions::from_mode(0o644)).unwrap();
    let examined = ask().await;
    examined.mends("caches", "warning", "has none for 127.0.0.1", ">> ");
    examined.mends("caches", "warning", "everybody may read", "chmod o-rwx");
    fs::write(&netrc, "machine 127.0.0.1 login me password hunter2\n").unwrap();
    fs::set_permissions(&netrc, fs::Permissions::from_mode(0o600)).unwrap();
    let examined = ask().await;
    examined.mends("caches", "warning", "the login for 127.0.0.1", "new password");
    assert!(!examined.document.to_string().contains("hunter2"));
    fs::write(&netrc, "machine 127.0.0.1 login me password pass\n").unwrap();
    let info = dir.join("nix-cache-info");
    fs::write(info, format!("StoreDir: {}\n", site.lab.store_dir())).unwrap();
    ask().await.is_fine("caches");
    // The same as what a run pushes to is worse.
    fs::remove_file(&netrc).unwrap();
    let mut push = site.command(&["doctor", "--push-to", &denied.url]);
    push.arg("--option").args(["substituters", ""]);
    examine_beside(push).await.has("caches", "error", "HTTP status 401");
}

#[tokio::test]
async fn keys_that_do_not_fit() {
    let site = healthy(&newest());
    let (theirs, mine) = (site.key("theirs-1"), site.key("mine-1"));
    let server = FakeCache::serve(&filled_cache(&site, &theirs)).await;
    let substituters = format!("substituters = {}\ntrusted-public-keys = {}\n", server.url, mine.public);
    let ask = async || examine_beside(site.command(&["doctor"])).await;
    conf(&site, &substituters);
    let examined = ask().await;
    examined.mends("keys", "warning", "hello-1.0, signed by theirs-1", "extra-trusted-public-keys = theirs-1:BASE64");
    conf(&site, &format!("{substituters}extra-trusted-public-keys = {} broken:key\n", theirs.public));
    let examined = ask().await;
    examined.mends("keys", "error", "the public key 'broken' in trusted-public-keys", "nix.conf");
    conf(&site, &format!("{substituters}extra-trusted-public-keys = {}\n", theirs.public));
    ask().await.is_fine("keys");
}

#[test]
fn keys_that_cannot_sign() {
    let site = healthy(&newest());
    let (key, other) = (site.key("acme-1"), site.key("other-1"));
    let cache = |more: &str| {
        let url = format!("[cache.acme]\nurl = 'file://{}'\npush = true\n{more}", site.cache().display());
        site.edit("drover.toml", &url);
        examine(&site, &[])
    };
    let secret = key.secret.display().to_string();
    fs::set_permissions(&key.secret, fs::Permissions::from_mode(0o644)).unwrap();
    let examined = cache(&format!("secret-key = '{secret}'\n"));
    examined.mends("push", "warning", "everybody may read the secret key", &format!("chmod go-rwx {secret}"));
    examined.mends("push", "warning", "does not trust acme-1", &format!("public-keys = [\"{}\"]", key.public));
    fs::set_permissions(&key.secret, fs::Permissions::from_mode(0o600)).unwrap();
    // The name of one key and the value of another.
    let forged = other.public.replace("other-1", "acme-1");
    let examined = cache(&format!("secret-key = '{secret}'\npublic-keys = ['{forged}']\n"));
    examined.mends("push", "error", "its public half is another one", &key.public);
    let examined = cache(&format!("secret-key = '{secret}'\npublic-keys = ['{}']\n", other.public));
    examined.mends("push", "warning", "public-keys do not name", &key.public);
    let examined = cache(&format!("secret-key = '{secret}'\npublic-keys = ['{}']\n", key.public));
    examined.is_fine("push");
    let examined = cache("secret-key = '/no/such/key'\n");
    examined.mends("push", "error", "/no/such/key: there is no such file", "nix key generate-secret");
    let examined = cache(&format!("secret-key = '{}'\n", site.flake.join("flake.nix").display()));
    examined.mends("push", "error", "cannot sign for acme with the key", "> FILE");
    // A file is where the directory should be.
    let examined = examine(&site, &["--push-to", &format!("file://{}/cache", site.flake.join("flake.nix").display())]);
    examined.mends("caches", "error", "cache cache gives no answer", "ls -ld");
}

#[test]
fn repositories_that_surprise_nix() {
    let site = healthy(&newest());
    site.edit("more", "1\n");
    let shallow = site.lab.work().join("shallow");
    let from = format!("file://{}", site.flake.display());
    git(&site.lab, &site.lab.work(), &["clone", "-q", "--depth", "1", &from, shallow.to_str().unwrap()]);
    let of = |dir: &Path| examine(&site, &[dir.to_str().unwrap()]);
    of(&shallow).mends("git", "warning", "shallow", "fetch --unshallow");

    let untracked = site.lab.work().join("untracked");
    fs::create_dir(&untracked).unwrap();
    fs::write(untracked.join("README"), "").unwrap();
    commit(&site.lab, &untracked);
    let flake = "{ inputs.a.url = \"path:/a\"; outputs = { self, a, b }: { }; }\n";
    fs::write(untracked.join("flake.nix"), flake).unwrap();
    let examined = of(&untracked);
    examined.mends("git", "error", "git does not know flake.nix", "add flake.nix");
    examined.mends("flake", "warning", "no flake.lock for 2 inputs", "nix flake lock");
    fs::write(untracked.join("flake.lock"), "{}").unwrap();
    of(&untracked).mends("git", "warning", "git does not know flake.lock", "add flake.lock");

    let plain = site.lab.work().join("plain");
    fs::create_dir(&plain).unwrap();
    fs::write(plain.join("flake.nix"), "{ outputs = _: {\n  a = }; }\n").unwrap();
    let mut alone = site.command(&["doctor", plain.to_str().unwrap()]);
    alone.env("GIT_CEILING_DIRECTORIES", site.lab.work());
    let examined = Examined::of(alone);
    examined.mends("git", "warning", "in no git repository", "git -C");
    examined.mends("flake", "error", "cannot read flake.nix: syntax error", "+2 ");

    let missing = site.lab.work().join("missing");
    of(&missing).has("flake", "error", "there is no flake.nix");
    if rustix::process::geteuid().is_root() {
        chown(&shallow, Some(NOBODY), Some(NOBODY)).unwrap();
        chown(shallow.join(".git"), Some(NOBODY), Some(NOBODY)).unwrap();
        of(&shallow).mends("git", "error", "belongs to another user", "safe.directory");
    } else {
        println!("not tried: only root can give a repository to another user");
    }
}

#[test]
fn disks_that_are_full() {
    let site = healthy(&newest());
    let (tight, few) = (site.lab.path("tight"), site.lab.path("few"));
    for dir in [&tight, &few] {
        fs::create_dir(dir).unwrap();
    }
    // In a mount namespace of its own, so that nothing is left mounted.
    let script = format!(
        "mount -t tmpfs -o size=64m none '{}' && mount -t tmpfs -o size=20g,nr_inodes=900 none '{}' && exec \"$@\"",
        tight.display(),
        few.display()
    );
    let unshare = |args: &[&str]| {
        let mut command = site.lab.program("unshare");
        command.args(["-m", "sh", "-c", &script, "sh"]).args(args).current_dir(&site.flake);
        command.env("TMPDIR", &tight).env("DROVER_STATE_DIR", few.join("state"));
        command
    };
    if !unshare(&["true"]).output().is_ok_and(|output| output.status.success()) {
        println!("skipped: this user may not mount a file system of its own");
        return;
    }
    let examined = Examined::of(unshare(&[env!("CARGO_BIN_EXE_drover"), "doctor"]));
    examined.mends("disk", "error", "64 MiB of 64 MiB left for TMPDIR", "export TMPDIR=");
    examined.mends("disk", "warning", "more files for records", "--state-dir");
}

#[test]
fn settings_that_are_wrong() {
    let site = healthy(&newest());
    site.edit("drover.toml", "[build]\nretires = 3\n");
    let examined = examine(&site, &[]);
    examined.mends("config", "error", "drover.toml:2:1: unknown key 'retires'", "+2 ");
    examined.is_fine("store");
    site.edit("drover.toml", "[build]\nretries = 'often'\n");
    examine(&site, &[]).mends("config", "error", "drover.toml:2:11:", "retries = 2");
    site.edit("drover.toml", "");
    let mut command = site.command(&["doctor"]);
    command.env("DROVER_EVAL_WORKERS", "many").env("TMPDIR", site.lab.path("no-tmp"));
    let examined = Examined::of(command);
    examined.mends("config", "error", "DROVER_EVAL_WORKERS='many'", "unset DROVER_EVAL_WORKERS");
    examined.mends("disk", "error", "it does not exist", "export TMPDIR=");
    let mut command = site.command(&["doctor"]);
    command.env("DROVER_MAX_JOBS", "0");
    Examined::of(command).mends("builders", "error", "DROVER_MAX_JOBS is 0", "unset DROVER_MAX_JOBS");
}

#[test]
fn settings_are_shown_with_who_said_them() {
    each_nix(|nix| {
        let site = healthy(nix);
        conf(&site, "cores = 3\nsubstituters = http://me:hunter2@127.0.0.1:1\naccess-tokens = github.com=hunter2\n");
        fs::create_dir_all(site.lab.path("config/nix")).unwrap();
        fs::write(site.lab.path("config/nix/nix.conf"), "timeout = 77\n").unwrap();
        let toml =
            "[build]\nretries = 5\n\n[cache.acme]\nurl = 'https://me:hunter2@acme.example'\nsecret-key = '/run/key'\n";
        site.edit("drover.toml", toml);
        let mut command = site.command(&["doctor", "--show-config", "--json", "--option", "max-silent-time", "9"]);
        command.args(["--push-to", "acme"]).env("DROVER_MAX_JOBS", "2");
        let ran = finish(command, &["doctor", "--show-config"]);
        let document = ran.expect(0).json();
        assert!(!document.to_string().contains("hunter2"), "{document:#}");
        let row = |section: &str, name: &str| {
            let rows = document[section].as_array().unwrap();
            let row = rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no {name}: {document:#}"));
            let values: Vec<&str> = row["values"].as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
            (values.join(" "), row["origin"].as_str().unwrap().to_owned())
        };
        for (section, name, value, origin) in [
            ("drover", "build.retries", "5", "drover.toml:2"),
            ("drover", "build.max-jobs", "2", "DROVER_MAX_JOBS"),
            ("drover", "build.timeout", "77", "Nix: user's nix.conf or NIX_CONFIG"),
            ("drover", "cache.acme.url", "https://acme.example", "drover.toml:5"),
            ("drover", "cache.acme.secret-key", "/run/key", "drover.toml:6"),
            ("drover", "cache.acme.push", "true", "--push-to"),
            ("nix", "cores", "3", "nix.conf"),
            ("nix", "max-silent-time", "9", "--option"),
            ("nix", "keep-failed", "false", "default"),
            ("nix", "substituters", "http://127.0.0.1:1", "nix.conf"),
        ] {
            assert_eq!(row(section, name), (value.to_owned(), origin.to_owned()), "{name}");
        }
        let text = site.exits(0, &["doctor", "--show-config"]).out();
        assert!(!text.contains("hunter2") && text.contains("drover.toml:2"), "{text}");
    });
}
