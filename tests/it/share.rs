//! Evaluations that are shared: who takes them from where, what is asked again, and that nothing forged is believed. The
//! real drover on real Nixes; machines are state directories and clones in other places, on one store or on two.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use drover::store::cache::SecretKey;
use sha2::{Digest as _, Sha256};

use crate::eval::copy_dir;
use crate::support::bucket::{Bucket, KEY_ID, SECRET};
use crate::support::fake_cache::{FakeCache, Fault};
use crate::support::nix::{Lab, each_nix, newest};
use crate::support::site::{Key, Ran, Site, commit_as_origin, finish, start};

const FLAKE: &str = r#"{ outputs = { self }:
    let
      build = name: derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo ${name} > $out" ]; };
      host = name: { class = "nixos"; config.system.build.toplevel = build "nixos-${name}"; };
    in {
      nixosConfigurations = { web1 = host "web1"; old = throw "this host was retired"; };
      packages.x86_64-linux = { a = build "a"; b = build "b"; c = build "c-${self.shortRev}"; };
    }; }"#;

const HEALTHY: [&str; 4] =
    ["nixosConfigurations.web1", "packages.x86_64-linux.a", "packages.x86_64-linux.b", "packages.x86_64-linux.c"];

/// One who uses drover: a clone of the flake in a place of its own, and a state directory of its own.
struct Machine<'a> {
    lab: &'a Lab,
    flake: PathBuf,
    state: PathBuf,
}

impl<'a> Machine<'a> {
    /// A clone with this `drover.toml`, which git does not track.
    fn new(site: &'a Site, name: &str, config: &str) -> Self {
        Self::on(&site.lab, site, name, config)
    }

    /// The same on another store.
    fn on(lab: &'a Lab, site: &Site, name: &str, config: &str) -> Self {
        let flake = lab.work().join(name);
        copy_dir(&site.flake, &flake);
        fs::write(flake.join("drover.toml"), config).unwrap();
        Self { lab, flake, state: lab.path(format!("state-{name}")) }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.lab.program(env!("CARGO_BIN_EXE_drover"));
        for name in ["CI", "GITHUB_EVENT_NAME", "CI_MERGE_REQUEST_PROJECT_ID", "DROVER_PUSH_TO", "DROVER_LOG"] {
            command.env_remove(name);
        }
        command.current_dir(&self.flake).args(args).arg("--state-dir").arg(&self.state);
        if let Some(store) = self.lab.store_arg() {
            command.args(["--store", &store]);
        }
        command
    }

    /// Plans everything; one host does not evaluate, which is exit 3.
    fn plan(&self) -> Seen {
        self.plans(self.command(&["plan", "--json"]))
    }

    fn plans(&self, command: Command) -> Seen {
        Seen::of(finish(command, &["plan"]), &self.state)
    }

    fn record(&self, fingerprint: &str) -> PathBuf {
        self.state.join("share/eval").join(format!("{fingerprint}.record"))
    }

    /// The one record in its folder.
    fn only_record(&self) -> PathBuf {
        let mut records = files(&self.state.join("share/eval"));
        assert_eq!(records.len(), 1, "{records:?}");
        records.pop().unwrap()
    }
}

/// What a plan came to.
struct Seen {
    /// Base names of the drvs of the healthy attrs, in their order.
    drvs: Vec<String>,
    /// Attrs that an evaluator was asked for.
    asked: BTreeSet<String>,
    warnings: Vec<String>,
    stderr: String,
}

impl Seen {
    fn of(ran: Ran, state: &Path) -> Self {
        let document = ran.expect(3).json();
        let attr = |name: &str| document["attrs"].as_array().unwrap().iter().find(|attr| attr["attr"] == name).unwrap();
        assert_eq!(attr("nixosConfigurations.old")["error"]["message"], "this host was retired");
        let drvs =
            HEALTHY.iter().map(|name| attr(name)["drv"].as_str().unwrap().rsplit('/').next().unwrap().to_owned());
        let run = files(&state.join("runs")).pop().unwrap();
        let events = crate::support::site::Events::read(&run.join("events.jsonl"));
        let listed = events.of("attr_listed");
        let path = |id: &serde_json::Value| {
            let listed = listed.iter().find(|listed| listed["attr"] == *id).unwrap();
            listed["path"].as_str().unwrap().to_owned()
        };
        let warned = events.of("warning").into_iter().map(|event| event["message"].as_str().unwrap().to_owned());
        Self {
            drvs: drvs.collect(),
            asked: events.of("eval_started").into_iter().map(|event| path(&event["attr"])).collect(),
            warnings: warned.collect(),
            stderr: ran.stderr,
        }
    }

