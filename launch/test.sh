#!/usr/bin/env bash
# Set up (once) and run the tests. Arguments go to pytest: bash launch/test.sh tests/data -k world
set -euo pipefail
cd "$(dirname "$0")/.."
EXTRA=test source launch/environment.sh
ruff check .
JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}" python -m pytest -n "${TEST_WORKERS:-2}" --dist loadfile --no-loadscope-reorder "$@"
