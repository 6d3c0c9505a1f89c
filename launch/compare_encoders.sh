#!/usr/bin/env bash
# How the tiny encoder's losses were chosen: three short trainings of equal steps, judged by a linear probe and by a forecaster.
#   bash launch/compare_encoders.sh [OUT]      about 20 minutes on 2 cores; needs the records of launch/train_tiny.sh in OUT/world
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
out="${1:-runs/tiny}"
data=(--config.data.sources="('records:$out/world',)" --config.eval_data.sources="('records:$out/world',)")
for variant in "dense 1.0 0.0" "distill 0.0 1.0" "both 1.0 0.3"; do
  read -r name dense distill <<< "$variant"
  run="$out/compare/$name"
  if [ ! -d "$run/parts/encoder" ]; then
    python -m re2pix_jax train --config=configs/encoder.py:tiny --workdir="$run/encoder" "${data[@]}" \
      --config.batch_size=8 --config.steps=300 --config.loss.dense="$dense" --config.loss.distill="$distill"
    python -m re2pix_jax export --workdir="$run/encoder" --out="$run/parts/encoder"
  fi
  [ -d "$run/parts/principal" ] || python -m re2pix_jax fit_pca --config=configs/principal.py:tiny --out="$run/parts/principal" \
    --config.frozen.encoder="$run/parts/encoder" --config.data.sources="('records:$out/world',)" --config.clips=200
  if [ ! -d "$run/parts/forecaster" ]; then
    python -m re2pix_jax train --config=configs/forecaster.py:tiny --workdir="$run/forecaster" "${data[@]}" --config.steps=150 \
      --config.frozen.encoder="$run/parts/encoder" --config.frozen.principal="$run/parts/principal"
    python -m re2pix_jax export --workdir="$run/forecaster" --out="$run/parts/forecaster"
  fi
  python -m re2pix_jax evaluate --config=configs/evaluate.py --config.model="$run/parts/forecaster" \
    --config.source="records:$out/world" --config.clips=64 --config.workers=0 --config.probe.steps=150 --workdir="$run/evaluation"
done
