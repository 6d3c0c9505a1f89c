#!/usr/bin/env bash
# Set up (once) and run style and the tests that are quick, in some minutes. With LONG=1 all that
# must pass before a change lands: the long tests too (from Python 3.12 on with coverage), and those
# of the trained networks once more as XLA compiles them for use. Arguments go to pytest, which then
# runs alone; --slow is for what takes minutes each:
#   LONG=1 bash launch/test.sh
#   bash launch/test.sh tests/data -k world
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/usage.sh
# shellcheck disable=SC2209  # a word, not the command
EXTRA=test source launch/environment.sh
export JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}"
tests() { python -m pytest -n "${TEST_WORKERS:-2}" --dist loadfile --no-loadscope-reorder "$@"; }
if [ $# -gt 0 ]; then tests "$@"; exit; fi
ruff check .
ruff format --check --quiet .
if [ -z "${LONG:-}" ]; then tests -m 'not long' --durations=10; exit; fi
# From Python 3.12 on the interpreter itself tells which lines run, at little cost; before that a
# tracer does, and takes minutes.
coverage=()
if python -c 'import sys; sys.exit(sys.version_info < (3, 12))'; then
  export COVERAGE_CORE=sysmon
  coverage=(--cov --cov-report=term)
fi
tests --durations=40 "${coverage[@]}"
echo "The networks again, with XLA's optimisations on"
# What takes longest to compile is left to the first pass, frozen networks to launch/parity.sh.
rest='not memorises and not dropout and not remat and not sequences'
JAX_DISABLE_MOST_OPTIMIZATIONS=false tests tests/nn tests/forecaster tests/generator/test_dit.py \
  -k "$rest"
