#!/usr/bin/env bash
# Inside a Slurm job: start Ray on every node of the allocation, run a command on the first node, end what was started.
#   deploy/slurm/with-ray.sh python -m augment_service run --address auto …
# Exit code: the command's own. SIGTERM (Slurm's warning before the time limit) goes to the command, which keeps
# everything committed; then the job goes back into Slurm's queue, to go on where it was. The same as
# `ray symmetric-run`, but for three things: a token of this job's own, the signal, and an end that touches only this
# job's processes (symmetric-run ends with `ray stop`, which kills every Ray of the user on a node, other jobs' too).
# HEAD_IP           address of the first node that the others reach it by (default: that of its host name)
# RAY_PORT          port of the head (default: 21000 and up, from the job's number)
# RAY_FOLDER        Ray's sockets and logs on each node (default /tmp/ray-JOBID); the path must be short
# RAY_LOG           file for what `ray start` says (default: nowhere)
# RAY_WAIT_SECONDS  how long to wait for all nodes (default 300)
set -euo pipefail
: "${SLURM_JOB_ID:?runs inside a Slurm job: sbatch deploy/slurm/augment.sbatch}"
nodes="${SLURM_JOB_NUM_NODES:-1}"
head_ip="${HEAD_IP:-$(hostname --ip-address | cut -d' ' -f1)}"
port="${RAY_PORT:-$((21000 + SLURM_JOB_ID % 9000))}"
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
RAY_AUTH_TOKEN="$(python -c 'import secrets; print(secrets.token_hex(32))')"
export RAY_AUTH_TOKEN

started=()
# shellcheck disable=SC2329 # the trap calls it
finish() {
  for pid in "${started[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
  for pid in "${started[@]}"; do wait "$pid" 2>/dev/null || true; done
}
trap finish EXIT

# A folder of the job's own: two jobs on one node never see each other's Ray.
folder="${RAY_FOLDER:-/tmp/ray-$SLURM_JOB_ID}"
ray start --head --block --node-ip-address="$head_ip" --port="$port" --temp-dir="$folder" \
  ${SLURM_CPUS_ON_NODE:+--num-cpus="$SLURM_CPUS_ON_NODE"} >"${RAY_LOG:-/dev/null}" 2>&1 &
started+=($!)
if ((nodes > 1)); then
  # One task on each of the other nodes. --overlap: the batch step holds the resources already.
  srun --overlap --nodes="$((nodes - 1))" --ntasks="$((nodes - 1))" --ntasks-per-node=1 \
    --exclude="$(hostname --short)" ray start --block --address="$head_ip:$port" >"${RAY_LOG:-/dev/null}" 2>&1 &
  started+=($!)
fi
export RAY_ADDRESS="$head_ip:$port"
python "$(dirname "${BASH_SOURCE[0]}")/wait_for_nodes.py" "$nodes" "${RAY_WAIT_SECONDS:-300}"

"$@" &
command=$!
was_told=0
trap 'was_told=1; kill -TERM "$command" 2>/dev/null || true' TERM INT
code=0
wait "$command" || code=$?
# A trapped signal ends `wait` before the command has ended.
while kill -0 "$command" 2>/dev/null; do
  code=0
  wait "$command" || code=$?
done
if ((was_told && code != 0)); then
  echo "interrupted with everything committed kept; back into the queue" >&2
  scontrol requeue "$SLURM_JOB_ID" || echo "not requeued: submit the same again" >&2
fi
exit "$code"
