//! What is wrong with words that cannot be parsed, said like every other error: one sentence, and what to type.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory as _};

use crate::config::nearest;
use crate::error::Error;

use super::args::Cli;

/// The error behind clap's.
pub(super) fn error(clap: &clap::Error, words: &[String]) -> Error {
    let root = Cli::command();
    let (command, typed) = command_of(&root, words);
    let help = format!("{typed} --help");
    let get = |kind| text(clap, kind);
    let (argument, value) = (get(ContextKind::InvalidArg), get(ContextKind::InvalidValue));
    let prior = get(ContextKind::PriorArg);
    let flag = || argument.split(' ').next().unwrap_or_default().to_owned();
    match clap.kind() {
        ErrorKind::InvalidSubcommand => {
            let given = get(ContextKind::InvalidSubcommand);
            Error::usage(format!("{typed} has no command '{given}'")).hint(other_command(command, &typed, &given))
        }
        ErrorKind::UnknownArgument => {
            let bare = flag();
            if !bare.starts_with('-') {
                return Error::usage(format!("{typed} takes no '{bare}'")).hint(help);
            }
            Error::usage(format!("{typed} has no flag '{bare}'"))
                .hint(other_flag(&root, command, &typed, &bare).unwrap_or(help))
        }
        ErrorKind::ArgumentConflict if prior == argument => {
            Error::usage(format!("{argument} can be given only once")).hint(help)
        }
        ErrorKind::ArgumentConflict => Error::usage(format!("{argument} cannot be used with {prior}"))
            .hint(format!("leave out one of them    see {help}")),
        ErrorKind::InvalidValue if value.is_empty() => Error::usage(format!("{argument} needs a value")).hint(help),
        ErrorKind::InvalidValue => {
            let error = Error::usage(format!("{} does not take '{value}'", flag()));
            let valid = clap.get(ContextKind::ValidValue).map(ToString::to_string).unwrap_or_default();
            if valid.is_empty() { error.hint(help) } else { error.hint(format!("it takes {valid}")) }
        }
        ErrorKind::ValueValidation => {
            Error::usage(format!("{} does not take '{value}': it wants a whole number", flag())).hint(help)
        }
        ErrorKind::WrongNumberOfValues | ErrorKind::TooFewValues => {
            Error::usage(format!("{argument} needs both of its values")).hint(help)
        }
        ErrorKind::MissingRequiredArgument => Error::usage(format!("{typed} needs {argument}")).hint(help),
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let below: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
            Error::usage(format!("{typed} needs a command")).hint(format!("{typed} {}", below.join("|")))
        }
        _ => {
            let said = clap.to_string();
            let first = said.lines().next().unwrap_or_default();
            Error::usage(first.strip_prefix("error: ").unwrap_or(first)).hint(help)
        }
    }
}

/// The command that was typed, of a command the one below it, and its words.
fn command_of<'a>(root: &'a Command, words: &[String]) -> (&'a Command, String) {
    let (mut command, mut typed) = (root, root.get_name().to_owned());
    for word in words.iter().skip(1) {
        if let Some(below) = command.find_subcommand(word) {
            typed = format!("{typed} {}", below.get_name());
            command = below;
        }
    }
    (command, typed)
}

/// Nothing to explain under this name.
pub(super) fn no_topic(topic: &str) -> Error {
    let root = Cli::command();
    let names = root.get_subcommands().map(Command::get_name).chain(["aliases"]);
    let hint = nearest(topic, names).map_or_else(|| "drover --help".to_owned(), |near| format!("drover help {near}"));
    Error::usage(format!("there is no help about '{topic}'")).hint(hint)
}

/// What clap knows of the error, as text.
fn text(error: &clap::Error, kind: ContextKind) -> String {
    match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(" and "),
        _ => String::new(),
    }
}

/// A command that may have been meant. A word that looks like none may be the name of a host.
fn other_command(command: &Command, typed: &str, given: &str) -> String {
    let names = command.get_subcommands().map(Command::get_name);
    match nearest(given, names) {
        Some(near) => format!("did you mean {typed} {near}?"),
        None if typed.contains(' ') => format!("{typed} --help"),
        None => format!("drover run {given}    if that is an attr, or drover --help"),
    }
}

/// A flag that may have been meant, of this command or of another one.
fn other_flag(root: &Command, command: &Command, typed: &str, given: &str) -> Option<String> {
    let known = [
        ("--jobs", "--max-jobs"),
        ("--no-build", "drover plan"),
        ("--dry-run", "drover plan"),
        ("--remote", "drover run --builders ssh-ng://HOST -j 0"),
        ("--quiet", "2>/dev/null"),
    ];
    if let Some((_, ours)) = known.iter().find(|(theirs, _)| *theirs == given) {
        return Some(if ours.starts_with("--") { format!("{typed} {ours}") } else { (*ours).to_owned() });
    }
    let visible =
        |of: &Command| of.get_arguments().filter(|argument| !argument.is_hide_set()).cloned().collect::<Vec<_>>();
    let flags = |of: &Command| -> Vec<String> {
        visible(of).iter().filter_map(|argument| Some(format!("--{}", argument.get_long()?))).collect()
    };
    let has = |of: &Command| {
        flags(of).iter().any(|flag| flag == given)
            || visible(of).iter().any(|argument| argument.get_short().is_some_and(|short| format!("-{short}") == given))
    };
    let own = flags(command);
    let near = nearest(given, own.iter().map(String::as_str));
    if let Some(other) = root.get_subcommands().find(|other| has(other)) {
        return Some(format!("drover {} {given}", other.get_name()));
    }
    Some(format!("did you mean {typed} {}?", near?))
}
