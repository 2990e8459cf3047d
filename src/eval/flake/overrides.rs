//! `--override-input`: each is locked once, so that no evaluator locks it anew.

use serde_json::Value;

use super::LockError;
use crate::eval::expr;
use crate::eval::nix::{self, Nix};

/// As flags of Nix.
pub(super) fn flags(overrides: &[(String, String)]) -> impl Iterator<Item = String> + '_ {
    overrides.iter().flat_map(|(input, to)| ["--override-input".to_owned(), input.clone(), to.clone()])
}

/// The overrides with what they were locked to, so that no evaluator locks them anew.
pub(super) async fn lock(
    nix: &Nix,
    overrides: &[(String, String)],
    locks: &Value,
) -> Result<Vec<(String, String)>, LockError> {
    let mut out = Vec::new();
    for (input, to) in overrides {
        let url = match locked_input(locks, input) {
            Some(attrs) => flake_url(nix, attrs).await?,
            None => None,
        };
        out.push((input.clone(), url.unwrap_or_else(|| to.clone())));
    }
    Ok(out)
}

/// What the input at `path` (`a/b`) is locked to.
fn locked_input<'a>(locks: &'a Value, path: &str) -> Option<&'a Value> {
    let nodes = locks.get("nodes")?;
    let follow = |node: &'a str, part: &str| resolve_input(locks, node, part, 0);
    let root = locks.get("root")?.as_str()?;
    let node = path.split('/').try_fold(root, follow)?;
    nodes.get(node)?.get("locked")
}

/// The node that the input `name` of `node` is; `follows` paths start at the root.
fn resolve_input<'a>(locks: &'a Value, node: &str, name: &str, depth: u8) -> Option<&'a str> {
    match locks.get("nodes")?.get(node)?.get("inputs")?.get(name)? {
        Value::String(node) => Some(node),
        Value::Array(path) if depth < 32 => {
            let root = locks.get("root")?.as_str()?;
            path.iter().try_fold(root, |node, part| resolve_input(locks, node, part.as_str()?, depth + 1))
        }
        _ => None,
    }
}

/// The reference of locked attrs as one text; `None` for a dirty tree, which has no locked reference.
async fn flake_url(nix: &Nix, attrs: &Value) -> Result<Option<String>, LockError> {
    let mut attrs = attrs.as_object().cloned().unwrap_or_default();
    attrs.retain(|name, _| !name.starts_with("__"));
    if attrs.contains_key("dirtyRev") || !(attrs.contains_key("rev") || attrs.contains_key("narHash")) {
        return Ok(None);
    }
    let json = expr::string(&Value::Object(attrs).to_string());
    let expr = format!("builtins.flakeRefToString (builtins.fromJSON {json})");
    let ran = nix::run(&nix.small_cmd(&["eval", "--raw", "--expr", &expr])).await?;
    Ok(ran.ok.then(|| String::from_utf8_lossy(&ran.stdout).trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_found_through_follows() {
        let locks = serde_json::json!({
            "root": "root",
            "nodes": {
                "root": {"inputs": {"a": "a_1", "b": "b_1"}},
                "a_1": {"inputs": {"b": ["b"]}, "locked": {"type": "path"}},
                "b_1": {"locked": {"type": "github"}},
                "loop": {"inputs": {"x": ["x"]}}
            }
        });
        assert_eq!(locked_input(&locks, "a/b").unwrap()["type"], "github");
        assert_eq!(locked_input(&locks, "a").unwrap()["type"], "path");
        assert!(locked_input(&locks, "c").is_none());
    }
}
