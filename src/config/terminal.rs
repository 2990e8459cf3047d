//! How text may look on stderr: a live view or lines, with or without colour.

use std::io::IsTerminal as _;

use super::Env;

/// What is known of the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Terminal {
    /// A person looks at it as it happens.
    pub live: bool,
    /// Colour is wanted.
    pub colour: bool,
    /// Only ASCII is understood.
    pub ascii: bool,
    /// A CI system may read it: no person does as it happens, or one says that it is there.
    pub log: bool,
    /// Columns, where the environment says.
    pub width: Option<usize>,
}

impl Terminal {
    /// Of this process's stderr. `NO_COLOR` and `TERM=dumb` take colour away, `CLICOLOR_FORCE` forces it; a CI system
    /// shows colour but is no terminal.
    #[must_use]
    pub fn of_stderr(env: &Env) -> Self {
        Self::of(env, std::io::stderr().is_terminal())
    }

    fn of(env: &Env, is_terminal: bool) -> Self {
        let dumb = env.get("TERM") == Some("dumb");
        let forced = env.get("CLICOLOR_FORCE").is_some_and(|value| value != "0");
        let colour = if env.get("NO_COLOR").is_some() { false } else { forced || (is_terminal && !dumb) };
        let charset = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(|name| env.get(name));
        let ascii = charset.is_some_and(|charset| matches!(charset, "C" | "POSIX"));
        Self {
            live: is_terminal && !dumb && !env.is_ci(),
            colour,
            ascii,
            log: !is_terminal || env.is_ci(),
            width: env.get("COLUMNS").and_then(|columns| columns.parse().ok()).filter(|_| !is_terminal),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_decides_about_colour() {
        let of = |vars: &[(&str, &str)], tty| Terminal::of(&Env::of(vars.iter().copied()), tty);
        assert!(of(&[], true).colour && of(&[], true).live);
        assert!(!of(&[], false).colour);
        assert!(of(&[("CLICOLOR_FORCE", "1")], false).colour);
        assert!(!of(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], true).colour);
        assert!(!of(&[("TERM", "dumb")], true).live && !of(&[("TERM", "dumb")], true).colour);
        assert!(!of(&[("CI", "true")], true).live);
    }
}
