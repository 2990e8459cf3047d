//! The memory of evaluators on real Nixes: one budget for all of them; what does not fit into it fails alone, and is
//! told with what it took.

use std::path::PathBuf;
use std::sync::Arc;

use drover::eval::what::Name;
use drover::eval::{Answer, Budget, EvalMsg, EvalOptions, Expected};
use drover::event::Class;

use crate::eval::{Said, commit, evaluate, evaluate_with, lock, options, repls};
use crate::support::nix::{Lab, each_nix, newest};
use crate::support::site::Site;

const MIB: u64 = 1 << 20;

/// Attrs by name with the MiB that each takes, and keeps as long as its evaluator lives.
fn hungry(attrs: &[(&str, u64)]) -> String {
    let attrs: String = attrs.iter().map(|(name, mib)| format!("{name} = hungry \"{name}\" {mib};\n")).collect();
    format!(
        r#"{{ outputs = {{ self }}: let
          grow = text: n: if n == 0 then text else grow (text + text) (n - 1);
          block = grow "0123456789abcdef" 19;
          hungry = name: mib: let
            held = builtins.genList (n: name + toString n + block) (mib / 8);
            drv = derivation {{ inherit name; system = "x86_64-linux"; builder = "/bin/sh"; args = [ "-c" "echo > $out" ]; }};
          in builtins.deepSeq held (drv // {{ inherit held; }});
        in {{ packages.x86_64-linux = {{ {attrs} }}; }}; }}"#
    )
}

fn flake(lab: &Lab, attrs: &[(&str, u64)]) -> PathBuf {
    lab.write("hungry/flake.nix", &hungry(attrs));
    let dir = lab.work().join("hungry");
    commit(lab, &dir);
    dir
}

/// The attrs without a derivation, by their last part, with why.
fn failed(said: &Said) -> Vec<(&str, Class, String)> {
    let failed = said.answers.iter().filter_map(|(attr, answer)| match answer {
        Answer::Failed(failure) => Some((attr.rsplit('.').next()?, failure.class, failure.message.to_string())),
        Answer::Drv(_) | Answer::Nothing(_) | Answer::Finding(_) => None,
    });
    failed.collect()
}

/// Bytes that all evaluators of a lab hold.
fn held(store: &str) -> u64 {
    let resident = |pid: i32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    };
    repls(store).into_iter().map(resident).sum()
}

/// Evaluates, looking at every message at what all evaluators hold; gives the most.
fn watched(lab: &Lab, options: &EvalOptions) -> (Said, u64) {
    let store = lab.store_dir();
    let mut most = 0;
    let said = evaluate_with(options, lock(options).unwrap(), None, |message| {
        if matches!(message, EvalMsg::Started { .. } | EvalMsg::Ended { .. }) {
            most = most.max(held(&store));
        }
    });
    (said.unwrap(), most)
}

#[test]
fn forty_heavy_attrs_fit_into_a_budget_and_one_that_does_not_fails_alone() {
    each_nix(|nix| {
        let lab = Lab::plain(nix);
        let names: Vec<String> = (0..40).map(|n| format!("a{n:02}")).collect();
        let mut attrs: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 300)).collect();
        attrs.insert(20, ("a19-huge", 4096));
        let dir = flake(&lab, &attrs);
        let mut options = options(&lab, &dir.display().to_string());
        let budget = 1_500_000_000;
        options.budget = Budget::set(budget);
        options.cores = 4;
        // More than fit beside each other.
        options.workers = Some(4);
        let (said, most) = watched(&lab, &options);
        assert_eq!(said.answers.len(), 41);
        let failed = failed(&said);
        let [("a19-huge", Class::Oom, message)] = failed.as_slice() else { panic!("{failed:?}") };
        let took = message.strip_prefix("the evaluator ran out of memory, which was 1430 MiB (--eval-memory)");
        let took = took.unwrap_or_else(|| panic!("{message}")).strip_prefix(", when it held ").unwrap();
        let took: u64 = took.strip_suffix(" MiB").unwrap().parse().unwrap();
        let because = |words: &str| said.replaced.iter().filter(|why| why.contains(words)).count();
        // On a busy machine Nix's collector may be the first to see that the huge one needs more than there is. Then
        // that is the end of it, and how much it held was seen some time before.
        let by_itself = said.replaced.iter().any(|why| !why.contains(" held "));
        assert!(by_itself || took >= budget / MIB, "{message}");
        // What was killed is tried again alone when all others are answered, and nothing is tried a third time.
        let times = |attr: &String| said.started.iter().filter(|other| *other == attr).count();
        let again = said.started.iter().rev().take_while(|attr| times(attr) > 1).count();
        assert_eq!(said.started.len() - again, 41, "{:?}", said.started);
        assert!(said.started.iter().all(|attr| times(attr) <= 2), "{:?}", said.started);
        assert_eq!(because("it is tried again alone"), again, "{:?}", said.replaced);
        assert!(by_itself || again > 0, "{:?}", said.replaced);
        // Between two samples they go on taking.
        assert!(most < budget / 2 * 3, "together they held {} MiB", most / MIB);
    });
}

