#!/usr/bin/env bash
# Does faults to small runs, for real, and prints what they cost and say: processes killed, hanging
# or stopped, checkpoints damaged, a full disk, another number of processes on resuming, ...
#   bash launch/faults.sh [WORD ...]     those whose names hold one of the words
# As root: the disks are small file systems that it mounts. Clocks are set where Debian's package
# faketime is installed.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/usage.sh
# shellcheck disable=SC2209  # a word, not the command
EXTRA=test source launch/environment.sh
JAX_PLATFORMS=cpu exec python -m tests.training.faults "$@"