    #[track_caller]
    fn asks_nothing(&self) {
        assert!(self.asked.is_empty(), "{:?}\n{}", self.asked, self.stderr);
        assert!(self.warnings.is_empty(), "{:?}", self.warnings);
    }

    #[track_caller]
    fn asks(&self, attrs: &[&str]) {
        assert_eq!(self.asked, attrs.iter().map(|&attr| attr.to_owned()).collect(), "{}", self.stderr);
    }

    /// One warning, which holds these texts.
    #[track_caller]
    fn warns(&self, texts: &[&str]) {
        assert_eq!(self.warnings.len(), 1, "{:?}", self.warnings);
        assert!(texts.iter().all(|text| self.warnings[0].contains(text)), "{:?}: {texts:?}", self.warnings);
        assert_eq!(self.warnings[0].lines().count(), 1);
    }
}

fn all() -> Vec<&'static str> {
    let mut all = HEALTHY.to_vec();
    all.push("nixosConfigurations.old");
    all
}

/// What is in a directory, sorted.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn fingerprint_of(record: &Path) -> String {
    record.file_name().unwrap().to_str().unwrap().split('.').next().unwrap().to_owned()
}

fn writer(url: &str, key: &Key) -> String {
    format!("[share]\nurl = '{url}'\nsecret-key = '{}'\n", key.secret.display())
}

fn reader(url: &str, key: &Key) -> String {
    format!("[share]\nurl = '{url}'\npublic-keys = ['{}']\n", key.public)
}

/// Records of evaluations that were sent there.
fn records(server: &FakeCache) -> Vec<String> {
    server.uploads().into_iter().filter(|name| name.starts_with("drover/eval/")).collect()
}

#[test]
fn machines_that_share_a_place_evaluate_once() {
    each_nix(|nix| {
        for http in [false, true] {
            let site = Site::of(Lab::chroot(nix), FLAKE);
            let key = site.key("push-1");
            let place = site.lab.path("place");
            fs::create_dir_all(&place).unwrap();
            // What a binary cache holds lies beside it.
            fs::write(place.join("nix-cache-info"), "StoreDir: /nix/store\n").unwrap();
            let server = FakeCache::start(&place).writable();
            let url = if http { server.url.clone() } else { format!("file://{}", place.display()) };

            let first = Machine::new(&site, "first", &writer(&url, &key));
            let seen = first.plan();
            seen.asks(&all());
            assert!(seen.warnings.is_empty(), "{:?}", seen.warnings);
            let shared = files(&place.join("drover/eval"));
            assert_eq!(shared.len(), 1, "{shared:?}");
            assert_eq!(files(&place).len(), 2);
            let again = first.plan();
            again.asks_nothing();
            assert_eq!(again.drvs, seen.drvs);
            assert_eq!(records(&server).len(), usize::from(http), "what is there is not sent again");

            // Another one on the same store, with no key and in another directory.
            let second = Machine::new(&site, "second", &reader(&url, &key));
            let theirs = second.plan();
            theirs.asks_nothing();
            assert_eq!(theirs.drvs, seen.drvs);
            // As it was signed, it can be carried on, and the place is not needed any more.
            assert_eq!(fs::read(second.only_record()).unwrap(), fs::read(&shared[0]).unwrap());
            fs::remove_file(&shared[0]).unwrap();
            second.plan().asks_nothing();

            // One with an empty store needs the derivations, but no error.
            fs::copy(second.only_record(), &shared[0]).unwrap();
            let lab = Lab::chroot(nix);
            let third = Machine::on(&lab, &site, "third", &reader(&url, &key));
            let theirs = third.plan();
            theirs.asks(&HEALTHY);
            assert_eq!(theirs.drvs, seen.drvs);
            third.plan().asks_nothing();
            assert_eq!(records(&server).len(), usize::from(http), "who has no key writes nothing");
        }
    });
}

