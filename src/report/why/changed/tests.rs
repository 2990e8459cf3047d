use super::*;
use crate::report::text::{Style, render};

fn drv(name: &str) -> (Text, Text) {
    (format!("/nix/store/{}-{name}.drv", "a".repeat(32)).into(), name.into())
}

fn cause(place: &str, kind: CauseKind, name: &str, base: &str, head: &str) -> Cause {
    let (from, to) = (Some(base.to_owned()), Some(head.to_owned()));
    let detail =
        Detail { kind, name: name.into(), base: from.clone(), head: to.clone(), revision: false, files: Vec::new() };
    let path = drv(place).0;
    Cause {
        kind,
        name: name.into(),
        from,
        to,
        base_drv: path.clone(),
        head_drv: path,
        same_outputs: false,
        details: vec![detail],
    }
}

fn attr(name: &str, causes: Vec<Reached>) -> Attr {
    Attr {
        attr: format!("nixosConfigurations.{name}"),
        name: name.into(),
        difference: Difference::Changed,
        same_outputs: false,
        revision_only: false,
        causes,
        more: false,
        closure: None,
        error: None,
    }
}

/// A cause of this number in these derivations, of which there are more.
fn reached(cause: usize, names: &[&str], count: usize) -> Reached {
    let drvs: Vec<(Text, Text)> = names.iter().map(|name| drv(name)).collect();
    Reached { cause, fold: cause, chain: drvs[..1].to_vec(), drvs, count }
}

/// Two hosts with one salt, of which one has another variable, too, and a third with both.
fn salted() -> Answer {
    let salt = ["nixos-system-a-26.05", "nixos-system-b-26.05", "nixos-system-c-26.05", "pkg1", "pkg2"];
    let salted = |own: &str| reached(0, &[own, "pkg1", "pkg2"], 3);
    let motd = || reached(1, &["etc"], 1);
    Answer {
        base: "main@a01b77e".into(),
        paths: vec!["salt".into()],
        attrs: vec![
            attr("a", vec![salted(salt[0])]),
            attr("b", vec![salted(salt[1]), motd()]),
            attr("c", vec![salted(salt[2]), motd()]),
        ],
        causes: vec![
            cause(salt[0], CauseKind::Variable, "salt", "1\n", "77\n"),
            cause("etc", CauseKind::Variable, "motd", "hi", "ho"),
        ],
        folds: [(0, salt.map(drv).to_vec()), (1, vec![drv("etc")])].into(),
        cut: false,
    }
}

fn shown(answer: &Answer, one: bool, width: usize) -> String {
    render(&screen(answer, one, width), Style::default())
}

#[test]
fn one_change_in_many_derivations_is_one_cause() {
    let answer = salted();
    assert_eq!(
        shown(&answer, false, 120),
        "a b c  the variable salt differs in 5 drvs: 1 → 77\n    \
         nixos-system-a-26.05, nixos-system-b-26.05, nixos-system-c-26.05 … 2 more\n\
         b c    etc: the variable motd differs\n    hi → ho\n\
         in the repository  salt\n"
    );
    let one = Answer { attrs: vec![answer.attrs[0].clone()], ..answer };
    assert_eq!(
        shown(&one, true, 120),
        "a  differs from main@a01b77e\n  the variable salt differs in 3 drvs: 1 → 77   nixos-system-a-26.05, pkg1, pkg2\n\
         in the repository  salt\n"
    );
}

#[test]
fn attrs_with_the_same_causes_stand_there_once() {
    let mut answer = salted();
    answer.attrs.remove(0);
    let text = shown(&answer, false, 80);
    assert_eq!(text.matches("b c").count(), 1, "{text}");
    assert!(text.contains("\n     etc: the variable motd differs\n"), "{text}");
    assert_eq!(groups(&answer, &answer.attrs.iter().collect::<Vec<_>>()).len(), 2, "each cause by itself");
}

#[test]
fn what_was_not_counted_to_the_end_is_said() {
    let answer = Answer { cut: true, ..salted() };
    let text = shown(&answer, false, 80);
    assert!(text.contains("differs in at least 5 drvs: 1 → 77"), "{text}");
    let document = serde_json::to_value(document(&answer, 0)).unwrap();
    assert_eq!(document["cause"]["count"], 3);
    assert_eq!(document["groups"][0]["cause"]["count"], 5);
    assert_eq!(document["groups"][0]["cause"]["drvs"][3]["name"], "pkg1");
    assert_eq!(document["groups"][0]["cause"]["at_least"], true);
}

#[test]
fn nothing_is_wider_than_the_screen() {
    let mut answer = salted();
    answer.causes[1].details[0].head = Some("a very long message of the day ".repeat(4));
    for (one, attrs) in [(false, 3), (true, 1)] {
        answer.attrs.rotate_left(1);
        answer.attrs.truncate(attrs);
        for width in [40, 60, 80] {
            for line in screen(&answer, one, width) {
                assert!(line.width() <= width, "{width}: {}", line.render(Style::default()));
            }
        }
    }
}
