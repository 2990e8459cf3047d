# shellcheck shell=bash
# Sourced by what makes and deletes many labs (nix/test, tests/bench/farm, tests/chaos): they lie in memory where there
# is room for that. An ext4 looks for inodes that were not deleted within the last seconds: where labs come one after
# the other, that takes a sixth to a third of all processors (perf).
if [ -z "${TMPDIR-}" ] && [ "$(stat -f -c %T /dev/shm 2>/dev/null)" = tmpfs ] && [ -w /dev/shm ] &&
  ! grep -q '^[^ ]* /dev/shm [^ ]* [^ ]*noexec' /proc/mounts &&
  [ "$(df --output=avail /dev/shm | tail -n 1)" -gt $((4 << 20)) ] &&
  [ "$(awk '/^MemAvailable:/ { print $2 }' /proc/meminfo)" -gt $((8 << 20)) ]; then
  export TMPDIR=/dev/shm
fi
