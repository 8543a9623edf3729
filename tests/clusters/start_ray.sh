#!/usr/bin/env bash
# Starts a Ray cluster of two nodes with one core each on this machine, on loopback: start_ray.sh. `ray stop` ends it.
set -euo pipefail
export RAY_DISABLE_IMPORT_WARNING=1 RAY_USAGE_STATS_ENABLED=0
ray start --head --node-ip-address=127.0.0.1 --port=26820 --num-cpus=1 --include-dashboard=false --disable-usage-stats
ray start --address=127.0.0.1:26820 --node-ip-address=127.0.0.1 --num-cpus=1 --disable-usage-stats
