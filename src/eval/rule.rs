//! What a check demands of what a flake offers: what `nix flake check` validates of each sort of output, and where drover
//! looks further. Does not ask anything: the questions are Nix code in `nix/eval`.
//!
//! A question that looks further and fails is followed by one for what Nix itself demands. Only if that fails as well
//! is the attr refused; else it is a finding of drover's own. Checked with Nix 2.26.3 and 2.34.8, which agree.

use serde::{Deserialize, Serialize};

/// What an attr has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Anything that evaluates.
    Value,
    /// A derivation: its `name` and `drvPath` evaluate; drover also wants its outputs.
    Derivation,
    /// A NixOS configuration: its toplevel is a derivation; drover also wants that to be instantiated.
    Host,
    /// A darwin configuration. Nix does not look at it.
    Darwin,
    /// A home configuration. Nix does not look at it.
    Home,
    /// An app: `type` and `program` are strings, nothing else is there but `meta`; drover also wants what makes the
    /// program.
    App,
    /// A function whose first argument is called `final`, `_final` or `_`.
    Overlay,
    /// A template: its `path` exists, its `description` is a string.
    Template,
    /// A function.
    Bundler,
}

impl Rule {
    /// The name of Nix's own demand in the code; `None` where Nix demands nothing.
    #[must_use]
    pub fn demand(self) -> Option<&'static str> {
        match self {
            Self::Value => Some("value"),
            Self::Derivation => Some("derivation"),
            Self::Host => Some("host"),
            Self::App => Some("app"),
            Self::Overlay => Some("overlay"),
            Self::Template => Some("template"),
            Self::Bundler => Some("bundler"),
            Self::Darwin | Self::Home => None,
        }
    }

    /// How its derivation is found, if it has one; see `drv` in the code.
    #[must_use]
    pub fn drv(self) -> Option<&'static str> {
        match self {
            Self::Derivation => Some("derivation"),
            Self::Host => Some("nixos"),
            Self::Darwin => Some("darwin"),
            Self::Home => Some("home"),
            Self::Value | Self::App | Self::Overlay | Self::Template | Self::Bundler => None,
        }
    }
}

/// How an attr is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What it has to be.
    pub rule: Rule,
    /// Nix does not look at it: whatever is wrong with it is a finding of drover's own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub beyond: bool,
    /// It may import nothing from derivations, as Nix does not let it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_imports: bool,
}

/// Where the attrs of an output are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The output itself.
    Here,
    /// `OUTPUT.NAME`.
    Names,
    /// `OUTPUT.SYSTEM`.
    Systems,
    /// `OUTPUT.SYSTEM.NAME`.
    NamesBySystem,
    /// `OUTPUT.SYSTEM`, whose values nobody looks at.
    OnlySystems,
    /// `OUTPUT.…`, at any depth.
    Nested,
}

/// What is known of an output's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output {
    /// Where its attrs are.
    pub place: Place,
    /// What they have to be.
    pub rule: Rule,
    /// What people use in its place today.
    pub instead: Option<&'static str>,
    /// Nix gives the name a meaning.
    pub known: bool,
    /// Nix does not look into it.
    pub beyond: bool,
}

impl Output {
    /// What Nix makes of an output of this name.
    #[must_use]
    pub fn of(name: &str) -> Self {
        let known = |place, rule| Self { place, rule, instead: None, known: true, beyond: false };
        let old = |place, rule, instead| Self { instead: Some(instead), ..known(place, rule) };
        match name {
            "checks" | "packages" | "devShells" => known(Place::NamesBySystem, Rule::Derivation),
            "apps" => known(Place::NamesBySystem, Rule::App),
            "bundlers" => known(Place::NamesBySystem, Rule::Bundler),
            "formatter" => known(Place::Systems, Rule::Derivation),
            "legacyPackages" => known(Place::OnlySystems, Rule::Value),
            "overlays" => known(Place::Names, Rule::Overlay),
            "nixosModules" => known(Place::Names, Rule::Value),
            "nixosConfigurations" => known(Place::Names, Rule::Host),
            "templates" => known(Place::Names, Rule::Template),
            "hydraJobs" => known(Place::Nested, Rule::Derivation),
            "darwinConfigurations" => Self { beyond: true, ..known(Place::Names, Rule::Darwin) },
            "homeConfigurations" => Self { beyond: true, ..known(Place::Names, Rule::Home) },
            "defaultPackage" => old(Place::Systems, Rule::Derivation, "packages.<system>.default"),
            "devShell" => old(Place::Systems, Rule::Derivation, "devShells.<system>.default"),
            "defaultApp" => old(Place::Systems, Rule::App, "apps.<system>.default"),
            "defaultBundler" => old(Place::Systems, Rule::Bundler, "bundlers.<system>.default"),
            "overlay" => old(Place::Here, Rule::Overlay, "overlays.default"),
            "nixosModule" => old(Place::Here, Rule::Value, "nixosModules.default"),
            "defaultTemplate" => old(Place::Here, Rule::Template, "templates.default"),
            "lib"
            | "darwinModules"
            | "flakeModule"
            | "flakeModules"
            | "herculesCI"
            | "homeModule"
            | "homeModules"
            | "nixopsConfigurations" => known(Place::Here, Rule::Value),
            _ => Self { known: false, ..known(Place::Here, Rule::Value) },
        }
    }

    /// Whether people want to hear of its attrs where they are as they should be.
    #[must_use]
    pub fn is_told(self) -> bool {
        self.place != Place::OnlySystems && (self.place != Place::Here || self.instead.is_some())
    }
}

/// Whether Nix takes this for the name of a system.
#[must_use]
pub fn is_system(name: &str) -> bool {
    name.contains('-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::expr::EVAL;

    #[test]
    fn every_rule_is_in_the_code() {
        for rule in [
            Rule::Value,
            Rule::Derivation,
            Rule::Host,
            Rule::Darwin,
            Rule::Home,
            Rule::App,
            Rule::Overlay,
            Rule::Template,
            Rule::Bundler,
        ] {
            assert!(rule.demand().is_none_or(|name| EVAL.contains(&format!("    {name} ="))), "{rule:?}");
            assert!(rule.demand().is_some() || rule.drv().is_some());
        }
    }

    #[test]
    fn old_names_say_what_took_their_place() {
        assert_eq!(Output::of("devShell").instead, Some("devShells.<system>.default"));
        assert!(!Output::of("schemas").known);
        assert!(!Output::of("lib").is_told() && Output::of("overlay").is_told());
    }
}
