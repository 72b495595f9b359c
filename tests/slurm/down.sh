#!/usr/bin/env bash
# Stop the daemons that up.sh started, by their pid files, and nothing else. The logs stay in STATE_DIR/log.
set -uo pipefail
state=$(cd "${1:?usage: down.sh STATE_DIR}" && pwd -P)
[ -d "$state/pids" ] || exit 0
export SLURM_CONF=$state/etc/slurm.conf
scancel --user="$(id -un)" 2>/dev/null && sleep 1
for file in "$state"/pids/slurmd-*.pid "$state"/pids/slurmctld.pid "$state"/pids/munged.pid; do
  [ -s "$file" ] || continue
  process=$(cat "$file")
  kill "$process" 2>/dev/null
  for _ in $(seq 50); do kill -0 "$process" 2>/dev/null || continue 2; sleep 0.1; done
  kill -9 "$process" 2>/dev/null
done
[ "$(readlink /etc/slurm/slurm.conf)" != "$SLURM_CONF" ] || rm -f /etc/slurm/slurm.conf
rm -rf "$state/pids"
