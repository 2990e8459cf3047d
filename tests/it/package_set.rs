//! A package set of 12,902 derivations, planned by drover and by Nix: that of a real distribution where its shape is at
//! hand, and a generated one always.
#![allow(clippy::print_stderr, reason = "says what was left out")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use drover::store::cache::keys::SecretKey;
use serde_json::Value;

use crate::support::nix::{Lab, Nix, each_nix, newest};
use crate::support::package_set::cache::{self, Cache, paths};
use crate::support::package_set::oracle::{self, Todo};
use crate::support::package_set::shape::Shape;
use crate::support::package_set::{OutputId, PackageSet};
use crate::support::site::{Site, base, finish, statuses, strings};

/// How many drvs no cache has.
const MISSING: usize = 1514;

/// A package set and a cache in a directory.
struct Planned {
    set: PackageSet,
    cache: Cache,
    key: SecretKey,
    dir: tempfile::TempDir,
}

/// What is to be done, by names in the store.
#[derive(Debug, Default)]
struct Said {
    build: BTreeSet<String>,
    fetch: BTreeSet<String>,
    /// Only Nix says this.
    unknown: BTreeSet<String>,
}

impl Planned {
    fn new(shape: Shape) -> Self {
        let set = PackageSet::new(shape, "/nix/store");
        let cache = Cache::lacking(&set, MISSING, 7);
        let planned = Self { set, cache, key: cache::key("set-1"), dir: tempfile::tempdir().unwrap() };
        planned.cache.write(&planned.set, &planned.cache_dir(), &planned.key);
        planned
    }

    fn cache_dir(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    fn roots(&self) -> BTreeSet<usize> {
        self.set.shape.roots.values().copied().collect()
    }

    /// A flake of all roots, and a store that has the .drv files and reads from the cache.
    fn site(&self, nix: &Nix) -> Site {
        let lab = Lab::chroot(nix);
        self.set.install(&lab.physical(), lab.command("nix-store"));
        lab.configure(&format!(
            "substituters = file://{}\ntrusted-public-keys = {}",
            self.cache_dir().display(),
            self.key.public_text()
        ));
        Site::of(lab, &self.set.flake())
    }

    fn drv_names<'a>(&self, drvs: impl IntoIterator<Item = &'a usize>) -> BTreeSet<String> {
        drvs.into_iter().map(|&drv| self.set.drvs[drv].path.to_basename()).collect()
    }

    /// Fails unless this is what was expected to be built and fetched.
    #[track_caller]
    fn expect(&self, said: &Said, expected: &Todo, who: &str) {
        same(&said.build, &self.drv_names(&expected.build), &format!("{who}: to build"));
        let either = paths(&self.set, expected.either.iter().copied());
        let fetch = paths(&self.set, expected.fetch.iter().copied());
        same(&(&said.fetch - &either), &fetch, &format!("{who}: to fetch"));
    }
}

/// Shows what is too much and what is missing, not thousands of paths.
#[track_caller]
fn same(found: &BTreeSet<String>, expected: &BTreeSet<String>, what: &str) {
    let some = |set: &BTreeSet<String>, other: &BTreeSet<String>| -> (usize, Vec<String>) {
        let only: Vec<String> = set.difference(other).cloned().collect();
        (only.len(), only.into_iter().take(5).collect())
    };
    let (more, less) = (some(found, expected), some(expected, found));
    assert!(more.0 + less.0 == 0, "{what}: {} expected, too many: {more:?}, missing: {less:?}", expected.len());
}

/// What Nix would do for these attrs.
fn dry_run<'a>(site: &Site, attrs: impl IntoIterator<Item = &'a String>) -> Said {
    let mut command = site.lab.command("nix");
    command.args(["build", "--dry-run", "--no-link"]);
    command.args(attrs.into_iter().map(|name| format!("{}#{name}", site.flake.display())));
    let ran = finish(command, &["nix build --dry-run"]);
    ran.expect(0);
    let mut sections: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    let mut section = "";
    for line in ran.stderr.lines() {
        if let Some(path) = line.strip_prefix("  /nix/store/") {
            sections.entry(section).or_default().insert(path.to_owned());
        } else {
            section =
                ["be built", "be fetched", "know how to build"].into_iter().find(|w| line.contains(w)).unwrap_or("");
        }
    }
    let mut take = |section| sections.remove(section).unwrap_or_default();
    Said { build: take("be built"), fetch: take("be fetched"), unknown: take("know how to build") }
}

/// What drover would do for all attrs, and how each stands.
fn plan(site: &Site) -> (Said, BTreeMap<String, String>) {
    let document: Value = site.exits(0, &["plan", "--json"]).json();
    let names = |key: &str| strings(&document["drvs"][key]).iter().map(|path| base(path)).collect();
    let statuses = statuses(&document).into_iter();
    let short = |attr: String| attr.rsplit('.').next().unwrap().trim_matches('"').to_owned();
    (
        Said { build: names("build"), fetch: names("fetch"), unknown: BTreeSet::new() },
        statuses.map(|(attr, status)| (short(attr), status)).collect(),
    )
}

