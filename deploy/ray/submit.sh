#!/usr/bin/env bash
# Submit a command as a Ray job and follow its log; the exit code is 1 when the job fails.
#   RAY_API_SERVER_ADDRESS=http://HEAD:8265 deploy/ray/submit.sh augment_service run --task SST-2 --input … --output …
#   ENTRYPOINT_GPUS=1 deploy/ray/submit.sh trainer task --task SST-2 …
# RAY_API_SERVER_ADDRESS   address of the cluster's job server
# Token: RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, else ~/.ray/auth_token (RAY_AUTH_MODE=disabled: no token)
# SUBMISSION_ID            id of the job; Ray accepts each id once, so resume under a different one
# ENTRYPOINT_GPUS, ENTRYPOINT_CPUS   resources of the command itself: none for `run`, a GPU for a trainer
# NO_WAIT=1                return without waiting for the job
set -euo pipefail
: "${RAY_API_SERVER_ADDRESS:?set RAY_API_SERVER_ADDRESS to the job server, such as http://10.0.0.1:8265}"
if (($# < 2)); then
  echo "submit.sh: no command given; use submit.sh augment_service run … or submit.sh trainer task …" >&2
  exit 2
fi
export RAY_AUTH_MODE="${RAY_AUTH_MODE:-token}"
# The working directory is uploaded to the cluster: the repository without the files in .gitignore and .rayignore.
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
exec ray job submit ${SUBMISSION_ID:+--submission-id "$SUBMISSION_ID"} ${NO_WAIT:+--no-wait} \
  ${ENTRYPOINT_GPUS:+--entrypoint-num-gpus "$ENTRYPOINT_GPUS"} \
  ${ENTRYPOINT_CPUS:+--entrypoint-num-cpus "$ENTRYPOINT_CPUS"} \
  --working-dir . --runtime-env deploy/ray/runtime-env.yaml -- python -m "$@"
