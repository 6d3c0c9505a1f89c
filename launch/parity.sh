#!/usr/bin/env bash
# Set up torch, transformers and diffusers beside the rest (once) and compare the frozen networks
# with theirs on random weights, the samplers with diffusers' schedulers, and the forecaster's
# gradients with torch's in float64: prints the largest relative error of each. Arguments go to
# pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/usage.sh
EXTRA=parity source launch/environment.sh
# As XLA compiles them for use.
export JAX_DISABLE_MOST_OPTIMIZATIONS=false
JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}" python -m pytest -s tests/convert/test_transformers.py \
  tests/convert/test_diffusers.py tests/generator/test_schedulers.py \
  tests/tasks/test_forecaster_published.py "$@"
