#!/usr/bin/env bash
# Runs the tests that need a cluster on a SLURM and a Ray of two nodes each, which it starts on this machine and ends.
# Needs root on Debian, for slurm-wlm and munge, and an environment with memoroids[test,slurm,ray].
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
command -v slurmctld > /dev/null || { apt-get update -qq && apt-get install -y -qq slurm-wlm munge; }
folder="$(mktemp -d)"
trap '"$here/stop_slurm.sh" "$folder"; ray stop --force > /dev/null' EXIT
"$here/start_slurm.sh" "$folder"
"$here/start_ray.sh" > /dev/null
# shellcheck disable=SC1091
. "$folder/env"
MEMOROIDS_CLUSTERS="$folder" pytest -n 0 -s -m cluster "$here/../experiments/test_clusters.py"