/// Evaluations, and the history of runs.
#[test]
fn a_bucket_is_a_place_to_share() {
    let site = Site::of(Lab::chroot(&newest()), FLAKE);
    let key = site.key("push-1");
    let bucket = Bucket::serve(&site.lab.path("buckets"), false);
    let plan = |machine: &Machine<'_>, secret: &str| {
        let mut command = machine.command(&["plan", "--json"]);
        command.env("AWS_ACCESS_KEY_ID", KEY_ID).env("AWS_SECRET_ACCESS_KEY", secret);
        machine.plans(command)
    };
    let first = Machine::new(&site, "first", &writer(&bucket.url(""), &key));
    let seen = plan(&first, SECRET);
    seen.asks(&all());
    assert!(seen.warnings.is_empty(), "{:?}", seen.warnings);
    assert_eq!(files(&bucket.dir().join("drover/eval")).len(), 1);
    let index = fs::read_to_string(bucket.dir().join("drover/history/index.json")).unwrap();
    let run = files(&first.state.join("runs")).pop().unwrap();
    let run = run.file_name().unwrap().to_str().unwrap();
    assert!(index.contains(run), "{index}");
    assert!(bucket.dir().join(format!("drover/history/{run}.json.zst")).exists());

    let second = Machine::new(&site, "second", &reader(&bucket.url(""), &key));
    let theirs = plan(&second, SECRET);
    theirs.asks_nothing();
    assert_eq!(theirs.drvs, seen.drvs);

    // Whoever has the wrong keys does without.
    let third = Machine::new(&site, "third", &reader(&bucket.url(""), &key));
    let refused = plan(&third, "no-such-secret");
    refused.asks(&all());
    refused.warns(&["no evaluation is taken from s3://"]);
}

#[test]
fn one_state_evaluates_once_for_all() {
    each_nix(|nix| {
        let site = Site::of(Lab::plain(nix), FLAKE);
        let machine = Machine::new(&site, "all", "");
        let (path, notes) = site.spy("nix");
        let evaluators = |args: &[&str], code: i32| {
            let count = || fs::read_to_string(&notes).unwrap().lines().filter(|line| line.starts_with("repl")).count();
            let before = count();
            let mut command = machine.command(args);
            command.env("PATH", &path);
            let ran = finish(command, args);
            ran.expect(code);
            (count() - before, ran)
        };
        // The commit before, on another day.
        assert!(evaluators(&["plan"], 3).0 > 0);
        fs::write(machine.flake.join("flake.nix"), FLAKE.replace("build \"b\"", "build \"b-2\"")).unwrap();
        crate::eval::git(&site.lab, &machine.flake, &["commit", "-qam", "second"]);

        let file = site.lab.path("plan.drover").display().to_string();
        let (started, _) = evaluators(&["plan", "-o", &file], 3);
        assert!(started > 0);
        for row in &HEALTHY {
            assert_eq!(evaluators(&["run", "--plan", &file, row], 0).0, 0, "{row}");
        }
        assert_eq!(evaluators(&["run"], 3).0, 0);
        let (started, affected) = evaluators(&["affected", "--base", "HEAD~1"], 3);
        assert_eq!(started, 0);
        assert_eq!(affected.out().lines().collect::<Vec<_>>(), ["packages.x86_64-linux.b", "packages.x86_64-linux.c"]);
    });
}

