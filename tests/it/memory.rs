//! What caches said is remembered from run to run: nobody is asked twice, and what turns out to be wrong is forgotten.

use std::fs;
use std::path::PathBuf;

use crate::support::fake_cache::{FakeCache, Fault};
use crate::support::nix::{Lab, newest};
use crate::support::site::{Key, Site, narinfos, strings};

/// The cache of the fleet's results, behind HTTP, and the site whose runs filled it.
fn filled() -> (Site, Key, FakeCache) {
    let site = Site::fleet(Lab::chroot(&newest()));
    let key = site.key("fleet-1");
    site.exits(0, &["run", "chain", "uses-headers", "--push-to", &site.cache_url(&key)]);
    let cache = FakeCache::start(&site.cache());
    (site, key, cache)
}

/// The same flake with an empty store that reads from the cache.
fn reader(site: &Site, key: &Key, cache: &FakeCache) -> Site {
    let reader = Site { flake: site.flake.clone(), lab: Lab::chroot(&newest()) };
    reader.lab.configure(&format!("substituters = {}\ntrusted-public-keys = {}", cache.url, key.public));
    reader
}

fn memory(site: &Site) -> PathBuf {
    site.lab.path("cache").join("drover/answers.sqlite")
}

/// How many records a plan of the greeting asks for, and what it is to build and to fetch.
fn plan(site: &Site, cache: &FakeCache, more: &[&str]) -> (usize, [Vec<String>; 2]) {
    let records = || cache.log().iter().filter(|request| request.name.ends_with(".narinfo")).count();
    let before = records();
    let document = site.exits(0, &[&["plan", "greeting", "--json"], more].concat()).json();
    let drvs = ["build", "fetch"].map(|what| strings(&document["drvs"][what]).into_iter().collect());
    (records() - before, drvs)
}

#[test]
fn a_cache_is_asked_once_for_each_path() {
    let (site, key, cache) = filled();
    let reader = reader(&site, &key, &cache);
    let (asked, first) = plan(&reader, &cache, &[]);
    assert!(asked > 2 && first.iter().all(|drvs| !drvs.is_empty()), "{asked} {first:?}");
    assert_eq!(plan(&reader, &cache, &[]), (0, first.clone()));
    assert_eq!(plan(&reader, &cache, &["--refresh"]), (asked, first.clone()));
    assert_eq!(plan(&reader, &cache, &[]), (0, first));
}

#[test]
fn a_memory_that_is_no_good_is_told_of_and_begun_anew() {
    let (site, key, cache) = filled();
    let reader = reader(&site, &key, &cache);
    let (asked, first) = plan(&reader, &cache, &[]);
    // With nothing beside it that would mend it.
    fs::remove_dir_all(memory(&reader).parent().unwrap()).unwrap();
    fs::create_dir(memory(&reader).parent().unwrap()).unwrap();
    fs::write(memory(&reader), "no database ".repeat(1000)).unwrap();
    let ran = reader.exits(0, &["plan", "greeting"]);
    let told = ran.stderr.lines().filter(|line| line.contains("what caches said is not remembered")).count();
    assert_eq!(told, 1, "{}", ran.stderr);
    assert_eq!(plan(&reader, &cache, &[]), (asked, first.clone()));
    assert_eq!(plan(&reader, &cache, &[]), (0, first));
}

#[test]
fn what_could_not_be_fetched_is_asked_for_again() {
    let (site, key, cache) = filled();
    let first = reader(&site, &key, &cache);
    plan(&first, &cache, &[]);
    let records = narinfos(&site.cache());
    let (path, record) = records.iter().find(|(path, _)| path.ends_with("-chain-d")).unwrap();
    let nar = record.lines().find_map(|line| line.strip_prefix("URL: ")).unwrap();
    cache.always(nar, Fault::Status(404));
    let name = format!("{}.narinfo", &path[..32]);
    let asked = cache.requests(&name);
    first.exits(0, &["run", "greeting"]);
    assert_eq!(first.events().built(), ["chain-d", "check-greeting"]);

    // Another store with the same memory.
    let second = reader(&site, &key, &cache);
    let (ours, theirs) = (second.lab.path("cache"), first.lab.path("cache"));
    fs::remove_dir_all(&ours).unwrap();
    std::os::unix::fs::symlink(theirs, ours).unwrap();
    let before = cache.requests(&name);
    let (again, _) = plan(&second, &cache, &[]);
    assert_eq!((again, cache.requests(&name) - before), (1, 1), "{name} was asked for {asked} times before");
}
