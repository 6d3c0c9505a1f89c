#!/usr/bin/env bash
# How the tiny encoder's losses were chosen: three short trainings of equal steps, judged by a
# linear probe and by a forecaster.
#   bash launch/compare_encoders.sh [OUT]      about 20 minutes on 2 cores; needs the records of
#                                              launch/train_tiny.sh in OUT/world
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/usage.sh
one_folder "$@"
source launch/environment.sh
out="${1:-runs/tiny}"
sources="('records:$out/world',)"
data=(--config.data.sources="$sources" --config.eval_data.sources="$sources")
for variant in "dense 1.0 0.0" "distill 0.0 1.0" "both 1.0 0.3"; do
  read -r name dense distill <<< "$variant"
  run="$out/compare/$name" parts="$out/compare/$name/parts"
  if [ ! -d "$parts/encoder" ]; then
    re2pix train --config=encoder:tiny --workdir="$run/encoder" "${data[@]}" \
      --config.batch_size=8 --config.steps=300 \
      --config.loss.dense="$dense" --config.loss.distill="$distill"
    re2pix export --workdir="$run/encoder" --out="$parts/encoder"
  fi
  [ -d "$parts/principal" ] || re2pix fit_pca --config=principal:tiny --out="$parts/principal" \
    --config.frozen.encoder="$parts/encoder" --config.data.sources="$sources" --config.clips=200
  if [ ! -d "$parts/forecaster" ]; then
    re2pix train --config=forecaster:tiny --workdir="$run/forecaster" "${data[@]}" \
      --config.steps=150 --config.frozen.encoder="$parts/encoder" \
      --config.frozen.principal="$parts/principal"
    re2pix export --workdir="$run/forecaster" --out="$parts/forecaster"
  fi
  re2pix evaluate --config=evaluate --config.model="$parts/forecaster" --workdir="$run/evaluation" \
    --config.source="records:$out/world" --config.clips=64 --config.workers=0 \
    --config.evals.probe.steps=150 --config.evals.depth.head=
done