#[test]
fn only_what_is_gone_is_asked_again() {
    each_nix(|nix| {
        let site = Site::of(Lab::chroot(nix), FLAKE);
        let machine = Machine::new(&site, "m", "");
        let seen = machine.plan();
        let drv = |name: &str| format!("/nix/store/{}", seen.drvs.iter().find(|drv| drv.contains(name)).unwrap());
        site.lab.run("nix-store", &["--delete", &drv("-b.drv"), &drv("nixos-web1")]);
        let again = machine.plan();
        again.asks(&["nixosConfigurations.web1", "packages.x86_64-linux.b"]);
        assert_eq!(again.drvs, seen.drvs);
        machine.plan().asks_nothing();
    });
}

#[test]
fn two_at_once_are_both_right() {
    let site = Site::of(Lab::plain(&newest()), FLAKE);
    let machine = Machine::new(&site, "m", "");
    let args = ["plan", "--json"];
    let running: Vec<_> = (0..3).map(|_| start(machine.command(&args), &args)).collect();
    let documents: Vec<_> = running.into_iter().map(|running| running.wait().expect(3).json()).collect();
    let answers = |document: &serde_json::Value| -> Vec<[serde_json::Value; 4]> {
        let attrs = document["attrs"].as_array().unwrap().iter();
        attrs.map(|attr| ["attr", "drv", "error", "status"].map(|key| attr[key].clone())).collect()
    };
    for document in &documents {
        assert_eq!(answers(document), answers(&documents[0]));
    }
    machine.plan().asks_nothing();
}

#[test]
fn a_carried_folder_is_believed_under_the_key_of_a_cache() {
    let site = Site::of(Lab::chroot(&newest()), FLAKE);
    let key = site.key("acme-1");
    let cache = site.cache_url(&key);
    let first = Machine::new(&site, "first", &format!("[cache.acme]\nurl = '{cache}'\npush = true\n"));
    let seen = first.plan();
    let record = first.only_record();
    assert!(fs::read(&record).unwrap().windows(12).any(|text| text == b"sig: acme-1:"));

    let config = format!("[cache.acme]\nurl = 'file://{}'\npublic-keys = ['{}']\n", site.cache().display(), key.public);
    let second = Machine::new(&site, "second", &config);
    copy_dir(&first.state.join("share"), &second.state.join("share"));
    let theirs = second.plan();
    theirs.asks_nothing();
    assert_eq!(theirs.drvs, seen.drvs);

    // What one adds who cannot sign it lies beside it, and leaves it as it is.
    let theirs = |machine: &Machine<'_>| fs::read(machine.record(&fingerprint_of(&record))).unwrap();
    let before = theirs(&second);
    let ran = finish(second.command(&["plan", "web1"]), &["plan", "web1"]);
    ran.expect(0);
    assert_eq!(theirs(&second), before);
    assert_eq!(files(&second.state.join("share/eval")).len(), 2);
    second.plan().asks_nothing();

    // Carried on to one who has nothing but the state's own key of another: that part is not believed.
    let third = Machine::new(&site, "third", &config);
    copy_dir(&second.state.join("share"), &third.state.join("share"));
    let third = third.plan();
    assert!(third.asked.is_empty());
    third.warns(&[".own.record", "signed by no key that is trusted here, but by drover-state-"]);
}

#[test]
fn a_record_that_only_a_state_has_signed_is_signed_once_there_is_a_key() {
    let site = Site::of(Lab::plain(&newest()), FLAKE);
    let key = site.key("push-1");
    let machine = Machine::new(&site, "m", "");
    machine.plan();
    let record = machine.only_record();
    let signed = || fs::read(&record).unwrap().windows(12).any(|text| text == b"sig: push-1:");
    assert!(!signed());
    let place = site.lab.path("place");
    fs::write(machine.flake.join("drover.toml"), writer(&format!("file://{}", place.display()), &key)).unwrap();
    machine.plan().asks_nothing();
    assert!(signed());
    assert_eq!(fs::read(&record).unwrap(), fs::read(&files(&place.join("drover/eval"))[0]).unwrap());
}

