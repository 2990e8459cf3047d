# shellcheck shell=bash
# What the scripts beside this have in common; they source it first. Goes to the root of the checkout.
#
#   $drover   after `program`, the one that is measured: $DROVER if that is set, else a release build of this checkout
#   $bench    a directory for the time of the script
#
# Each measurement is a line for machines (`row`), in the file that $DROVER_BENCH_ROWS names. Where nobody has named
# one, `table` prints the medians in the end.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
root=$PWD

environment=$(nix/setup ${bench_needs-} --print-env)
eval "$environment"

bench=$(mktemp -d "${TMPDIR:-/tmp}/drover-bench-XXXXXX")
trap 'chmod -R u+w "$bench"; rm -rf "$bench"' EXIT
all_rows=${DROVER_BENCH_ROWS-}
export DROVER_BENCH_ROWS=${all_rows:-$bench/rows.jsonl}

# program: has $drover built, unless it is there, and keeps its runs apart from others
program() {
  export DROVER_STATE_DIR=$bench/state
  if [ -n "${DROVER-}" ]; then
    drover=$(realpath "$DROVER")
  else
    cargo build --release --quiet
    drover=$root/target/release/drover
  fi
}

die() { echo "$1" >&2; [ ! -e "$bench/err" ] || tail -n 20 "$bench/err" >&2; exit 1; }

# seconds COMMAND...: its wall time; it has to succeed
seconds() {
  local from to
  from=$(date +%s%N)
  "$@" >"$bench/out" 2>"$bench/err" || die "$* failed"
  to=$(date +%s%N)
  awk "BEGIN { printf \"%.3f\", ($to - $from) / 1e9 }"
}

# commit MESSAGE: what is here, so that the tree is clean for all
commit() {
  git add --all
  git -c user.name=bench -c user.email=bench@localhost commit --quiet --allow-empty --message "$1"
}

# row BENCH PART TOOL VALUE UNIT [BAR [AGAINST]]: one measurement; see rows.py
row() {
  local more=
  [ -z "${6-}" ] || more+=", \"bar\": $6"
  [ -z "${7-}" ] || more+=", \"against\": \"$7\""
  printf '{"bench": "%s", "part": "%s", "tool": "%s", "value": %s, "unit": "%s"%s}\n' "${@:1:5}" "$more" \
    >>"$DROVER_BENCH_ROWS"
}

# table: the medians of this script, unless somebody else prints them
table() { [ -n "$all_rows" ] || { echo; "$root/tests/bench/table" "$DROVER_BENCH_ROWS"; }; }