/// drover and Nix build the same drvs and fetch the same paths for the same attrs.
fn is_planned_like_nix_does(planned: &Planned, site: &Site) {
    let (set, cache) = (&planned.set, &planned.cache);
    let expected = oracle::of_drover(set, cache, planned.roots());
    assert!(expected.build.len() >= 1000, "{} drvs to build are no test", expected.build.len());
    let nix = dry_run(site, set.shape.roots.keys());
    planned.expect(&nix, &oracle::of_nix(set, cache, planned.roots()), "Nix");

    let (ours, statuses) = plan(site);
    same(&ours.build, &nix.build, "drover and Nix: to build");
    let to_fetch =
        |drv: usize| set.shape.nodes[drv].substitutes() && set.installed(drv).iter().all(|id| cache.is_taken(*id));
    for (attr, drv) in &set.shape.roots {
        assert_eq!(statuses[attr], if to_fetch(*drv) { "to_fetch" } else { "to_build" }, "{attr}");
    }
    planned.expect(&ours, &expected, "drover");

    // Results that a cache has stay there, so Nix is asked for the others.
    let (to_build, roots): (Vec<&String>, Vec<usize>) =
        set.shape.roots.iter().filter(|(_, drv)| !to_fetch(**drv)).unzip();
    let nix = dry_run(site, to_build);
    let all = oracle::of_nix(set, cache, roots);
    planned.expect(&nix, &all, "Nix, of what is built");
    let allowed: BTreeSet<OutputId> = expected.fetch.union(&expected.either).copied().collect();
    same(&(&nix.fetch & &paths(set, allowed)), &nix.fetch, "drover may fetch what Nix does");
    assert!(ours.fetch.is_subset(&nix.fetch));
}

/// Paths that lose a reference, that reference, and a path that loses its signature. Nobody else needs any of them.
struct Faults {
    incomplete: Vec<(OutputId, OutputId)>,
    unsigned: OutputId,
}

impl Faults {
    fn choose(planned: &Planned) -> Self {
        let (set, cache) = (&planned.set, &planned.cache);
        let fetched = oracle::of_nix(set, cache, planned.roots()).fetch;
        let built = oracle::of_drover(set, cache, planned.roots()).build;
        let mut referrers: BTreeMap<OutputId, Vec<OutputId>> = BTreeMap::new();
        for id in &fetched {
            for reference in cache.records[id].references.iter().filter(|reference| *reference != id) {
                referrers.entry(*reference).or_default().push(*id);
            }
        }
        let used: BTreeSet<OutputId> = built.iter().flat_map(|drv| set.needs(*drv)).collect();
        let results: BTreeSet<OutputId> = planned.roots().iter().flat_map(|drv| set.installed(*drv)).collect();
        // Fetched because something that is built uses it, and only because of that.
        let alone = |id: &OutputId| {
            used.contains(id) && !results.contains(id) && !built.contains(&id.drv) && !referrers.contains_key(id)
        };
        let only_reference = |id: &OutputId| {
            let mut references = cache.records[id].references.iter();
            let lonely = references.find(|r| {
                let nobody_elses = referrers.get(r).is_some_and(|by| by == &[*id]);
                nobody_elses && !used.contains(r) && !results.contains(r) && !built.contains(&r.drv) && r.drv != id.drv
            })?;
            Some((*id, *lonely))
        };
        let mut incomplete: Vec<_> = fetched.iter().filter(|id| alone(id)).filter_map(only_reference).collect();
        // Each is made by a drv of its own.
        let mut makers = BTreeSet::new();
        incomplete.retain(|(_, reference)| makers.insert(reference.drv));
        incomplete.truncate(3);
        assert_eq!(incomplete.len(), 3, "not enough paths of which a reference is nobody else's");
        let spoilt = |id: &OutputId| incomplete.iter().any(|(path, gone)| path.drv == id.drv || gone.drv == id.drv);
        // A source would be taken by its content.
        let mut signed = fetched.iter().filter(|id| alone(id) && !set.shape.nodes[id.drv].fixed && !spoilt(id));
        Self { unsigned: *signed.next().unwrap(), incomplete }
    }

    /// The four paths of which Nix promises too much.
    fn promised(&self) -> BTreeSet<OutputId> {
        self.incomplete.iter().map(|(path, _)| *path).chain([self.unsigned]).collect()
    }

    /// Three records no longer name a reference, and one its signature: none of the four says what was signed.
    fn forge_records(&self, planned: &mut Planned) {
        for (path, reference) in &self.incomplete {
            let record = planned.cache.records.get_mut(path).unwrap();
            record.references.retain(|known| known != reference);
            (record.signed, record.lost) = (false, Some(*reference));
        }
        planned.cache.records.get_mut(&self.unsigned).unwrap().signed = false;
        self.rewrite(planned, self.promised());
    }

