#!/usr/bin/env bash
# Start the head node of a Ray cluster on this machine, with token authentication. It runs until SIGTERM.
#   deploy/ray/start-head.sh [more options of `ray start`]
# NODE_IP          address at which other nodes reach this one (default: chosen by Ray)
# PORT             port of the head (default 6379)
# DASHBOARD_PORT   port of the job server and dashboard (default 8265), on DASHBOARD_HOST (default 127.0.0.1)
# HEAD_CPUS        CPUs for work on this node (default 0: the head only coordinates)
# Token: RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, else ~/.ray/auth_token, which is generated if it does not exist.
set -euo pipefail
export RAY_AUTH_MODE="${RAY_AUTH_MODE:-token}"
if [[ "$RAY_AUTH_MODE" == token && -z "${RAY_AUTH_TOKEN:-}" && -z "${RAY_AUTH_TOKEN_PATH:-}" ]]; then
  ray get-auth-token --generate >/dev/null
fi
exec ray start --head --block --port="${PORT:-6379}" ${NODE_IP:+--node-ip-address="$NODE_IP"} \
  --dashboard-host="${DASHBOARD_HOST:-127.0.0.1}" --dashboard-port="${DASHBOARD_PORT:-8265}" \
  --num-cpus="${HEAD_CPUS:-0}" --num-gpus="${HEAD_GPUS:-0}" --disable-usage-stats "$@"
