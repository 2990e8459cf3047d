//! What shells and `man` are given: completions that shells take and offer, and pages that groff sets without a word.
#![allow(clippy::print_stderr, reason = "says what was left out")]

use std::fs;

use crate::support::nix::{Lab, newest};
use crate::support::site::{Ran, finish};

fn drover(lab: &Lab, args: &[&str]) -> Ran {
    let mut command = lab.program(env!("CARGO_BIN_EXE_drover"));
    command.args(args);
    let ran = finish(command, args);
    ran.expect(0);
    ran
}

/// What a program says, or `None`, and that is said aloud, where there is no such program.
fn answer(lab: &Lab, program: &str, args: &[&str]) -> Option<String> {
    let mut command = lab.program(program);
    let output = match command.args(args).output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("skipped: there is no {program} on PATH (nix/setup --test installs it)");
            return None;
        }
        output => output.unwrap(),
    };
    let wrong = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && wrong.is_empty(), "{program}: {wrong}");
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn shells_offer_commands_and_flags() {
    let lab = Lab::plain(&newest());
    let script = |shell: &str| lab.write(shell, &drover(&lab, &["completions", shell]).out()).display().to_string();

    let offered = |words: &str, at: usize| {
        let words: Vec<&str> = words.split(' ').collect();
        let script = format!(
            "source {}; COMP_WORDS=({}); COMP_CWORD={at}; _drover drover '{}' '{}'; echo \"${{COMPREPLY[@]}}\"",
            script("bash"),
            words.join(" "),
            words[at],
            words[at - 1]
        );
        answer(&lab, "bash", &["-c", &script]).unwrap()
    };
    assert_eq!(offered("drover aff", 1), "affected\n");
    assert_eq!(offered("drover run --push-", 2).split_whitespace().next(), Some("--push-to"));
    assert_eq!(offered("drover cache st", 2), "status\n");

    answer(&lab, "zsh", &["-n", &script("zsh")]);
    let script = format!("source {}; complete --do-complete 'drover aff'", script("fish"));
    if let Some(offered) = answer(&lab, "fish", &["-c", &script]) {
        assert!(offered.starts_with("affected\t"), "{offered}");
    }
    let mut wrong = lab.program(env!("CARGO_BIN_EXE_drover"));
    wrong.args(["completions", "tcsh"]);
    let wrong = finish(wrong, &["completions", "tcsh"]);
    assert!(wrong.expect(2).stderr.contains("hint: it takes bash, zsh, fish"), "{}", wrong.stderr);
}

#[test]
fn each_command_has_a_page() {
    let lab = Lab::plain(&newest());
    let dir = lab.work().join("share/man/man1");
    drover(&lab, &["man", dir.to_str().unwrap()]);
    assert_eq!(drover(&lab, &["man"]).out(), fs::read_to_string(dir.join("drover.1")).unwrap());

    let help = drover(&lab, &["--help"]).out();
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let listed: Vec<&str> = listed.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(listed.len() > 10, "{help}");
    let commands = listed.iter().map(|name| format!("drover-{name}.1"));
    for page in commands.chain(["drover.1".to_owned(), "drover-cache-prune.1".to_owned()]) {
        let file = dir.join(&page);
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{page}: {error}"));
        assert!(text.contains(".SH EXAMPLES") || page == "drover.1", "{text}");
        // What groff finds wrong in a page is on stderr.
        let Some(set) = answer(&lab, "groff", &["-Kutf8", "-man", "-ww", "-Tutf8", file.to_str().unwrap()]) else {
            return;
        };
        assert!(set.contains("drover"), "{set}");
    }
}
