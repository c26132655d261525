#!/usr/bin/env bash
# Join this machine to a cluster; it runs until it is stopped (SIGTERM). The token is the head's: the same
# ~/.ray/auth_token, RAY_AUTH_TOKEN_PATH or RAY_AUTH_TOKEN.
#   HEAD=10.0.0.1:6379 deploy/ray/start-worker.sh [more options of `ray start`, such as --num-gpus=1]
set -euo pipefail
: "${HEAD:?set HEAD to the address of the head, such as 10.0.0.1:6379}"
export RAY_AUTH_MODE="${RAY_AUTH_MODE:-token}"
exec ray start --block --address="$HEAD" ${NODE_IP:+--node-ip-address="$NODE_IP"} --disable-usage-stats "$@"
