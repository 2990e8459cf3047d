//! The comparison, case by case; random graphs are in `random`.

mod random;
mod world;

use super::*;
use world::{Spec, World, answer, source, told, why};

/// A word without the hash of a store path.
pub(super) fn short(word: &str) -> String {
    match word.strip_prefix("/nix/store/") {
        Some(rest) if rest.len() > 33 => format!("…-{}", &rest[33..]),
        _ => word.to_owned(),
    }
}

/// A host over a unit over a package over a library; `change` makes the head of it.
fn told_of(specs: &[Spec], change: impl FnOnce(&mut Vec<Spec>)) -> Vec<String> {
    let mut changed = specs.to_vec();
    change(&mut changed);
    told(&why(&World::of(specs), &World::of(&changed), Masks::default()))
}

fn host() -> Vec<Spec> {
    vec![
        Spec::new("zlib-1.3", &[]),
        Spec::new("nginx-1.29.3.tar.gz", &[])
            .var("url", "https://x/1.29.3")
            .with(|it| it.fixed = Some("1.29.3".into())),
        Spec::new("nginx-1.29.3", &[0]).var("version", "1.29.3").with(|it| it.named = vec![("src", 1)]),
        Spec::new("unit-nginx.service", &[2]).var("text", "Restart=always\nUser=www\n"),
        Spec::new("nixos-system-web1-26.05", &[3, 0]),
    ]
}

#[test]
fn each_kind_of_difference_is_found_where_it_is() {
    let one = |change: fn(&mut Vec<Spec>)| told_of(&host(), change);
    assert_eq!(
        one(|it| it[3].env[0].1 = "Restart=never\nUser=www\n".into()),
        ["variable text: Restart=always|User=www| → Restart=never|User=www|"]
    );
    assert_eq!(one(|it| it[0].builder = Some("/bin/bash".into())), ["builder builder: /bin/sh → /bin/bash"]);
    assert_eq!(one(|it| it[0].args = vec!["-x".into()]), ["args args:  → -x"]);
    assert_eq!(one(|it| it[0].system = Some("riscv64-linux".into())), ["system system: x86_64-linux → riscv64-linux"]);
    assert_eq!(one(|it| it[0].outputs = vec!["out", "dev"]), ["output outputs: out → dev out"]);
    assert_eq!(one(|it| it[2] = it[2].clone().var("strictDeps", "1")), ["variable strictDeps: - → 1"]);
    assert_eq!(
        one(|it| it[3].inputs = vec![2, 0]),
        ["added_input zlib-1.3: - → zlib-1.3"],
        "the variable only names what is new"
    );
    assert_eq!(one(|it| it[4].inputs = vec![3]), ["removed_input zlib-1.3: zlib-1.3 → -"]);
    assert_eq!(
        one(|it| {
            it[3].inputs = vec![2, 0];
            it[3].env[0].1 = "Restart=never".into();
        }),
        ["added_input zlib-1.3: - → zlib-1.3"],
        "what is in a variable of its own"
    );
}

#[test]
fn a_new_version_is_one_cause_with_its_tarball() {
    let bump = |it: &mut Vec<Spec>| {
        for spec in &mut it[1..3] {
            let newer = |text: &str| text.replace("1.29.3", "1.29.4");
            spec.name = newer(&spec.name);
            spec.env = spec.env.iter().map(|(name, value)| (name.clone(), newer(value))).collect();
            spec.fixed = spec.fixed.as_deref().map(newer);
        }
    };
    assert_eq!(told_of(&host(), bump), ["dependency nginx: 1.29.3 → 1.29.4"]);
    let replaced = |it: &mut Vec<Spec>| it[0].name = "zlib-ng-2.2".into();
    assert_eq!(told_of(&host(), replaced), ["dependency zlib-ng: zlib-1.3 → zlib-ng-2.2"]);
}

#[test]
fn sources_and_patches_are_told_apart() {
    let mut specs = host();
    specs[2].sources = vec![("patches", "fix.patch".into(), "a".into()), ("conf", "nginx.conf".into(), "a".into())];
    let told = |change: fn(&mut Vec<Spec>)| told_of(&specs, change);
    assert_eq!(told(|it| it[2].sources[0].2 = "b".into()), ["patch fix.patch: …-fix.patch → …-fix.patch"]);
    assert_eq!(told(|it| it[2].sources[1].2 = "b".into()), ["source nginx.conf: …-nginx.conf → …-nginx.conf"]);
    let more = told(|it| it[2].sources.push(("patches", "more.patch".into(), "c".into())));
    assert_eq!(more, ["patch more.patch: - → …-more.patch"]);
    let fetched = |it: &mut Vec<Spec>| {
        it[2].named = vec![("patches", 1)];
    };
    let mut base = host();
    fetched(&mut base);
    assert_eq!(
        told_of(&base, |it| it[1].env[0].1 = "https://elsewhere/".into()),
        ["patch url: https://x/1.29.3 → https://elsewhere/"],
        "a patch that is downloaded is one, too"
    );
}