#[test]
fn what_an_attr_took_is_known() {
    each_nix(|nix| {
        let lab = Lab::plain(nix);
        let dir = flake(&lab, &[("little", 8), ("much", 160)]);
        let mut options = options(&lab, &dir.display().to_string());
        options.workers = Some(1);
        let mut costs = Vec::new();
        evaluate_with(&options, lock(&options).unwrap(), None, |message| {
            if let EvalMsg::Ended { cost, .. } = message {
                costs.push((cost.peak.unwrap() / MIB, cost.grown.unwrap() / MIB));
            }
        })
        .unwrap();
        let [(little, little_grown), (much, much_grown)] = costs[..] else { panic!("{costs:?}") };
        assert!(little_grown < 100 && little_grown < little, "{costs:?}");
        assert!((150..500).contains(&much_grown) && much > much_grown, "{costs:?}");
    });
}

#[test]
fn attrs_that_were_slow_go_first() {
    let lab = Lab::plain(&newest());
    let dir = flake(&lab, &[("a", 0), ("b", 0), ("c", 0), ("d", 0)]);
    let mut options = options(&lab, &dir.display().to_string());
    options.workers = Some(1);
    let path = |name: &str| format!("packages.x86_64-linux.{name}");
    let seconds = [(path("a"), 0.01), (path("b"), 0.012), (path("c"), 1.5)].into();
    options.expected = Arc::new(Expected { seconds, ..Expected::default() });
    let said = evaluate(&options, lock(&options).unwrap(), None).unwrap();
    // What is not known is taken for as long as the mean.
    assert_eq!(said.started, ["c", "d", "a", "b"].map(path));
    // Those that take long are worth an evaluator each, however few they are.
    options.workers = None;
    options.budget = Budget::set(4 << 30);
    assert_eq!(evaluate(&options, lock(&options).unwrap(), None).unwrap().ready, 2);
    options.expected = Arc::default();
    assert_eq!(evaluate(&options, lock(&options).unwrap(), None).unwrap().ready, 1);
    options.selection.names = vec![Name::parse("b").unwrap()];
    assert_eq!(evaluate(&options, lock(&options).unwrap(), None).unwrap().started, [path("b")]);
}

#[test]
fn traces_belong_to_their_attr() {
    each_nix(|nix| {
        let lab = Lab::plain(nix);
        lab.write(
            "traces/flake.nix",
            r#"{ outputs = { self }: let good = name: derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh"; }; in {
              packages.x86_64-linux = {
                a = builtins.trace "two\nlines" (good "a");
                b = good "b";
                c = builtins.foldl' (drv: n: builtins.trace "c ${toString n}" drv) (good "c") (builtins.genList (n: n) 300);
                d = builtins.trace "then it fails" (throw "no");
              };
            }; }"#,
        );
        let dir = lab.work().join("traces");
        commit(&lab, &dir);
        let options = options(&lab, &dir.display().to_string());
        let said = evaluate(&options, lock(&options).unwrap(), None).unwrap();
        let of = |name: &str| -> Vec<&str> {
            let attr = format!("packages.x86_64-linux.{name}");
            said.traces.iter().filter(|(of, _)| *of == attr).map(|(_, text)| text.as_str()).collect()
        };
        assert_eq!(of("a"), ["two\nlines"]);
        assert_eq!(of("b"), [""; 0]);
        assert_eq!((of("c").len(), of("c")[0]), (100, "c 0"));
        assert_eq!(of("d"), ["then it fails"]);
    });
}

#[test]
fn traces_are_shown_to_those_who_want_to_see_more() {
    let flake = r#"{ outputs = { self }: { packages.x86_64-linux.noisy = builtins.trace "it has 3 disks" (derivation {
        name = "noisy"; system = "x86_64-linux"; builder = "/bin/sh"; }); }; }"#;
    let site = Site::of(Lab::plain(&newest()), flake);
    assert!(!site.exits(0, &["plan"]).stderr.contains("disks"));
    let ran = site.exits(0, &["plan", "-v", "--refresh"]);
    let line = ran.stderr.lines().find(|line| line.contains("disks")).unwrap_or_else(|| panic!("{}", ran.stderr));
    assert!(line.contains("trace") && line.ends_with("noisy: it has 3 disks"), "{line}");
}

#[test]
fn a_run_tells_what_evaluations_took_and_remembers_how_long() {
    each_nix(|nix| {
        let site = Site::of(Lab::plain(nix), &hungry(&[("little", 8), ("huge", 2048)]));
        let ran = site.exits(3, &["plan", "--json", "--eval-memory", "300MiB"]);
        let document = ran.json();
        let attr = |name: &str| document["attrs"].as_array().unwrap().iter().find(|attr| attr["name"] == name).unwrap();
        assert_eq!(attr("little")["status"], "to_build");
        assert_eq!(attr("huge")["error"]["class"], "oom");
        let message = attr("huge")["error"]["message"].as_str().unwrap();
        assert!(message.starts_with("the evaluator ran out of memory, which was 300 MiB (--eval-memory)"), "{message}");
        let events = site.events();
        let ended = events.of("eval_ended");
        assert_eq!(ended.len(), 2);
        for event in &ended {
            let bytes = |field: &str| event[field].as_u64().unwrap_or_else(|| panic!("{event}"));
            assert!(bytes("grown") > 0 && bytes("peak") > bytes("grown"), "{event}");
        }
        // The next run takes the slow one first.
        site.drover(&["plan", "--eval-memory", "300MiB", "--refresh"]);
        let events = site.events();
        let first = events.of("eval_started")[0]["attr"].as_u64().unwrap();
        let listed = events.of("attr_listed");
        let name = |id: u64| listed.iter().find(|event| event["attr"] == id).unwrap()["name"].clone();
        assert_eq!(name(first), "huge");
    });
}