#[test]
fn forks_and_those_without_a_key_never_write() {
    let site = Site::of(Lab::plain(&newest()), FLAKE);
    let key = site.key("push-1");
    let place = site.lab.path("place");
    fs::create_dir_all(&place).unwrap();
    let server = FakeCache::start(&place).writable();
    let keyless = Machine::new(&site, "keyless", &reader(&server.url, &key));
    keyless.plan().asks(&all());
    let fork = Machine::new(&site, "fork", &writer(&server.url, &key));
    let foreign: [&[(&str, &str)]; 2] = [
        &[("GITHUB_EVENT_NAME", "pull_request"), ("GITHUB_REPOSITORY", "me/infra"), ("GITHUB_BASE_REF", "main")],
        &[
            ("CI_MERGE_REQUEST_PROJECT_ID", "1"),
            ("CI_MERGE_REQUEST_SOURCE_PROJECT_ID", "2"),
            ("CI_MERGE_REQUEST_TARGET_BRANCH_NAME", "main"),
        ],
    ];
    commit_as_origin(&site.lab, &fork.flake);
    for (vars, asked) in foreign.iter().zip([all(), Vec::new()]) {
        let mut command = fork.command(&["plan", "--json"]);
        command.envs(vars.iter().copied());
        fork.plans(command).asks(&asked);
    }
    let signed = fs::read(fork.only_record()).unwrap();
    assert!(!signed.windows(11).any(|text| text == b"sig: push-1"), "it is not signed with the key of the repository");
    assert_eq!(server.uploads(), Vec::<String>::new());
    assert!(server.all_requests() > 0, "they do read");
    // Its own branch writes.
    fork.plan().asks_nothing();
    assert_eq!(records(&server).len(), 1);
}

#[test]
fn a_share_in_trouble_is_a_warning() {
    let site = Site::of(Lab::plain(&newest()), FLAKE);
    let key = site.key("push-1");
    let place = site.lab.path("place");
    fs::create_dir_all(&place).unwrap();
    let server = FakeCache::start(&place).writable();
    let mut number = 0;
    let mut machine = |url: &str| {
        number += 1;
        Machine::new(&site, &format!("m{number}"), &writer(url, &key))
    };
    for fault in
        [Fault::Status(500), Fault::Status(403), Fault::Close, Fault::Redirect, Fault::Body(vec![b'x'; 9 << 20])]
    {
        server.always("*", fault.clone());
        server.always("drover/eval/*", fault.clone());
        server.always("PUT *", Fault::Status(201));
        let seen = machine(&server.url).plan();
        seen.asks(&all());
        seen.warns(&[&server.url]);
    }
    server.heal("*");
    server.heal("drover/eval/*");
    server.always("PUT *", Fault::Status(403));
    machine(&server.url).plan().warns(&["this evaluation is not shared at", &server.url, "403"]);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let seen = machine(&format!("http://me:hunter2@{closed}/x")).plan();
    seen.asks(&all());
    seen.warns(&["no evaluation is taken from", &closed.to_string()]);
    assert!(!seen.stderr.contains("hunter2") && !seen.warnings.join(" ").contains("hunter2"));
    // A file where the folder would be.
    fs::write(place.join("file"), "").unwrap();
    let seen = machine(&format!("file://{}/file", place.display())).plan();
    seen.asks(&all());
    seen.warns(&["no evaluation is taken from"]);

    // Offline it is left alone.
    let offline = machine(&server.url);
    let before = server.all_requests();
    offline.plans(offline.command(&["plan", "--json", "--offline"])).asks(&all());
    assert_eq!(server.all_requests(), before);
}

#[test]
fn words_that_mean_nothing_are_refused_before_anything_is_done() {
    let site = Site::of(Lab::plain(&newest()), FLAKE);
    for (number, (config, said)) in [
        ("[share]\nurl = 'attic:x'\n", "[share] takes no 'attic' URL yet"),
        ("[share]\nurl = '/srv/x'\n", "is no URL"),
        ("[share]\nsecret-key = '/nonexistent/key'\n", "cannot use the secret key of [share]"),
        ("[share]\npublic-keys = ['nonsense']\n", "cannot use the public key 'nonsense' of [share]"),
        ("[share]\nurl = 'http://h'\ntoken-file = '/nonexistent/token'\n", "'/nonexistent/token'"),
        ("[share]\nurk = 'http://h'\n", "unknown key 'urk'"),
    ]
    .into_iter()
    .enumerate()
    {
        let machine = Machine::new(&site, &format!("m{number}"), config);
        let ran = finish(machine.command(&["plan"]), &["plan"]);
        ran.expect(2);
        assert!(ran.stderr.contains(said), "{}", ran.stderr);
        assert!(!machine.state.join("share/eval").exists());
    }
}