#[test]
fn another_url_of_the_same_content_changes_no_output() {
    let (base, mut specs) = (World::of(&host()), host());
    specs[1].env[0].1 = "https://mirror/1.29.3".into();
    let head = World::of(&specs);
    assert_ne!(base.last(), head.last());
    let why = why(&base, &head, Masks::default());
    assert_eq!(told(&why), ["variable url: https://x/1.29.3 → https://mirror/1.29.3"]);
    assert!(why.same_outputs && why.causes[0].cause.same_outputs);
    let chain: Vec<&str> = why.causes[0].chain.iter().map(|(_, head)| head.name()).collect();
    assert_eq!(
        chain,
        ["nixos-system-web1-26.05.drv", "unit-nginx.service.drv", "nginx-1.29.3.drv", "nginx-1.29.3.tar.gz.drv"]
    );
}

#[test]
fn structured_attrs_and_outputs_that_are_not_known_yet_are_compared_alike() {
    for change in [|it: &mut Spec| it.structured = true, |it: &mut Spec| it.floating = true] {
        let specs: Vec<Spec> =
            host().into_iter().map(|spec| if spec.fixed.is_some() { spec } else { spec.with(change) }).collect();
        let told = told_of(&specs, |it| it[0] = it[0].clone().var("flags", "-O3"));
        assert_eq!(told, ["variable flags: - → -O3"]);
    }
}

#[test]
fn what_only_embeds_the_revision_is_so_marked() {
    let with = |rev: &str, tree: &str, motd: &str| {
        let mut specs = host();
        specs[3] = specs[3].clone().var("text", &format!("from {rev}")).var("label", &rev[..7]).var("motd", motd);
        specs[4].sources = vec![("self", "source".into(), tree.into())];
        specs[4].name = format!("nixos-system-web1-26.05.{}", &rev[..7]);
        World::of(&specs)
    };
    let (ours, theirs) = ("0a1b2c3d4e5f60718293a4b5c6d7e8f901234567", "9f8e7d6c5b4a39281706f5e4d3c2b1a098765432");
    let masks = Masks {
        texts: vec![(ours.into(), theirs.into()), (ours[..7].into(), theirs[..7].into())],
        sources: vec![(source("source", "one"), source("source", "two"))],
    };
    let base = with(ours, "one", "hello");
    let same = why(&base, &with(theirs, "two", "hello"), masks.clone());
    assert!(same.revision_only);
    assert!(same.causes.iter().all(|reached| reached.cause.kind == CauseKind::Revision), "{:?}", told(&same));
    assert_eq!(same.causes.len(), 2, "the host by its name and tree, the unit by its text");
    assert!(!why(&base, &with(theirs, "two", "hello"), Masks::default()).revision_only);
    let other = why(&base, &with(theirs, "two", "good bye"), masks);
    assert!(!other.revision_only);
    assert!(told(&other).contains(&"variable motd: hello → good bye".to_owned()), "{:?}", told(&other));
}

#[test]
fn many_hosts_over_one_change_cost_one_walk() {
    let hosts = 500;
    let world = |version: &str| {
        let mut specs = host();
        specs[0] = specs[0].clone().var("flags", version);
        specs.extend((0..hosts).map(|n| Spec::new(&format!("nixos-system-web{n}-26.05"), &[3])));
        World::of(&specs)
    };
    let (base, head) = (world("a"), world("b"));
    let mut lockstep = Lockstep::new(Masks::default());
    let pairs: Vec<_> = (5..5 + hosts).map(|at| (base.path(at), head.path(at))).collect();
    for (base, head) in &pairs {
        lockstep.compare(base, head);
    }
    // Two .drvs a host, and three of each side below them: unit, package, library. The tarball is the same.
    assert_eq!(answer(&mut lockstep, &[&base, &head]), 2 * hosts + 2 * 3);
    assert_eq!(lockstep.pairs.len(), hosts + 3);
    let first = lockstep.why(pairs[0].0, pairs[0].1).unwrap();
    for (base, head) in &pairs {
        let why = lockstep.why(base, head).unwrap();
        assert!(Arc::ptr_eq(&why.causes[0].cause, &first.causes[0].cause));
        assert_eq!((why.causes.len(), why.causes[0].chain.len()), (1, 4));
    }
    assert!(lockstep.drvs.iter().all(|drv| drv.drv().is_none()), "nothing but what users need is kept");
}

