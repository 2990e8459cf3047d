//! `drover why` without a base: each reason why no cache has something, from real caches and real records.

use serde_json::Value;

use crate::support::fake_cache::{FakeCache, Fault};
use crate::support::nix::{Lab, Nix, each_nix};
use crate::support::site::{Key, Ran, Site, narinfos};

/// top → c → b → a, each output naming the one below it.
const TOWER: &str = r#"{ outputs = _: let
  mk = name: deps: derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh";
    args = [ "-c" "set -e; echo ${name} ${toString deps} > $out" ]; };
  a = mk "a" [ ]; b = mk "b" [ a ]; c = mk "c" [ b ]; top = mk "top" [ c ];
  own = derivation { name = "own"; system = "x86_64-linux"; builder = "/bin/sh"; allowSubstitutes = false;
    args = [ "-c" "set -e; echo own ${c} > $out" ]; };
  in { packages.x86_64-linux = { inherit a b c top own; }; }; }"#;

/// A site, its HTTP cache that is read from, and the key that it trusts.
struct Scene {
    site: Site,
    cache: FakeCache,
    key: Key,
}

impl Scene {
    fn new(nix: &Nix) -> Self {
        let site = Site::of(Lab::chroot(nix), TOWER);
        let key = site.key("tower-1");
        std::fs::create_dir(site.cache()).unwrap();
        std::fs::write(site.cache().join("nix-cache-info"), "StoreDir: /nix/store\n").unwrap();
        let cache = FakeCache::start(&site.cache()).writable();
        let scene = Self { site, cache, key };
        scene.read_from_cache();
        scene
    }

    /// Nix reads from the cache, and trusts the key.
    fn read_from_cache(&self) {
        let conf = format!("substituters = {}\ntrusted-public-keys = {}", self.cache.url, self.key.public);
        self.site.lab.configure(&conf);
    }

    fn read_from_nobody(&self) {
        self.site.lab.configure("");
    }

    /// Where to push, so that the cache is signed by the key.
    fn push_url(&self) -> String {
        format!("{}?secret-key={}", self.cache.url, self.key.secret.display())
    }

    /// Nothing that was built is in the store any more.
    fn collect(&self) {
        self.site.lab.run("nix-store", &["--gc"]);
    }

    /// The cache has lost all records.
    fn lose(&self) {
        for path in narinfos(&self.site.cache()).into_keys() {
            std::fs::remove_file(self.site.cache().join(format!("{}.narinfo", &path[..32]))).unwrap();
        }
    }

    /// The first characters of the last run's id.
    fn last_run(&self) -> String {
        let run = self.site.runs().pop().unwrap();
        run.file_name().unwrap().to_string_lossy()[..8].to_owned()
    }

    fn why(&self, args: &[&str]) -> Value {
        self.site.exits(0, &[&["why", "top", "--json"], args].concat()).json()
    }
}

/// Kind of the cause of each drv that is named.
fn kinds(document: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let causes = document["attrs"][0]["causes"].as_array().unwrap();
    causes.iter().map(|one| (text(&one["cause"]["name"]), text(&one["cause"]["kind"]))).collect()
}

fn both(kind: &str) -> Vec<(String, String)> {
    [("top", kind), ("a", kind)].map(|(name, kind)| (name.to_owned(), kind.to_owned())).to_vec()
}

/// What is read, without what differs from run to run.
fn read(ran: &Ran, scene: &Scene) -> String {
    let mut text = ran.out();
    for run in scene.site.runs() {
        let run = run.file_name().unwrap().to_string_lossy().into_owned();
        for length in (8..=run.len()).rev() {
            text = text.replace(&run[..length], "RUN");
        }
    }
    text.replace(scene.cache.url.trim_start_matches("http://"), "CACHE")
}

fn snap(name: &str, text: &str) {
    insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!(name, text);
    });
}

#[test]
fn what_nobody_ever_built_is_new() {
    each_nix(|nix| {
        let scene = Scene::new(nix);
        let document = scene.why(&[]);
        assert_eq!(kinds(&document), both("new_drv"));
        let names = |step: &Value| step["name"].as_str().unwrap().to_owned();
        let chain: Vec<String> = document["chain"].as_array().unwrap().iter().map(names).collect();
        assert_eq!(chain, ["top", "c", "b", "a"], "from the attr down to what is built first");
        assert_eq!(document["attr"], "packages.x86_64-linux.top");
        assert_eq!(document["cause"]["name"], "a");
        let text = read(&scene.site.exits(0, &["why", "top"]), &scene);
        snap("why_new", &text);
        // Evaluated and compared, and nothing done.
        assert!(scene.site.events().built().is_empty());
    });
}

