//! Parts of a log that can be folded: for GitLab what happened, and each failure; for GitHub, Forgejo and Gitea, which
//! show what is folded only to who unfolds it, what builds have said.
//!
//! A group is what lies between the lines `::group::HEADING` and `::endgroup::`. A section is what lies between `ESC[0Ksection_start:TIME:NAME CR ESC[0K` and the same with `section_end`; what
//! follows on the first line is its heading. Times are seconds since 1970.

use super::number::plural;

/// The section in which all that happens is told.
pub const RUN: &str = "drover_run";

/// The beginning of a section; the heading follows on the same line.
#[must_use]
pub fn start(name: &str, time: i64) -> String {
    mark("start", name, time)
}

/// Its end, without a newline.
#[must_use]
pub fn end(name: &str, time: i64) -> String {
    mark("end", name, time)
}

fn mark(which: &str, name: &str, time: i64) -> String {
    format!("\u{1b}[0Ksection_{which}:{time}:{name}\r\u{1b}[0K")
}

/// The lines of a verdict with each paragraph of several lines as a section; what stands alone stays outside.
#[must_use]
pub fn folded(lines: &[String], time: i64) -> String {
    let mut out = String::new();
    for (n, paragraph) in lines.split(|line| line.is_empty()).filter(|paragraph| !paragraph.is_empty()).enumerate() {
        let name = format!("drover_{}", n + 1);
        let folds = paragraph.len() > 1;
        if folds {
            out.push_str(&start(&name, time));
        }
        out.extend(paragraph.iter().flat_map(|line| [line, "\n"]));
        if folds {
            out.push_str(&end(&name, time));
            out.push('\n');
        }
    }
    out
}

/// The lines of a verdict, of each of which it is told whether a build has said it, with what builds have said in groups.
#[must_use]
pub fn grouped(lines: &[(bool, String)]) -> String {
    let mut out = String::new();
    for part in lines.chunk_by(|(one, _), (next, _)| one == next) {
        let said = part.first().is_some_and(|(said, _)| *said);
        if said {
            out.push_str(&format!("::group::the end of its log, {}\n", plural(part.len(), "line", "lines")));
        }
        out.extend(part.iter().flat_map(|(_, line)| [line, "\n"]));
        if said {
            out.push_str("::endgroup::\n");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_builds_said_is_a_group_and_nothing_else_is() {
        let lines =
            [(false, "FAILED  web1"), (true, "    no"), (true, "    no!"), (false, "  repeat"), (true, "    x")];
        assert_eq!(
            grouped(&lines.map(|(said, line)| (said, line.to_owned()))),
            "FAILED  web1\n::group::the end of its log, 2 lines\n    no\n    no!\n::endgroup::\n  repeat\n\
             ::group::the end of its log, 1 line\n    x\n::endgroup::\n"
        );
    }

    #[test]
    fn each_failure_is_a_section_and_the_last_line_is_not() {
        let lines = ["FAILED  web1", "  no", "", "", "FAILED  web2", "  no", "", "36 hosts are fine."];
        let folded = folded(&lines.map(str::to_owned), 7);
        let mark = |which: &str, n: u32| format!("\u{1b}[0Ksection_{which}:7:drover_{n}\r\u{1b}[0K");
        let failure = |n: u32| format!("{}FAILED  web{n}\n  no\n{}\n", mark("start", n), mark("end", n));
        assert_eq!(folded, format!("{}{}36 hosts are fine.\n", failure(1), failure(2)));
    }
}
