#!/usr/bin/env bash
# The paper's table at our scale: trains every row with every seed on the driving world, evaluates
# them alike, makes tables and curves.
#   bash launch/study.sh [OUT]      a second call goes on where the first was cut off
# MODEL names the frozen networks (a re2pix bundle; tiny), SEEDS and ROWS what is trained, SIZE the
# generator (tiny), CLIPS how many clips of the world are rendered, STEPS another number of training
# steps. Flags of training go in TRAINING, those of the evaluation in EVALUATION:
#   SEEDS="0" ROWS="baseline full" STEPS=200 EVALUATION="--config.evaluation.clips=32" \
#     bash launch/study.sh runs/short
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
out="${1:-runs/study}"
resolve='import sys; from re2pix_jax import bundles; print(bundles.resolve(sys.argv[1]))'
model="$(python -c "$resolve" "${MODEL:-tiny}")"
mkdir -p "$out"
# The same networks are compiled for every row and seed; the compiler's results are kept between the
# commands.
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$(realpath "$out")/compiled}"
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=1
all=(baseline full truth_only no_nested_dropout baseline_large predicted_only)

[ -d "$out/world" ] || re2pix prepare world --out="$out/world" --size=64x128 \
  --clips="${CLIPS:-1000}" --validation_clips=160
[ -d "$out/encoded" ] || re2pix prepare encode --source="records:$out/world" --out="$out/encoded" \
  --encoder="$model/forecaster/encoder" --principal="$model/forecaster/principal" \
  --vae="$model/vae"

sources="('encoded:$out/encoded',)"
for seed in ${SEEDS:-0 1 2}; do
  for row in ${ROWS:-${all[@]}}; do
    re2pix train --config="study_train:$row-${SIZE:-tiny}" --workdir="$out/runs/$row/$seed" \
      --config.seed="$seed" --config.data.sources="$sources" --config.data.flip=0.0 \
      --config.eval_data.sources="$sources" --config.frozen.forecaster="$model/forecaster" \
      --config.frozen.vae="$model/vae" --config.frozen.head="$model/head" \
      ${STEPS:+--config.steps="$STEPS"} ${TRAINING:-}
  done
done
re2pix study --config=study_evaluate --workdir="$out" \
  --config.evaluation.source="records:$out/world" ${EVALUATION:-}
