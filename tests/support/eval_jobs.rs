//! A stand-in for nix-eval-jobs, of which no package can be had for tests.

use std::path::Path;

use super::nix::Lab;
use super::program::write_program;

/// Speaks the flags and the lines of nix-eval-jobs, and asks Nix: there is no package of the real one to test with.
pub const JOBS: &str = r#"#!/bin/sh
[ "$1" = --version ] && { echo "nix-eval-jobs (Nix) VERSION"; exit 0; }
echo "$@" >> NOTES
fail() { echo "error: $1" >&2; exit 1; }
flake= recurse= roots= left=$#
while [ "$left" -gt 0 ]; do
  case $1 in
    --flake) flake=$2; n=2 ;;
    --workers|--max-memory-size) [ "$2" -gt 0 ] || fail "$1"; n=2 ;;
    --gc-roots-dir) [ -d "$2" ] || fail "$1"; roots=$2; n=2 ;;
    --meta) n=1 ;;
    --force-recurse) recurse=1; n=1 ;;
    --store|--eval-store) set -- "$@" "$1" "$2"; n=2 ;;
    --option|--override-input) set -- "$@" "$1" "$2" "$3"; n=3 ;;
    *) fail "unrecognised flag '$1'" ;;
  esac
  shift $n; left=$((left - n))
done
[ -n "$roots" ] && [ -n "$recurse" ] || fail "flags"
walk='x: let
  walk = p: v: if !(builtins.tryEval v).success || v.type or null == "derivation" then [ p ]
    else builtins.concatLists (map (n: walk (p ++ [ n ]) v.${n}) (builtins.attrNames v));
  line = p: let all = map builtins.toJSON p; in builtins.concatStringsSep "." all + "|" + toString all + "\n";
in builtins.concatStringsSep "" (map line (walk [ ] x))'
names=$(BIN/nix eval --raw "$@" --apply "$walk" "$flake") || exit 1
echo "warning: said by the other one" >&2
echo "$names" | while IFS='|' read -r path list; do
  about="attr = \"any\"; attrPath = [ $list ];"
  line="d: { $about inherit (d) name system drvPath; outputs = builtins.listToAttrs (map (o: { name = o; value = d.\${o}.outPath; }) (d.outputs or [ \"out\" ])); }"
  BIN/nix eval --json "$@" --apply "$line" "$flake${path:+.$path}" 2> /dev/null ||
    BIN/nix eval --json --expr "{ $about error = \"error: bad\"; }" "$@"
  echo
done
"#;

/// Writes such a script, which says that it is of this version and notes how it is called.
pub fn write_eval_jobs(lab: &Lab, path: &Path, script: &str, version: &str, notes: &Path) {
    let script = script.replace("VERSION", version).replace("NOTES", &notes.display().to_string());
    write_program(path, &script.replace("BIN", &lab.nix.bin.display().to_string()));
}
