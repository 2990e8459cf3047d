//! Logins from a netrc file, as Nix's `netrc-file` setting names it: `machine HOST login USER password SECRET`, and
//! `default` for all other hosts.

use std::fmt;
use std::path::Path;

/// Bytes of a netrc file that are read at most.
const MAX_FILE: u64 = 1024 * 1024;

/// A user and a password. `Debug` shows neither.
#[derive(Clone, PartialEq, Eq, Default)]
pub(super) struct Login {
    pub(super) user: String,
    pub(super) password: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(…)")
    }
}

/// The login for a host in this file; none if the file does not exist.
pub(super) fn login(path: &Path, host: &str) -> std::io::Result<Option<Login>> {
    use std::io::Read as _;
    let mut text = String::new();
    match std::fs::File::open(path) {
        Ok(file) => file.take(MAX_FILE).read_to_string(&mut text)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(find(&text, host))
}

/// The first entry for this host; `default` fits every host.
fn find(text: &str, host: &str) -> Option<Login> {
    let mut words = text.lines().filter(|line| !line.trim_start().starts_with('#')).flat_map(tokens);
    let mut current: Option<Login> = None;
    while let Some(word) = words.next() {
        match word.as_str() {
            "machine" | "default" => {
                if current.is_some() {
                    return current;
                }
                let fits = word == "default" || words.next().is_some_and(|name| name.eq_ignore_ascii_case(host));
                current = fits.then(Login::default);
            }
            "login" | "password" | "account" => {
                let value = words.next().unwrap_or_default();
                if let Some(login) = &mut current {
                    match word.as_str() {
                        "login" => login.user = value,
                        "password" => login.password = value,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    current
}

/// The words of a line; a word in double quotes may hold white space and `\"`.
fn tokens(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        if c.is_whitespace() {
            continue;
        }
        let mut word = String::new();
        if c == '"' {
            while let Some(c) = chars.next() {
                match c {
                    '"' => break,
                    '\\' => word.extend(chars.next()),
                    c => word.push(c),
                }
            }
        } else {
            word.push(c);
            while let Some(c) = chars.next_if(|c| !c.is_whitespace()) {
                word.push(c);
            }
        }
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_entry_that_fits_wins() {
        let text = "machine a.example login x password y\n# machine b.example password no\n\
                    machine b.example\n  password \"two \\\"words\"\n\nmachine a.example password z\ndefault login d\n";
        let login = |host| find(text, host).map(|login| (login.user, login.password));
        assert_eq!(login("a.example"), Some(("x".into(), "y".into())));
        assert_eq!(login("B.example"), Some((String::new(), "two \"words".into())));
        assert_eq!(login("c.example"), Some(("d".into(), String::new())));
        assert_eq!(find("machine a login b", "other"), None);
        assert_eq!(find("machine", "other"), None);
    }

    #[test]
    fn a_login_is_never_shown() {
        let login = Login { user: "u".into(), password: "hunter2".into() };
        assert_eq!(format!("{login:?}"), "Login(…)");
    }
}