#[test]
fn what_is_in_a_cache_or_in_the_store_is_said_to_be_there() {
    each_nix(|nix| {
        let scene = Scene::new(nix);
        scene.site.exits(0, &["run", "top", "--push-to", &scene.push_url()]);
        let here = scene.site.exits(0, &["why", "top"]);
        assert!(here.out().starts_with("top  is in this store"), "{}", here.out());
        assert!(read(&here, &scene).contains("in CACHE ("), "{}", here.out());
        scene.collect();
        let there = scene.site.exits(0, &["why", "top"]);
        assert!(there.out().starts_with("top  is in a cache"), "{}", there.out());
        assert_eq!(scene.why(&[])["cause"], Value::Null);
    });
}

#[test]
fn a_signature_that_nobody_trusts_names_cache_and_key() {
    each_nix(|nix| {
        let scene = Scene::new(nix);
        scene.site.exits(0, &["run", "top", "--push-to", &scene.push_url()]);
        scene.collect();
        scene.site.lab.configure(&format!("substituters = {}\ntrusted-public-keys =", scene.cache.url));
        let document = scene.why(&[]);
        assert_eq!(kinds(&document), both("untrusted_key"));
        let cause = &document["cause"];
        assert!(scene.cache.url.ends_with(cause["cache"].as_str().unwrap()), "{cause}");
        assert!(cause["message"].as_str().unwrap().contains("signed by tower-1"), "{cause}");
    });
}

#[test]
fn a_cache_that_does_not_answer_is_no_cache_that_lacks_it() {
    each_nix(|nix| {
        let scene = Scene::new(nix);
        scene.site.exits(0, &["run", "top", "--push-to", &scene.push_url()]);
        scene.collect();
        scene.cache.always("*.narinfo", Fault::Status(403));
        let document = scene.why(&[]);
        assert_eq!(document["cause"]["kind"], "no_answer", "although a run had pushed it there: {document}");
        assert!(document["cause"]["message"].as_str().unwrap().contains("403"), "{document}");
        scene.cache.always("nix-cache-info", Fault::Status(403));
        assert_eq!(scene.why(&[])["cause"]["kind"], "no_answer", "a cache that cannot even be opened is one");
    });
}

#[test]
fn no_cache_is_asked_where_that_is_switched_off() {
    each_nix(|nix| {
        let scene = Scene::new(nix);
        let message = |document: &Value| document["cause"]["message"].as_str().unwrap().to_owned();
        let offline = scene.why(&["--offline"]);
        assert_eq!(kinds(&offline), both("substitution_disabled"));
        assert!(message(&offline).ends_with("--offline"), "{offline}");
        let setting = scene.why(&["--option", "substitute", "false"]);
        assert_eq!(kinds(&setting), both("substitution_disabled"));
        assert!(message(&setting).contains("substitute = false"), "{setting}");
        scene.read_from_nobody();
        let nobody = scene.why(&[]);
        assert_eq!(kinds(&nobody), both("substitution_disabled"));
        assert!(message(&nobody).contains("none is configured"), "{nobody}");
        scene.read_from_cache();
        let own = scene.site.exits(0, &["why", "own", "--json"]).json();
        let expected = [("own", "substitution_disabled"), ("a", "new_drv")];
        assert_eq!(kinds(&own), expected.map(|(name, kind)| (name.to_owned(), kind.to_owned())), "{own}");
    });
}

#[test]
fn what_was_built_and_not_pushed_names_the_run() {
    each_nix(|nix| {
        let scene = Scene::new(nix);
        scene.site.exits(0, &["run", "top"]);
        let run = scene.last_run();
        scene.collect();
        let document = scene.why(&[]);
        assert_eq!(kinds(&document), both("never_pushed"));
        assert!(document["cause"]["run"].as_str().unwrap().starts_with(&run), "{document}");
        let text = read(&scene.site.exits(0, &["why", "top"]), &scene);
        snap("why_never_pushed", &text);
    });
}

