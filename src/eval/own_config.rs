//! What a flake's own file asks Nix to be set to (`nixConfig`), and what of it makes whoever accepts it trust more than
//! before. Nix asks people whether to accept each such setting; `--accept-flake-config` accepts all of them.

use serde::{Deserialize, Serialize};

use super::findings::Finding;

/// One setting of the flake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Its name.
    pub name: String,
    /// Its value as nix.conf has it: words with spaces between them.
    pub value: String,
    /// Where it is in the flake's file.
    #[serde(default)]
    pub line: Option<u32>,
    /// The column there.
    #[serde(default)]
    pub column: Option<u32>,
}

/// What the flake's own file says besides its outputs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnConfig {
    /// The settings.
    #[serde(default)]
    pub settings: Vec<Setting>,
    /// A flake.lock lies beside it.
    #[serde(default)]
    pub has_lock: bool,
}

/// When a setting is worth a word.
enum When {
    /// Whatever it is set to, but for nothing.
    Set,
    /// If it is set to this.
    Is(&'static str),
    /// If it is set to anything but this.
    IsNot(&'static str),
}

/// Settings by which a flake asks for trust, and what accepting them means. With `extra-` before it, the name of a list
/// means the same.
const WEAKENING: &[(&str, When, &str)] = &[
    ("substituters", When::Set, "results are fetched from there"),
    ("trusted-substituters", When::Set, "every user may fetch results from there"),
    ("trusted-public-keys", When::Set, "whatever these keys have signed is believed"),
    ("require-sigs", When::Is("false"), "results are believed that nobody has signed"),
    ("trusted-users", When::Set, "these users may do anything to the store"),
    ("allowed-users", When::Set, "these users may use the store"),
    ("sandbox", When::IsNot("true"), "builds see more of the machine than their inputs"),
    ("sandbox-fallback", When::Is("true"), "builds go on without a sandbox where there is none"),
    ("sandbox-paths", When::Set, "builds see these files of the machine"),
    ("allowed-impure-host-deps", When::Set, "builds see these files of the machine"),
    ("filter-syscalls", When::Is("false"), "builds may make files that run as another user"),
    ("allow-new-privileges", When::Is("true"), "builds may become another user"),
    ("builders", When::Set, "builds and their inputs go to these machines"),
    ("build-hook", When::Set, "this program decides where builds go"),
    ("pre-build-hook", When::Set, "this program runs before each build"),
    ("post-build-hook", When::Set, "this program runs after each build, as whoever runs the daemon"),
    ("diff-hook", When::Set, "this program runs where two builds differ"),
    ("plugin-files", When::Set, "these programs become a part of Nix"),
    ("accept-flake-config", When::Is("true"), "whatever other flakes set is accepted without a question"),
    ("allow-import-from-derivation", When::Is("true"), "evaluating builds, also where that is turned off"),
    ("allow-unsafe-native-code-during-evaluation", When::Is("true"), "evaluating runs programs of the flake"),
    ("pure-eval", When::Is("false"), "evaluating sees the machine"),
    ("restrict-eval", When::Is("false"), "evaluating sees all files"),
    ("access-tokens", When::Set, "a secret that everybody can read"),
    ("netrc-file", When::Set, "passwords are taken from this file"),
    ("ssl-cert-file", When::Set, "servers are believed that these certificates vouch for"),
    ("impure-env", When::Set, "builds get these variables"),
];

/// What is said of the settings of a flake. `file` is the flake's own, as people know it.
#[must_use]
pub fn findings(own: &OwnConfig, file: &str) -> Vec<Finding> {
    own.settings.iter().filter_map(|setting| finding(setting, file)).collect()
}

fn finding(setting: &Setting, file: &str) -> Option<Finding> {
    let Setting { name, value, line, column } = setting;
    let plain = name.strip_prefix("extra-").unwrap_or(name);
    let (_, when, means) = WEAKENING.iter().find(|(known, ..)| *known == plain)?;
    let counts = match when {
        When::Set => !value.is_empty(),
        When::Is(what) => value == what,
        When::IsNot(what) => value != what,
    };
    // A secret is not told again.
    let shown = if plain == "access-tokens" { "…" } else { value.as_str() };
    counts.then(|| Finding {
        about: "nixConfig".into(),
        message: format!("nixConfig sets {name} = {shown}: who accepts that agrees that {means}").into(),
        position: Some(match (line, column) {
            (Some(line), Some(column)) => format!("{file}:{line}:{column}").into(),
            _ => file.into(),
        }),
        hint: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(settings: &[(&str, &str)]) -> Vec<String> {
        let setting = |(name, value): &(&str, &str)| Setting {
            name: (*name).to_owned(),
            value: (*value).to_owned(),
            line: Some(3),
            column: Some(5),
        };
        let own = OwnConfig { settings: settings.iter().map(setting).collect(), has_lock: true };
        findings(&own, "flake.nix").into_iter().map(|finding| finding.message.to_string()).collect()
    }

    #[test]
    fn what_asks_for_trust_is_said_once_each() {
        let said = messages(&[
            ("extra-substituters", "https://a.example https://b.example"),
            ("sandbox", "relaxed"),
            ("post-build-hook", "/bin/x"),
        ]);
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(said[0].starts_with("nixConfig sets extra-substituters = https://a.example https://b.example: "));
        assert!(said[1].contains("builds see more of the machine"), "{said:?}");
    }

    #[test]
    fn what_asks_for_none_is_not_said() {
        let harmless = [("sandbox", "true"), ("require-sigs", "true"), ("bash-prompt", "x"), ("substituters", "")];
        assert_eq!(messages(&harmless), Vec::<String>::new());
    }

    #[test]
    fn a_secret_is_not_told_again() {
        let said = messages(&[("access-tokens", "github.com=abc")]);
        assert!(said.len() == 1 && !said[0].contains("abc"), "{said:?}");
    }

    #[test]
    fn the_place_is_that_of_the_setting() {
        let setting = Setting { name: "builders".into(), value: "ssh://x".into(), line: Some(3), column: Some(5) };
        let own = OwnConfig { settings: vec![setting], has_lock: true };
        assert_eq!(findings(&own, "sub/flake.nix")[0].position.as_deref(), Some("sub/flake.nix:3:5"));
    }
}
