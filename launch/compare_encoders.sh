#!/usr/bin/env bash
# How the tiny encoder's losses were chosen: three short trainings, judged by a linear probe and by a forecaster on their features.
#   bash launch/compare_encoders.sh [OUT]      about half an hour on 2 cores; needs the records of launch/train_tiny.sh in OUT/world
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/environment.sh
out="${1:-runs/tiny}"
data=(--config.data.sources="('records:$out/world',)" --config.eval_data.sources="('records:$out/world',)")
for variant in "dense 1.0 0.0" "distill 0.0 1.0" "both 1.0 0.3"; do
  read -r name dense distill <<< "$variant"
  run="$out/compare/$name"
  [ ! -d "$run/parts/forecaster" ] || continue
  python -m re2pix_jax.train --config=configs/encoder.py:tiny --workdir="$run/encoder" "${data[@]}" \
    --config.steps=800 --config.loss.dense="$dense" --config.loss.distill="$distill"
  python -m re2pix_jax.export --workdir="$run/encoder" --out="$run/parts/encoder"
  python -m re2pix_jax.fit_pca --config=configs/principal.py:tiny --out="$run/parts/principal" \
    --config.frozen.encoder="$run/parts/encoder" --config.data.sources="('records:$out/world',)"
  python -m re2pix_jax.train --config=configs/forecaster.py:tiny --workdir="$run/forecaster" "${data[@]}" --config.steps=400 \
    --config.frozen.encoder="$run/parts/encoder" --config.frozen.principal="$run/parts/principal"
  python -m re2pix_jax.export --workdir="$run/forecaster" --out="$run/parts/forecaster"
done
for name in dense distill both; do
  python -m re2pix_jax.evaluate --config=configs/evaluate.py --config.model="$out/compare/$name/parts/forecaster" \
    --config.source="records:$out/world" --config.clips=64 --workdir="$out/compare/$name/evaluation"
done
