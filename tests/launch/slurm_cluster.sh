#!/usr/bin/env bash
# A Slurm cluster of two nodes on this machine, as root, with everything in DIR:
#   bash tests/launch/slurm_cluster.sh DIR     then: SLURM_CONF=DIR/slurm.conf sbatch ...
# DIR/pids holds what to kill in the end. Debian: apt-get install slurm-wlm munge.
set -euo pipefail
dir="$1"
mkdir -p "$dir"/{state,spool,munge}
chmod 755 "$dir" "$dir"/*
host="$(hostname -s)"
# Free ports: the controller's, and the nodes'.
ports() {
  python3 -c 'import socket
held = [socket.socket() for _ in range(3)]
[one.bind(("127.0.0.1", 0)) for one in held]
print(*[one.getsockname()[1] for one in held])'
}
read -r control first second <<< "$(ports)"
head -c 1024 /dev/urandom > "$dir/munge/key"
chmod 400 "$dir/munge/key"
munged --force --foreground --num-threads=2 --socket="$dir/munge/socket" --key-file="$dir/munge/key" \
  --pid-file="$dir/munge/pid" --log-file="$dir/munge/log" --seed-file="$dir/munge/seed" \
  > "$dir/munge/out" 2>&1 &
echo $! >> "$dir/pids"
# The first node has the machine's name, which the processes find each other by.
cat > "$dir/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$control
SlurmUser=root
AuthType=auth/munge
# A job that is queued again waits for its old credentials to expire: two minutes by default.
AuthInfo=socket=$dir/munge/socket,cred_expire=10
CryptoType=crypto/munge
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool/%n
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
KillWait=60
JobRequeue=1
MinJobAge=300
SchedulerParameters=sched_interval=5
NodeName=$host NodeHostname=$host NodeAddr=127.0.0.1 Port=$first CPUs=2 State=UNKNOWN
NodeName=zzz-second NodeHostname=$host NodeAddr=127.0.0.1 Port=$second CPUs=2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
printf 'CgroupPlugin=autodetect\nCgroupAutomount=no\n' > "$dir/cgroup.conf"
export SLURM_CONF="$dir/slurm.conf"
for _ in $(seq 50); do [ -S "$dir/munge/socket" ] && break; sleep 0.1; done
slurmctld -D -i > "$dir/slurmctld.log" 2>&1 &
echo $! >> "$dir/pids"
for node in "$host" zzz-second; do
  slurmd -D -N "$node" > "$dir/slurmd-$node.log" 2>&1 &
  echo $! >> "$dir/pids"
done
for _ in $(seq 60); do
  [ "$(sinfo --noheader --states=idle --format=%D 2>/dev/null || true)" = 2 ] && exit
  sleep 0.5
done
sinfo >&2 || true
tail -n 5 "$dir"/*.log >&2
exit 1