/// The parts of a sealed record: its JSON, decompressed.
fn json_of(sealed: &[u8]) -> String {
    let end = sealed.windows(2).position(|two| two == b"\n\n").unwrap();
    String::from_utf8(zstd::decode_all(&sealed[end + 2..]).unwrap()).unwrap()
}

/// Seals a record by the rules of the format.
fn seal(json: &str, fingerprint: &str, key: Option<&Key>) -> Vec<u8> {
    let content = zstd::encode_all(json.as_bytes(), 3).unwrap();
    let hash: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
    let line = key.map(|key| {
        let key = SecretKey::read(&key.secret).unwrap();
        format!("sig: {}\n", key.sign(&format!("drover-eval-record 2;{fingerprint};{hash}")))
    });
    let mut sealed = format!("drover-eval-record 2\n{}\n", line.unwrap_or_default()).into_bytes();
    sealed.extend(content);
    sealed
}

#[test]
fn a_forged_record_is_never_believed() {
    each_nix(|nix| {
        let site = Site::of(Lab::chroot(nix), FLAKE);
        let (trusted, stranger) = (site.key("push-1"), site.key("stranger-1"));
        // A key that bears the trusted one's name.
        let namesake = {
            fs::create_dir_all(site.lab.work().join("theirs")).unwrap();
            let key = site.key("theirs/push-1");
            let text = fs::read_to_string(&key.secret).unwrap().replace("theirs/push-1", "push-1");
            fs::write(&key.secret, text).unwrap();
            key
        };
        let place = site.lab.path("place");
        let url = format!("file://{}", place.display());
        let honest = Machine::new(&site, "honest", &writer(&url, &trusted));
        let seen = honest.plan();
        let true_record = fs::read(honest.only_record()).unwrap();
        let fingerprint = fingerprint_of(&honest.only_record());
        let shared = place.join("drover/eval").join(format!("{fingerprint}.record"));

        // The right fingerprint, and for `a` the derivation of `b`: both are in the store.
        let drv = |name: &str| seen.drvs.iter().find(|drv| drv.ends_with(&format!("-{name}.drv"))).unwrap();
        let wrong = json_of(&true_record).replace(drv("a").as_str(), "A").replace(drv("b").as_str(), drv("a"));
        let wrong = wrong.replace("\"A\"", &format!("\"{}\"", drv("b")));
        let other_fingerprint = fingerprint.replace(|c: char| c.is_ascii_digit(), "0");
        let own_of_another = {
            let other = Machine::new(&site, "another", "");
            other.plan();
            let key = Key { secret: other.state.join("eval.key"), public: String::new() };
            seal(&wrong, &fingerprint, Some(&key))
        };
        let mut flipped = true_record.clone();
        let middle = flipped.len() - 50;
        flipped[middle] ^= 4;
        let bomb = zstd::encode_all(vec![b' '; 200 << 20].as_slice(), 1).unwrap();
        let forged: [(&str, Vec<u8>, &str); 10] = [
            ("unsigned", seal(&wrong, &fingerprint, None), "it is not signed"),
            ("foreign", seal(&wrong, &fingerprint, Some(&stranger)), "but by stranger-1"),
            ("of a namesake", seal(&wrong, &fingerprint, Some(&namesake)), "the signature of push-1 on it is wrong"),
            ("another's own", own_of_another, "but by drover-state-"),
            ("for another", seal(&wrong, &other_fingerprint, Some(&trusted)), "the signature of push-1 on it is wrong"),
            ("cut", true_record[..true_record.len() / 2].to_vec(), "is wrong"),
            ("flipped", flipped, "is wrong"),
            ("empty", Vec::new(), "no record"),
            ("a page", b"<html>\n\nlog in</html>".to_vec(), "no record"),
            ("a bomb", [&seal("", &fingerprint, Some(&stranger))[..], &bomb].concat(), "but by stranger-1"),
        ];
        for (number, (what, sealed, why)) in forged.into_iter().enumerate() {
            eprintln!("-- {what}");
            // Where records are shared.
            fs::write(&shared, &sealed).unwrap();
            let victim = Machine::new(&site, &format!("victim-{number}"), &reader(&url, &trusted));
            let theirs = victim.plan();
            assert_eq!(theirs.drvs, seen.drvs);
            theirs.asks(&all());
            theirs.warns(&[&format!("{url}/drover/eval/{fingerprint}.record"), why]);
            // In the folder of the state.
            fs::remove_file(&shared).unwrap();
            fs::write(victim.only_record(), &sealed).unwrap();
            let theirs = victim.plan();
            assert_eq!(theirs.drvs, seen.drvs);
            theirs.asks(&all());
            theirs.warns(&[&victim.only_record().display().to_string(), why]);
            victim.plan().asks_nothing();
        }

        // The forger's work is good enough: under the trusted key it would be believed.
        fs::write(&shared, seal(&wrong, &fingerprint, Some(&trusted))).unwrap();
        let victim = Machine::new(&site, "believer", &reader(&url, &trusted));
        let theirs = victim.plan();
        theirs.asks_nothing();
        assert_ne!(theirs.drvs, seen.drvs);
    });
}

