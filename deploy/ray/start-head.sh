#!/usr/bin/env bash
# Start the head of a Ray cluster on this machine, with token authentication; it runs until it is stopped (SIGTERM).
#   deploy/ray/start-head.sh [more options of `ray start`]
# NODE_IP          address that other nodes reach this one by (default: Ray's own choice)
# PORT             port of the head (default 6379)
# DASHBOARD_PORT   port of the job server and dashboard (default 8265), on DASHBOARD_HOST (default 127.0.0.1)
# HEAD_CPUS        CPUs given to work on this node (default 0: the head drives, the workers work)
# RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, else ~/.ray/auth_token, which is made when it is missing.
set -euo pipefail
export RAY_AUTH_MODE="${RAY_AUTH_MODE:-token}"
if [[ "$RAY_AUTH_MODE" == token && -z "${RAY_AUTH_TOKEN:-}" && -z "${RAY_AUTH_TOKEN_PATH:-}" ]]; then
  ray get-auth-token --generate >/dev/null
fi
exec ray start --head --block --port="${PORT:-6379}" ${NODE_IP:+--node-ip-address="$NODE_IP"} \
  --dashboard-host="${DASHBOARD_HOST:-127.0.0.1}" --dashboard-port="${DASHBOARD_PORT:-8265}" \
  --num-cpus="${HEAD_CPUS:-0}" --num-gpus="${HEAD_GPUS:-0}" --disable-usage-stats "$@"
