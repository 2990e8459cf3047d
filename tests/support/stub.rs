//! Expressions that are evaluated with `tests/fixtures/nixpkgs`, as much of nixpkgs as drover's flake and modules use.

use serde_json::Value;

use super::nix::Lab;

/// The repository.
pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// An expression in which `lib`, `pkgs` and `stub`, the directory, are known, and `ROOT` stands for the repository.
pub fn expression(text: &str) -> String {
    let with = "let stub = ROOT/tests/fixtures/nixpkgs; lib = import (stub + \"/lib.nix\"); \
                pkgs = import (stub + \"/pkgs.nix\") { inherit lib; system = \"x86_64-linux\"; isStatic = false; }; in ";
    format!("{with}{text}").replace("ROOT", ROOT)
}

/// Its value, which has to be one that JSON knows.
pub fn value(lab: &Lab, text: &str) -> Value {
    let printed = lab.run("nix", &["eval", "--impure", "--json", "--expr", &expression(text)]);
    serde_json::from_str(&printed).unwrap()
}
