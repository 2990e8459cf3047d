//! The embedded Nix code and the lines that are typed into a repl. Does not run anything.
//!
//! Data goes in as JSON inside one quoted string, and comes out as one line of JSON behind a marker. The repl echoes
//! what it is given, so no typed line may contain a marker: all of them start with `@`, which is escaped on the way in.

use serde_json::Value;

use crate::id::Kind;

/// What runs inside the evaluators.
pub const EVAL: &str = include_str!("../../nix/eval/eval.nix");

/// Name of the file that the code becomes in the store; positions in it are drover's own.
pub const FILE: &str = "drover-eval.nix";

/// The variable that holds the code in a repl; flakes are unlikely to have an output of this name. Short, since the repl
/// reads byte by byte (2.7 µs each, most of what an easy question costs).
const NAME: &str = "__d";

/// A Nix string literal on one line without `@` or control characters, for text that is JSON.
#[must_use]
pub fn string(json: &str) -> String {
    let mut out = String::with_capacity(json.len() + 16);
    out.push('"');
    for c in json.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '$' => out.push_str("\\$"),
            // As JSON escapes, which mean the same inside JSON strings; JSON has these nowhere else.
            c if c == '@' || c.is_control() || !c.is_ascii() => {
                let mut units = [0; 2];
                for unit in c.encode_utf16(&mut units) {
                    out.push_str(&format!("\\\\u{unit:04x}"));
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A Nix string literal on one line, for any text without NUL.
#[must_use]
pub fn literal(text: &str) -> String {
    let escaped =
        text.replace('\\', "\\\\").replace('"', "\\\"").replace("$", "\\$").replace('\n', "\\n").replace('\t', "\\t");
    format!("\"{escaped}\"")
}

/// The variable that holds the flake in a repl that has loaded it as a value.
pub const FLAKE: &str = "__f";

/// The code as an expression. It becomes a file in the store, so that names that the flake brings into the repl's scope
/// mean nothing in it.
#[must_use]
pub fn code() -> String {
    // Comments and indentation would only make the line longer.
    let code: Vec<&str> = EVAL.lines().map(str::trim_start).filter(|line| !line.starts_with('#')).collect();
    format!("import (__toFile \"{FILE}\" {})", literal(&code.join("\n")))
}

/// The line that loads the code.
#[must_use]
pub fn load() -> String {
    format!("{NAME} = {}", code())
}

/// The same as an argument of the repl, which is read at once: typing it takes 11 ms.
#[must_use]
pub fn scope() -> String {
    format!("{{ {NAME} = {}; }}", code())
}

/// The lines that load a flake as a value. What it offers is a variable each, unless that would hide one of drover's.
#[must_use]
pub fn give(reference: &str) -> String {
    let reference = string(&Value::from(reference).to_string());
    format!(
        "{FLAKE} = __getFlake (__fromJSON {reference})\n:a removeAttrs {FLAKE}.outputs [ \"{NAME}\" \"{FLAKE}\" ]\n"
    )
}

/// A variable that only masked outputs bring along; see [`mask`].
pub const MASKED: &str = "__droverMasked";

/// The line that puts masked outputs of a flake in the place of its own, for all questions that follow.
#[must_use]
pub fn mask(reference: &str) -> String {
    let arguments = string(&serde_json::json!({ "reference": reference }).to_string());
    format!(":a {NAME}.masked (__fromJSON {arguments})")
}

/// One question: a function of the code, the output that it is asked about, its arguments.
#[derive(Debug, Clone, PartialEq)]
pub struct Question {
    /// Name of the function.
    pub function: &'static str,
    /// The flake output; `None` for functions that need none.
    pub output: Option<String>,
    /// The arguments, an object.
    pub arguments: Value,
}

/// The lines that ask a question: the second says that the answer is over, also after an error. It comes twice: where a
/// file that the question reads ends too early, Nix 2.26 takes the question itself for a text that is not over yet, and
/// the next line for its continuation. See [`cut_short`].
#[must_use]
pub fn ask(id: u64, question: &Question) -> String {
    let arguments = string(&question.arguments.to_string());
    // The repl knows outputs only as variables. One that the flake lacks falls through to the `with`.
    let root = match question.output.as_deref() {
        None => String::new(),
        Some(output) if Kind::of_output(output).is_some() => format!(" (with {NAME}.none; {output})"),
        Some(output) => format!(" (with {{ {output} = {NAME}.absent; }}; {output})"),
    };
    let function = question.function;
    let end = format!(":p {NAME}.end \"{id}\"\n");
    format!(":p {NAME}.reply \"{id}\" ({NAME}.{function}{root} (__fromJSON {arguments}))\n{end}{end}")
}

impl Question {
    /// Whether it can be one of [`ask_many`].
    #[must_use]
    pub fn is_of_many(&self) -> bool {
        self.output.is_some() && self.split().is_some()
    }

    /// Its arguments without the last part of the path, and that part.
    fn split(&self) -> Option<(Value, &str)> {
        let name = self.arguments.get("path")?.as_array()?.last()?.as_str()?;
        let mut arguments = self.arguments.clone();
        arguments.get_mut("path")?.as_array_mut()?.pop();
        Some((arguments, name))
    }
}

/// The lines that ask many questions of a flake that was loaded as a value, numbered from `first` on; the number after the
/// last one says that all are over. What they have in common is typed once.
#[must_use]
pub fn ask_many(first: u64, questions: &[Question]) -> String {
    let mut groups: Vec<Value> = Vec::new();
    for question in questions {
        let (Some(output), Some((arguments, name))) = (&question.output, question.split()) else { continue };
        let group = serde_json::json!({ "function": question.function, "output": output, "arguments": arguments });
        let last = groups
            .last_mut()
            .filter(|last| ["function", "output", "arguments"].into_iter().all(|key| last.get(key) == group.get(key)));
        match last.and_then(|last| last.get_mut("names")).and_then(Value::as_array_mut) {
            Some(names) => names.push(name.into()),
            None => {
                let mut group = group;
                group["names"] = serde_json::json!([name]);
                groups.push(group);
            }
        }
    }
    let groups = string(&Value::from(groups).to_string());
    let end = format!(":p {NAME}.end \"{}\"\n", first + questions.len() as u64);
    format!(":p {NAME}.many {NAME} {FLAKE}.outputs {first} (__fromJSON {groups})\n{end}{end}")
}

/// Whether an error is only about the line that says that an answer is over: the question before it was taken for a text
/// that is not over yet. Nix does so for no other error than [`CUT_SHORT`], which it does not show.
#[must_use]
pub fn cut_short(error: &str) -> bool {
    error.contains("syntax error, unexpected ':'") && error.contains(&format!(":p {NAME}.end \""))
}

/// Whether an error says that the code itself could not be loaded: no question will be answered, nor will it be said that
/// an answer is over.
#[must_use]
pub fn without_code(error: &str) -> bool {
    error.contains(&format!("import (__toFile \"{FILE}\""))
}

/// What Nix would have said.
pub const CUT_SHORT: &str = "error: syntax error, unexpected end of file";

/// What a line that the repl printed means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Printed<'a> {
    /// The answer to a question, as JSON.
    Answer(u64, &'a str),
    /// All of the answer to a question has been printed.
    End(u64),
}

/// Reads a line from standard output; `None` for echo, prompts and empty lines.
#[must_use]
pub fn printed(line: &str) -> Option<Printed<'_>> {
    if let Some(rest) = line.strip_prefix("@drover-answer:") {
        let (id, json) = rest.split_once(' ')?;
        return Some(Printed::Answer(id.parse().ok()?, json));
    }
    let id = line.strip_prefix("@drover-end:")?;
    Some(Printed::End(id.trim().parse().ok()?))
}

/// Whether an output name can be a variable in the repl; Nix reaches no other.
#[must_use]
pub fn is_variable(name: &str) -> bool {
    const KEYWORDS: [&str; 10] = ["if", "then", "else", "assert", "with", "let", "in", "rec", "inherit", "or"];
    let mut chars = name.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '\''))
        && !KEYWORDS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_contains_no_marker() {
        let question = Question {
            function: "drv",
            output: Some("packages".into()),
            arguments: serde_json::json!({"path": ["@drover-end:1", "a\nb\t${x}\"\\", "ü"]}),
        };
        let text = ask(7, &question);
        assert!(!text.contains('@'), "{text}");
        assert_eq!(text.lines().count(), 3);
        assert!(text.contains(r"\\u00fc"), "{text}");
        assert!(!load().contains("@drover-answer"));
        assert_eq!(load().lines().count(), 1);
        assert!(!give("git+ssh://git@drover.example/@drover-end:1").contains('@'));
        assert!(!mask("git+ssh://git@drover.example/@drover-end:1").contains('@'));
        assert!(EVAL.contains(&format!("{MASKED} = true;")));
    }

    #[test]
    fn what_many_questions_have_in_common_is_typed_once() {
        let question = |output: &str, path: &[&str], how: &str| Question {
            function: "drv",
            output: Some(output.into()),
            arguments: serde_json::json!({ "path": path, "how": how }),
        };
        let questions = [
            question("packages", &["x", "a"], "derivation"),
            question("packages", &["x", "@b"], "derivation"),
            question("packages", &["x", "c"], "any"),
            question("formatter", &["x"], "derivation"),
        ];
        assert!(questions.iter().all(Question::is_of_many));
        assert!(!question("packages", &[], "any").is_of_many());
        let text = ask_many(7, &questions);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with(":p __d.many __d __f.outputs 7 (__fromJSON \"["), "{text}");
        assert_eq!(lines[0].matches("packages").count(), 2, "{text}");
        assert!(!text.contains('@') && lines[0].contains(r#"\"names\":[\"a\",\"\\u0040b\"]"#), "{text}");
        assert_eq!(lines[1..], [":p __d.end \"11\""; 2]);
    }

    #[test]
    fn comments_stand_on_lines_of_their_own() {
        // `load` drops lines that start with #; inside a string that would change the code.
        assert!(EVAL.lines().filter(|line| line.contains('#')).all(|line| line.trim_start().starts_with('#')));
        assert!(!EVAL.contains("''"), "multi-line strings could hold lines that start with #");
    }

    #[test]
    fn every_kind_has_a_stand_in() {
        for kind in Kind::LISTED.into_iter().chain([Kind::LegacyPackages]) {
            assert!(EVAL.contains(&format!("    {} = absent;", kind.output())), "{}", kind.output());
        }
    }

    #[test]
    fn answers_are_read() {
        assert_eq!(printed("@drover-answer:3 {\"a\":1}"), Some(Printed::Answer(3, "{\"a\":1}")));
        assert_eq!(printed("@drover-end:3"), Some(Printed::End(3)));
        assert_eq!(printed("nix-repl> :p x"), None);
        assert_eq!(printed("@drover-answer:x y"), None);
    }
}
