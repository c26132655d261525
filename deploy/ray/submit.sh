#!/usr/bin/env bash
# Submit one of our commands as a Ray job and follow its log; exit code 1 when the job failed.
#   RAY_API_SERVER_ADDRESS=http://HEAD:8265 deploy/ray/submit.sh augment_service run --task SST-2 --input … --output …
#   ENTRYPOINT_GPUS=1 deploy/ray/submit.sh trainer task --task SST-2 …
# RAY_API_SERVER_ADDRESS   the cluster's job server
# RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, else ~/.ray/auth_token: the cluster's token (RAY_AUTH_MODE=disabled: none)
# SUBMISSION_ID            name of the job; an id can be used once, a second submit resumes under another
# ENTRYPOINT_GPUS, ENTRYPOINT_CPUS   what the command itself needs: the driver of `run` nothing, a trainer its GPU
# NO_WAIT=1                return at once
set -euo pipefail
: "${RAY_API_SERVER_ADDRESS:?set RAY_API_SERVER_ADDRESS to the job server, such as http://10.0.0.1:8265}"
if (($# < 2)); then
  echo "submit.sh: name the command: submit.sh augment_service run …, or submit.sh trainer task …" >&2
  exit 2
fi
export RAY_AUTH_MODE="${RAY_AUTH_MODE:-token}"
# The working directory is the repository, less what .gitignore and .rayignore name; it travels to the cluster.
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
exec ray job submit ${SUBMISSION_ID:+--submission-id "$SUBMISSION_ID"} ${NO_WAIT:+--no-wait} \
  ${ENTRYPOINT_GPUS:+--entrypoint-num-gpus "$ENTRYPOINT_GPUS"} \
  ${ENTRYPOINT_CPUS:+--entrypoint-num-cpus "$ENTRYPOINT_CPUS"} \
  --working-dir . --runtime-env deploy/ray/runtime-env.yaml -- python -m "$@"