#[test]
fn a_forged_record_of_a_base_is_never_believed() {
    let site = Site::of(Lab::chroot(&newest()), FLAKE);
    let (trusted, stranger) = (site.key("push-1"), site.key("stranger-1"));
    let place = site.lab.path("place");
    let url = format!("file://{}", place.display());
    let honest = Machine::new(&site, "honest", &writer(&url, &trusted));
    let seen = honest.plan();
    let base = fingerprint_of(&honest.only_record());
    let second = |machine: &Machine<'_>| {
        fs::write(machine.flake.join("flake.nix"), FLAKE.replace("build \"b\"", "build \"b-2\"")).unwrap();
        crate::eval::git(&site.lab, &machine.flake, &["commit", "-qam", "second"]);
    };
    second(&honest);
    honest.plan();
    let affected = |machine: &Machine<'_>| {
        let ran = finish(machine.command(&["affected", "--base", "HEAD~1"]), &["affected"]);
        ran.expect(3);
        let run = files(&machine.state.join("runs")).pop().unwrap();
        let events = crate::support::site::Events::read(&run.join("events.jsonl"));
        let warnings: Vec<String> =
            events.of("warning").into_iter().map(|event| event["message"].as_str().unwrap().to_owned()).collect();
        (ran.out(), warnings)
    };
    let truth = (String::from("packages.x86_64-linux.b\npackages.x86_64-linux.c\n"), Vec::new());
    assert_eq!(affected(&honest), truth);

    // By this one, `a` was something else before.
    let shared = place.join("drover/eval").join(format!("{base}.record"));
    let a = seen.drvs.iter().find(|drv| drv.ends_with("-a.drv")).unwrap();
    let wrong = json_of(&fs::read(&shared).unwrap()).replace(a.as_str(), &seen.drvs[0]);
    fs::write(&shared, seal(&wrong, &base, Some(&stranger))).unwrap();
    let victim = Machine::new(&site, "victim", &reader(&url, &trusted));
    second(&victim);
    let (out, warnings) = affected(&victim);
    assert_eq!(out, truth.0);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains(&format!("{url}/drover/eval/{base}.record")) && warnings[0].contains("stranger-1"));
    assert_eq!(affected(&victim), truth, "from now on from its own record");

    fs::write(&shared, seal(&wrong, &base, Some(&trusted))).unwrap();
    let believer = Machine::new(&site, "believer", &reader(&url, &trusted));
    second(&believer);
    assert!(affected(&believer).0.contains("packages.x86_64-linux.a\n"), "under the trusted key it would be believed");
}
