#!/usr/bin/env bash
# Ends the SLURM that start_slurm.sh has started in FOLDER: stop_slurm.sh FOLDER.
set -uo pipefail
pkill -9 -f "slurmd -N node" ; pkill -9 -x slurmstepd ; [ -f "$1/slurmctld.pid" ] && kill -9 "$(cat "$1/slurmctld.pid")"
rm -rf "$1"
