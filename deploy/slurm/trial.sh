#!/usr/bin/env bash
# Try the batch scripts on a Slurm cluster of two nodes on one machine: one job runs to its end; a second one is
# interrupted half way, requeues itself, and resumes. Needs root and Debian's slurmctld, slurmd, slurm-client and munge.
# Everything runs in its own namespaces and is gone afterwards.
#   deploy/slurm/trial.sh INPUT.tsv [more options of `run`, such as --mlm and --glove; the input has SST-2's format]
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
if [[ "${1:-}" == --node ]]; then
  # The second node, with its own network, host name and folder for Ray.
  hostname othernode
  ip link set lo up
  until ip link show eth-other >/dev/null 2>&1; do sleep 0.1; done
  ip addr add 10.9.0.2/24 dev eth-other
  ip link set eth-other up
  mount -t tmpfs none "$TRIAL/ray"
  exec slurmd -D -N othernode
fi
if [[ "${TRIAL:-}" == "" ]]; then
  : "${1:?usage: trial.sh INPUT.tsv [more options of run]}"
  TRIAL="$(mktemp --directory --tmpdir slurm-trial-XXXX)"
  export TRIAL
  exec unshare --pid --fork --mount-proc --net --uts --mount "$here/trial.sh" "$@"
fi

input="$(realpath "$1")"
shift
options=(--task SST-2 --input "$input" "$@")
mkdir -p "$TRIAL"/{state,log,ray,home}
hostname testnode
ip link set lo up
ip link add br0 type bridge
ip addr add 10.9.0.1/24 dev br0
ip link set br0 up
ip link add eth-head type veth peer name eth-other
ip link set eth-head master br0 up
printf '127.0.0.1 localhost\n10.9.0.1 testnode\n10.9.0.2 othernode\n' >"$TRIAL/hosts"
mount --bind "$TRIAL/hosts" /etc/hosts
mount -t tmpfs none /run
install --directory --owner=munge --group=munge /run/munge
cat >"$TRIAL/slurm.conf" <<CONF
ClusterName=trial
SlurmctldHost=testnode
AuthType=auth/munge
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmUser=root
SlurmdUser=root
StateSaveLocation=$TRIAL/state
SlurmdSpoolDir=$TRIAL/spool-%n
SlurmctldPidFile=$TRIAL/slurmctld.pid
SlurmdPidFile=$TRIAL/slurmd-%n.pid
ReturnToService=2
SlurmdParameters=config_overrides
NodeName=testnode NodeAddr=10.9.0.1 CPUs=$(nproc) RealMemory=4000 State=UNKNOWN
NodeName=othernode NodeAddr=10.9.0.2 CPUs=$(nproc) RealMemory=4000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF="$TRIAL/slurm.conf" HOME="$TRIAL/home" RAY_FOLDER="$TRIAL/ray/r" RAY_LOG="$TRIAL/log/ray"
setpriv --reuid=munge --regid=munge --clear-groups munged --foreground >"$TRIAL/log/munged" 2>&1 &
sleep 1
slurmctld -D >"$TRIAL/log/slurmctld" 2>&1 &
sleep 2
slurmd -D -N testnode >"$TRIAL/log/slurmd" 2>&1 &
unshare --net --uts --mount --pid --fork --mount-proc --kill-child "$here/trial.sh" --node >"$TRIAL/log/othernode" 2>&1 &
other=$!
until child="$(cat "/proc/$other/task/$other/children" 2>/dev/null)" && [[ -n "$child" ]]; do sleep 0.1; done
ip link set eth-other netns "${child%% *}"
until sinfo --noheader --format=%T 2>/dev/null | grep -q idle; do sleep 1; done
sleep 3
sinfo
cd "$here/../.."

queued() { [[ -n "$(squeue --noheader)" ]]; }
commits() { find "$1/commits" -name '*.json' 2>/dev/null | wc -l; }

echo "== two nodes, to completion"
job="$(sbatch --parsable --nodes=2 --output="$TRIAL/log/job-1" deploy/slurm/augment.sbatch "${options[@]}" \
  --output "$TRIAL/out-1" --shard-rows 10 --limit 200)"
while queued; do sleep 1; done
scontrol show job "$job" | grep -E "NodeList=|ExitCode="
cat "$TRIAL/log/job-1"

echo "== interrupted halfway"
job="$(sbatch --parsable --nodes=2 --output="$TRIAL/log/job-2" deploy/slurm/augment.sbatch "${options[@]}" \
  --output "$TRIAL/out-2" --shard-rows 2)"
until (($(commits "$TRIAL/out-2") > 3)); do sleep 0.1; done
scancel --signal=TERM --batch "$job"
while [[ "$(squeue --noheader --format=%T)" == RUNNING ]]; do sleep 0.5; done
echo "$(commits "$TRIAL/out-2") shards committed, then: $(squeue --noheader --format='%T %r')"
while queued; do
  # Slurm delays a requeued job; the trial starts it at once.
  scontrol update JobId="$job" StartTime=now 2>/dev/null || true
  sleep 5
done
scontrol show job "$job" | grep -E "Restarts=|ExitCode="
cat "$TRIAL/log/job-2"
[[ -e "$TRIAL/out-1/_SUCCESS" && -e "$TRIAL/out-2/_SUCCESS" ]]
