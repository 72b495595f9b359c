#!/usr/bin/env bash
# Bring up a SLURM cluster on this machine: munged, slurmctld and two slurmd, node2 with a fake GPU.
#   tests/slurm/up.sh STATE_DIR [--install]    then:  . STATE_DIR/env.sh; sinfo;  tests/slurm/down.sh STATE_DIR
# The daemons run as the current user; --install lets apt-get (root only) install what is missing. Ends with 77 and the
# reason where the cluster can't be had. Everything lies in STATE_DIR, but for the link /etc/slurm/slurm.conf, without
# which the srun inside a job doesn't find this cluster; where it can't be made, STATE_DIR/bin/srun stands in for it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
state=${1:?usage: up.sh STATE_DIR [--install]}
install=${2:-}
PATH=$PATH:/usr/sbin
unavailable() { echo "$1"; exit 77; }

missing() { for command in munged slurmctld slurmd sbatch; do command -v "$command" >/dev/null || return 0; done; return 1; }
if missing && [ "$install" = --install ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  # the packages' own services stay down
  [ -e /usr/sbin/policy-rc.d ] || { printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d; chmod +x /usr/sbin/policy-rc.d; ours=1; }
  export DEBIAN_FRONTEND=noninteractive
  { apt-get update -qq && apt-get install -y -qq --no-install-recommends munge slurmctld slurmd slurm-client; } \
    >/tmp/slurm-install.$$.log 2>&1 || true
  [ -z "${ours:-}" ] || rm -f /usr/sbin/policy-rc.d
  rm -f /tmp/slurm-install.$$.log
fi
missing && unavailable "no SLURM here: apt-get install munge slurmctld slurmd slurm-client"

[ ! -e "$state/pids" ] || { echo "$state is in use: tests/slurm/down.sh $state" >&2; exit 1; }
umask 022
mkdir -p "$state"/{etc,pids,log,ctld,spool-node1,spool-node2,munge,dev}
state=$(cd "$state" && pwd -P)

# --force: munged refuses keys below directories that others may write to, such as /tmp
(umask 077; head -c 1024 /dev/urandom >"$state/munge/munge.key")
munged --force --key-file="$state/munge/munge.key" --socket="$state/munge/munge.sock" --pid-file="$state/pids/munged.pid" \
  --log-file="$state/log/munged.log" --seed-file="$state/munge/munge.seed" 2>"$state/log/munged.err"

ports=()
while [ ${#ports[@]} -lt 3 ]; do
  port=$((20000 + RANDOM % 20000))
  [[ " ${ports[*]} " == *" $port "* ]] || (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || ports+=("$port")
done
memory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)
sed -e "s|@STATE@|$state|g; s|@USER@|$(id -un)|g; s|@HOST@|$(hostname -s)|g; s|@MEMORY@|$memory|g" \
  -e "s|@PORT@|${ports[0]}|; s|@PORT1@|${ports[1]}|; s|@PORT2@|${ports[2]}|" "$here/slurm.conf.in" >"$state/etc/slurm.conf"
ln -sf /dev/null "$state/dev/nvidia0"
echo "NodeName=node2 Name=gpu Type=fake File=$state/dev/nvidia0" >"$state/etc/gres.conf"
# Slurm 23.02 and later know `disabled`; 22.05 (Debian 12) doesn't, and its v1 plugin touches nothing as configured here
case "$(slurmd -V | grep -oE '[0-9]+\.[0-9]+' | head -1)" in
  2[0-2].*) echo CgroupPlugin=cgroup/v1 ;;
  *) echo CgroupPlugin=disabled ;;
esac >"$state/etc/cgroup.conf"

export SLURM_CONF=$state/etc/slurm.conf
printf 'export SLURM_CONF=%q\n' "$SLURM_CONF" >"$state/env.sh"
if [ -w /etc/slurm ] && { [ ! -e /etc/slurm/slurm.conf ] || [ -L /etc/slurm/slurm.conf ]; }; then
  ln -sfn "$SLURM_CONF" /etc/slurm/slurm.conf
else
  mkdir -p "$state/bin"
  printf '#!/bin/sh\nSLURM_CONF=%s exec %s "$@"\n' "$SLURM_CONF" "$(command -v srun)" >"$state/bin/srun"
  chmod +x "$state/bin/srun"
  printf 'export PATH=%q:"$PATH"\n' "$state/bin" >>"$state/env.sh"
fi

slurmctld -c
slurmd -c -N node1
slurmd -c -N node2
SECONDS=0
while [ $SECONDS -lt 60 ] && kill -0 "$(cat "$state/pids/slurmctld.pid")" 2>/dev/null; do
  [ "$(sinfo -h -N -o %T 2>/dev/null | sort -u)" = idle ] && exec srun -n1 -t1 true
  sleep 0.2
done
tail -n 20 "$state"/log/*.log >&2
echo "the daemons did not come up: $(grep -h fatal "$state"/log/*.log | tail -n 1)" >&2
exit 1