    /// The records are whole again, but what three of them refer to is not there any more.
    fn take_references(&self, planned: &mut Planned) {
        for (path, reference) in &self.incomplete {
            let record = planned.cache.records.get_mut(path).unwrap();
            record.references.push(*reference);
            (record.signed, record.lost) = (true, None);
            planned.cache.records.remove(reference);
        }
        self.rewrite(planned, self.promised());
        self.rewrite(planned, self.incomplete.iter().map(|(_, reference)| *reference));
    }

    fn rewrite(&self, planned: &Planned, ids: impl IntoIterator<Item = OutputId>) {
        for id in ids {
            planned.cache.rewrite(&planned.set, &planned.cache_dir(), &planned.key, id);
        }
    }
}

/// With faults in the cache Nix still promises four paths that no store would take; drover builds what is gone, and no
/// more than that takes. `unknown`: what Nix says that it knows nothing of.
fn builds_what_is_gone(
    planned: &Planned,
    faults: &Faults,
    (gone, unknown): (&BTreeSet<OutputId>, &BTreeSet<OutputId>),
    before: &Todo,
    site: &Site,
) {
    let (set, cache) = (&planned.set, &planned.cache);
    let nix = dry_run(site, set.shape.roots.keys());
    planned.expect(&nix, &oracle::of_nix(set, cache, planned.roots()), "Nix, with faults");
    assert!(paths(set, faults.promised()).is_subset(&nix.fetch), "Nix found out");
    same(&nix.unknown, &paths(set, unknown.iter().copied()), "Nix: unknown");

    let expected = oracle::of_drover(set, cache, planned.roots());
    let four: BTreeSet<usize> = gone.iter().map(|id| id.drv).collect();
    let more: BTreeSet<usize> = &expected.build - &before.build;
    assert!(before.build.is_subset(&expected.build) && four.is_subset(&more) && four.len() == 4);
    let mut needed = four;
    let mut open: Vec<usize> = needed.iter().copied().collect();
    while let Some(drv) = open.pop() {
        open.extend(set.shape.nodes[drv].inputs.iter().map(|(input, _)| *input).filter(|input| needed.insert(*input)));
    }
    assert!(more.is_subset(&needed), "built for nothing");
    let (ours, _) = plan(site);
    planned.expect(&ours, &expected, "drover, with faults");
}

fn agrees_with_nix(shape: Shape) {
    let mut planned = Planned::new(shape);
    let faults = Faults::choose(&planned);
    let before = oracle::of_drover(&planned.set, &planned.cache, planned.roots());
    let mut sites = Vec::new();
    each_nix(|nix| {
        let site = planned.site(nix);
        is_planned_like_nix_does(&planned, &site);
        sites.push(site);
    });
    faults.forge_records(&mut planned);
    for site in &sites {
        eprintln!("-- with forged records, with Nix {}", site.lab.nix.version);
        builds_what_is_gone(&planned, &faults, (&faults.promised(), &BTreeSet::new()), &before, site);
    }
    // What lost a reference is fetched once that is built.
    let references: BTreeSet<OutputId> = faults.incomplete.iter().map(|(_, reference)| *reference).collect();
    let gone = references.iter().copied().chain([faults.unsigned]).collect();
    faults.take_references(&mut planned);
    for site in &sites {
        eprintln!("-- with references gone, with Nix {}", site.lab.nix.version);
        builds_what_is_gone(&planned, &faults, (&gone, &references), &before, site);
    }
}

#[test]
fn a_real_package_set_is_planned_like_nix_does() {
    match Shape::real() {
        Some(shape) => agrees_with_nix(shape),
        None => {
            eprintln!("left out: package-set.json.zst is neither in $DROVER_GRAPHS nor in shared/graphs");
        }
    }
}

#[test]
fn a_generated_package_set_is_planned_like_nix_does() {
    agrees_with_nix(Shape::generated(1));
}

#[test]
fn a_plan_in_a_file_says_the_same_in_an_empty_store() {
    let planned = Planned::new(Shape::generated(1));
    // What depends on the version of Nix is looked at with fewer derivations.
    let nix = newest();
    let site = planned.site(&nix);
    let file = site.lab.work().join("plan.drover").display().to_string();
    let document = site.exits(0, &["plan", "-o", &file, "--json"]).json();
    // The same settings, another store, and no flake.
    let lab = Lab::chroot(&nix);
    std::fs::copy(site.lab.path("conf/nix.conf"), lab.path("conf/nix.conf")).unwrap();
    let flake = lab.work();
    let other = Site { lab, flake };
    let again = other.exits(0, &["plan", "--plan", &file, "--json"]).json();
    assert_eq!(statuses(&again), statuses(&document));
    assert_eq!(strings(&again["drvs"]["build"]), strings(&document["drvs"]["build"]));
    assert_eq!(strings(&again["drvs"]["fetch"]), strings(&document["drvs"]["fetch"]));
    let matrix = other.exits(0, &["matrix", "--plan", &file, "--min-seconds", "0"]).json();
    let drvs: u64 = matrix["include"].as_array().unwrap().iter().map(|row| row["drvs"].as_u64().unwrap()).sum();
    assert_eq!(drvs, document["counts"]["drvs_to_build"].as_u64().unwrap());
}