#[test]
fn a_push_that_failed_names_run_cache_and_error() {
    each_nix(|nix| {
        let scene = Scene::new(nix);
        scene.cache.always("PUT nar", Fault::Status(507));
        scene.site.exits(5, &["run", "top", "--push-to", &scene.push_url()]);
        let run = scene.last_run();
        scene.collect();
        let document = scene.why(&[]);
        assert_eq!(kinds(&document), both("push_failed"));
        let cause = &document["cause"];
        assert!(cause["run"].as_str().unwrap().starts_with(&run), "{cause}");
        assert!(cause["message"].as_str().unwrap().contains("507"), "{cause}");
    });
}

#[test]
fn a_push_that_was_not_there_when_it_was_read_back_has_failed() {
    each_nix(|nix| {
        let scene = Scene::new(nix);
        scene.cache.always("PUT narinfo", Fault::Swallow);
        scene.site.exits(5, &["run", "top", "--push-to", &scene.push_url()]);
        scene.collect();
        let document = scene.why(&[]);
        assert_eq!(kinds(&document), both("push_failed"));
        assert!(document["cause"]["message"].as_str().unwrap().contains("read back"), "{document}");
    });
}

#[test]
fn what_a_cache_has_lost_since_is_pruned() {
    each_nix(|nix| {
        let scene = Scene::new(nix);
        scene.site.exits(0, &["run", "top", "--push-to", &scene.push_url()]);
        scene.collect();
        scene.lose();
        let document = scene.why(&[]);
        assert_eq!(kinds(&document), both("pruned"));
        assert!(document["cause"]["message"].as_str().unwrap().contains("read it back"), "{document}");
        let text = read(&scene.site.exits(0, &["why", "top"]), &scene);
        snap("why_pruned", &text);
    });
}

#[test]
fn what_a_run_saw_in_a_cache_and_is_gone_is_pruned() {
    each_nix(|nix| {
        let scene = Scene::new(nix);
        let maker = Site::of(Lab::chroot(nix), TOWER);
        maker.exits(0, &["run", "top", "--push-to", &scene.push_url()]);
        scene.site.exits(0, &["run", "top"]);
        assert!(scene.site.events().built().is_empty());
        scene.lose();
        let document = scene.why(&[]);
        assert_eq!(document["attrs"][0]["causes"][0]["cause"]["kind"], "pruned", "{document}");
        assert_eq!(document["cause"]["kind"], "new_drv", "of a nobody here knows anything");
    });
}

#[test]
fn what_another_cache_had_is_left_out_of_a_push() {
    each_nix(|nix| {
        let scene = Scene::new(nix);
        let maker = Site::of(Lab::chroot(nix), TOWER);
        scene.site.exits(0, &["run", "top"]);
        maker.exits(0, &["run", "top", "--push-to", &scene.push_url()]);
        let other = scene.site.lab.path("other.d");
        let other = format!("file://{}?secret-key={}", other.display(), scene.key.secret.display());
        // A moment ago the cache had nothing.
        scene.site.exits(0, &["run", "top", "--push-to", &other, "--refresh"]);
        let run = scene.last_run();
        scene.collect();
        scene.lose();
        let document = scene.why(&[]);
        let own = &document["attrs"][0]["causes"][0]["cause"];
        assert_eq!(own["kind"], "filtered", "{document}");
        assert!(own["run"].as_str().unwrap().starts_with(&run), "{document}");
    });
}

#[test]
fn what_is_known_after_building_only_can_be_asked_of_nobody() {
    each_nix(|nix| {
        let flake = r#"{ outputs = _: { packages.x86_64-linux.top = derivation { name = "top"; system = "x86_64-linux";
            builder = "/bin/sh"; args = [ "-c" "set -e; echo > $out" ]; __contentAddressed = true;
            outputHashMode = "recursive"; outputHashAlgo = "sha256"; }; }; }"#;
        let site = Site::of(Lab::chroot(nix), flake);
        site.lab.configure("extra-experimental-features = ca-derivations\nsubstituters = file:///nowhere");
        let document = site.exits(0, &["why", "top", "--json"]).json();
        assert_eq!(document["cause"]["kind"], "opaque", "{document}");
    });
}

#[test]
fn an_unknown_name_gives_the_nearest_and_no_name_is_refused() {
    each_nix(|nix| {
        let scene = Scene::new(nix);
        let ran = scene.site.exits(2, &["why", "topp"]);
        assert!(ran.stderr.contains("top"), "{}", ran.stderr);
        assert!(ran.out().is_empty());
        let ran = scene.site.exits(2, &["why"]);
        assert!(ran.stderr.contains("hint: drover why"), "{}", ran.stderr);
    });
}
