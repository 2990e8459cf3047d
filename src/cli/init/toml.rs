//! The text of drover.toml: what was found, said in remarks, and beside it what may be set. All of it is commented out,
//! so that nothing changes by it.

use crate::report::home::{Builder, Cache, Facts};
use crate::report::number::plural;

/// The file.
pub(super) fn text(facts: &Facts) -> String {
    let parts = [HEAD.to_owned(), attrs(facts), caches(&facts.caches), builders(facts), REST.to_owned()];
    parts.join("\n")
}

const HEAD: &str = "\
# What drover is to do with this flake. All of it is optional: flags win over this file, and what it does not say,
# Nix's own configuration says. `drover doctor --show-config` shows what is in force.
";

fn attrs(facts: &Facts) -> String {
    let found: Vec<String> = facts.attrs.iter().map(|(kind, number)| format!("{number} {}", kind.output())).collect();
    let found = match (found.is_empty(), &facts.attrs_from) {
        (true, _) => "# Without this: hosts, homes, packages and checks.".to_owned(),
        (false, None) => format!("# Found: {}.", found.join(", ")),
        (false, Some(rev)) => format!("# Found at {rev}: {}.", found.join(", ")),
    };
    format!(
        "{found}
[attrs]
# kinds = [\"nixosConfigurations\", \"packages\", \"checks\"]
# exclude = [\"*.installer\", \"checks.*.vm-*\"]    # `*` within a part of the name, `**` across parts
"
    )
}

fn caches(caches: &[Cache]) -> String {
    let read: Vec<&str> = caches.iter().filter(|cache| cache.pull).map(|cache| &*cache.name).collect();
    let read = match read.is_empty() {
        true => "# No cache is read from.".to_owned(),
        false => format!("# Read from without being named here: {}.", read.join(", ")),
    };
    let mine = caches.iter().map(|cache| &*cache.name).find(|name| name.ends_with(".cachix.org"));
    let name = mine.and_then(|host| host.split('.').next()).unwrap_or("acme");
    format!(
        "{read}
# [cache.{name}]
# url = \"cachix:{name}\"      # or attic:[SERVER:]CACHE, niks3:https://HOST, s3://BUCKET, https://HOST, file:///DIR
# push = \"main\"            # true, \"optional\" (a failed push is a warning), \"main\" (only from the default branch)
# skip-larger-than = \"2GiB\"
"
    )
}

fn builders(facts: &Facts) -> String {
    let others: Vec<&Builder> = facts.builders.iter().filter(|builder| builder.name != "local").collect();
    let found = match &facts.builders_from {
        Some(from) if !others.is_empty() => {
            let names: Vec<&str> = others.iter().map(|builder| &*builder.name).collect();
            let number = plural(others.len(), "builder is", "builders are");
            format!("# {number} used without being named here ({from}): {}.", names.join(", "))
        }
        _ => "# Only this machine builds. Any host with sshd and Nix can help:".to_owned(),
    };
    format!(
        "{found}
# [builder.big1]
# url = \"ssh-ng://ci@big1.example.org\"
# host-key = \"ssh-ed25519 AAAA…\"    # as ssh-keyscan prints it
# max-jobs = 16
"
    )
}

const REST: &str = "\
[build]
# timeout = 7200            # seconds
# max-silent-time = 1200    # seconds
# retries = 2

[eval]
# max-memory = \"8GiB\"       # of all evaluators together

[skip]
# paths = [\"docs/**\", \"*.md\"]    # a change of nothing but these is taken to affect nothing

# [share]
# url = \"https://cache.example.org\"    # where evaluations and the history of runs are shared
";