#[test]
fn what_many_say_alike_is_one_cause_however_many_they_are() {
    let most = 200;
    let world = |salt: &str, odd: &str| {
        let each = |n: usize| {
            let script = format!("set {salt}\necho pkg{n}\n");
            Spec::new(&format!("pkg{n}-1"), &(n.saturating_sub(3)..n).collect::<Vec<_>>())
                .var("salt", if n == 7 { odd } else { salt })
                .var("script", &script)
        };
        World::of(&(0..most).map(each).collect::<Vec<_>>())
    };
    let (base, head) = (world("1\n", "1\n"), world("77\n", "8\n"));
    let mut lockstep = Lockstep::new(Masks::default());
    lockstep.compare(base.last(), head.last());
    lockstep.compare(base.path(9), head.path(9));
    answer(&mut lockstep, &[&base, &head]);
    let why = lockstep.why(base.last(), head.last()).unwrap();
    assert!(!why.more && !why.cut);
    let counts: Vec<(usize, usize)> = why.causes.iter().map(|one| (one.count, one.chain.len())).collect();
    assert_eq!(counts, [(most - 1, 1), (1, 65)], "one for all, and the one that says something else");
    assert_eq!(why.causes[0].drvs.len(), 48);
    let names: Vec<&str> = why.causes[0].drvs.iter().take(3).map(|(_, head)| head.name()).collect();
    assert_eq!(names[0], "pkg199-1.drv", "the nearest first: {names:?}");
    let few = lockstep.why(base.path(9), head.path(9)).unwrap();
    assert_eq!(few.causes.iter().map(|one| one.count).collect::<Vec<_>>(), [9, 1]);
    assert_eq!(few.causes[0].fold, why.causes[0].fold);
    let both = [(base.path(9), head.path(9)), (base.last(), head.last())];
    let all = lockstep.causes(both.into_iter());
    assert_eq!(all.iter().map(|one| (one.count, one.drvs.len())).collect::<Vec<_>>(), [(most - 1, most - 1), (1, 1)]);
}

#[test]
fn a_drv_that_is_gone_is_said_and_the_rest_is_compared() {
    let mut specs = host();
    specs[0] = specs[0].clone().var("flags", "-O3");
    specs[3].env[0].1 = "Restart=never".into();
    let (base, mut head) = (World::of(&host()), World::of(&specs));
    head.drvs.retain(|(path, _)| path.name() != "nginx-1.29.3.drv");
    let why = why(&base, &head, Masks::default());
    assert!(!why.revision_only);
    let kinds: Vec<_> = why.causes.iter().map(|reached| reached.cause.kind).collect();
    assert_eq!(kinds.len(), 3, "the library itself, the unit, and the package that cannot be read");
    assert!(kinds.contains(&CauseKind::Unreadable) && kinds.contains(&CauseKind::Variable));
}

#[test]
fn forged_drvs_that_need_one_another_end() {
    let ring = |seed: &str| {
        let world = World::of(&host());
        let paths: Vec<StorePath> = (0..3).map(|n| source(&format!("d{n}.drv"), seed)).collect();
        let drvs = (0..3).map(|n| {
            let builder = world.drvs[0].1.clone().into_builder();
            let drv = builder.input_derivation(paths[(n + 1) % 3].clone(), InputDerivation::new(["out"]));
            let drv = drv.build_with_input_hashes(|_| [n as u8; 32]).unwrap().into_derivation();
            (paths[n].clone(), drv)
        });
        World { drvs: drvs.collect() }
    };
    let (base, head) = (ring("a"), ring("b"));
    let why = why(&base, &head, Masks::default());
    assert!(!why.revision_only);
}

#[test]
fn two_equal_drvs_need_no_look_and_strangers_have_no_answer() {
    let world = World::of(&host());
    let mut lockstep = Lockstep::new(Masks::default());
    lockstep.compare(world.last(), world.last());
    assert!(lockstep.questions().is_empty());
    assert_eq!(lockstep.why(world.last(), world.last()).unwrap().causes, []);
    assert_eq!(lockstep.is_equal_but_for_masks(world.last(), world.last()), Some(true));
    assert_eq!(lockstep.why(world.path(0), world.path(1)), None);
}
