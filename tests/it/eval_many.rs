//! Many attrs, some of which fail: each failure its own, with its place, and the rest as Nix itself would have it.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::nix::{Lab, each_nix};
use crate::support::site::Site;

/// Packages of the fixture `many`, and how many of them fail.
const PACKAGES: usize = 1500;
const FAILING: usize = 134;

/// `flake.nix:LINE:` of the line of the fixture that holds this text, and so many lines further.
fn line(source: &str, text: &str, further: usize) -> String {
    let at = source.lines().position(|line| line.contains(text)).unwrap() + 1 + further;
    format!("flake.nix:{at}:")
}

/// What the failing package of this number among the failing ones says, and where.
fn expected(source: &str, number: usize, name: &str) -> (String, String) {
    if number % 33 == 32 {
        return ("stack overflow (possible infinite recursion)".to_owned(), String::new());
    }
    match number % 4 {
        0 => (format!("{name} was retired"), line(source, "throws = name:", 0)),
        1 => (
            format!("assertion '(name == \"another\")' failed: string '\"{name}\"'"),
            line(source, "assert name ==", 0),
        ),
        2 => (format!("attribute '{name}' missing"), line(source, "lacks = name:", 0)),
        _ => ("infinite recursion encountered".to_owned(), line(source, "x = x;", 0)),
    }
}

#[test]
fn of_1500_attrs_134_fail_each_in_its_own_way() {
    each_nix(|nix| {
        let site = Site::new(Lab::plain(nix), "many");
        let source = std::fs::read_to_string(site.flake.join("flake.nix")).unwrap();
        let ran = site.exits(3, &["plan", "--json", "--eval-workers", "2"]);
        let document = ran.json();
        let attrs = document["attrs"].as_array().unwrap();
        assert_eq!(attrs.len(), PACKAGES);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();

        let drvs: BTreeMap<String, String> = attrs
            .iter()
            .filter(|attr| attr["error"].is_null())
            .map(|attr| (text(&attr["name"]), text(&attr["drv"])))
            .collect();
        assert_eq!(drvs.len(), PACKAGES - FAILING);
        let flake = site.flake.display();
        let said = site.lab.run("nix", &["eval", "--json", &format!("{flake}#lib.healthy")]);
        assert_eq!(drvs, serde_json::from_str::<BTreeMap<String, String>>(&said).unwrap());

        let failed: Vec<&Value> = attrs.iter().filter(|attr| !attr["error"].is_null()).collect();
        assert_eq!(failed.len(), FAILING);
        for (number, attr) in failed.iter().enumerate() {
            let name = text(&attr["name"]);
            let error = &attr["error"];
            assert_eq!(
                (attr["status"].as_str(), error["class"].as_str()),
                (Some("eval_failed"), Some("eval")),
                "{attr}"
            );
            let (message, position) = expected(&source, number, &name);
            assert!(text(&error["message"]).starts_with(&message), "{name}: {error}, not {message}");
            assert!(text(&error["position"]).starts_with(&position), "{name}: {error}, not {position}");
            assert_eq!(position.is_empty(), error["position"].is_null(), "{name}: {error}");
        }
        // Only what kills its evaluator costs another one.
        let events = site.events();
        let warnings = events.of("warning");
        let deaths = warnings.iter().filter(|event| text(&event["message"]).contains("was replaced")).count();
        assert_eq!(deaths, 4, "{warnings:?}");
    });
}
