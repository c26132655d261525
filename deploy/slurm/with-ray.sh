#!/usr/bin/env bash
# Inside a Slurm job: start Ray on every node of the allocation, run a command on the first node, stop Ray again.
#   deploy/slurm/with-ray.sh python -m augment_service run --address auto …
# Exit code: that of the command. SIGTERM (Slurm's warning before the time limit) is passed to the command, which stops
# with all committed shards kept; then the job is requeued and resumes later. `ray symmetric-run` does the same, except
# for three things: an authentication token per job, the signal, and a cleanup that stops only this job's processes
# (symmetric-run calls `ray stop`, which kills every Ray process of the user on a node, including those of other jobs).
# HEAD_IP           address at which the other nodes reach the first one (default: that of its host name)
# RAY_PORT          port of the head (default: 21000 or more, derived from the job id)
# RAY_FOLDER        folder for Ray's sockets and logs on each node (default /tmp/ray-JOBID); the path must be short
# RAY_LOG           file for the output of `ray start` on all nodes (default: ray-JOBID.log in the working directory)
# RAY_WAIT_SECONDS  how long to wait for all nodes (default 300)
set -euo pipefail
: "${SLURM_JOB_ID:?must run inside a Slurm job: sbatch deploy/slurm/augment.sbatch}"
nodes="${SLURM_JOB_NUM_NODES:-1}"
head_ip="${HEAD_IP:-$(hostname --ip-address | cut -d' ' -f1)}"
port="${RAY_PORT:-$((21000 + SLURM_JOB_ID % 9000))}"
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
RAY_AUTH_TOKEN="$(python -c 'import secrets; print(secrets.token_hex(32))')"
export RAY_AUTH_TOKEN RAY_LOG="${RAY_LOG:-ray-$SLURM_JOB_ID.log}"

started=()
# shellcheck disable=SC2329 # the trap calls it
finish() {
  for pid in "${started[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
  for pid in "${started[@]}"; do wait "$pid" 2>/dev/null || true; done
}
trap finish EXIT

# One folder per job, so that two jobs on one node never see each other's Ray.
folder="${RAY_FOLDER:-/tmp/ray-$SLURM_JOB_ID}"
ray start --head --block --node-ip-address="$head_ip" --port="$port" --temp-dir="$folder" \
  ${SLURM_CPUS_ON_NODE:+--num-cpus="$SLURM_CPUS_ON_NODE"} >>"$RAY_LOG" 2>&1 &
started+=($!)
if ((nodes > 1)); then
  # One task on each of the other nodes. --overlap, because the batch step already holds the resources.
  srun --overlap --nodes="$((nodes - 1))" --ntasks="$((nodes - 1))" --ntasks-per-node=1 \
    --exclude="$(hostname --short)" ray start --block --address="$head_ip:$port" >>"$RAY_LOG" 2>&1 &
  started+=($!)
fi
export RAY_ADDRESS="$head_ip:$port"
python "$(dirname "${BASH_SOURCE[0]}")/wait_for_nodes.py" "$nodes" "${RAY_WAIT_SECONDS:-300}"

"$@" &
command=$!
was_signalled=0
trap 'was_signalled=1; kill -TERM "$command" 2>/dev/null || true' TERM INT
code=0
wait "$command" || code=$?
# A trapped signal interrupts `wait` before the command has ended.
while kill -0 "$command" 2>/dev/null; do
  code=0
  wait "$command" || code=$?
done
if ((was_signalled && code != 0)); then
  echo "interrupted; all committed shards are kept; requeueing the job" >&2
  scontrol requeue "$SLURM_JOB_ID" || echo "could not requeue the job: submit the same command again" >&2
fi
exit "$code"
