#!/usr/bin/env bash
# Add this machine to a cluster; it runs until SIGTERM. It needs the token of the head node, in ~/.ray/auth_token,
# RAY_AUTH_TOKEN_PATH or RAY_AUTH_TOKEN.
#   HEAD=10.0.0.1:6379 deploy/ray/start-worker.sh [more options of `ray start`, such as --num-gpus=1]
set -euo pipefail
: "${HEAD:?set HEAD to the address of the head node, such as 10.0.0.1:6379}"
export RAY_AUTH_MODE="${RAY_AUTH_MODE:-token}"
exec ray start --block --address="$HEAD" ${NODE_IP:+--node-ip-address="$NODE_IP"} --disable-usage-stats "$@"
