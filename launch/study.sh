#!/usr/bin/env bash
# The paper's table at our scale: trains one generator on the driving world, goes on from it in
# every row of the table with every seed, evaluates them alike, makes tables, findings and a page.
#   bash launch/study.sh [OUT]      a second call goes on where the first was cut off
# Rows come in the order of what they tell, seed by seed, and the tables are made anew after every
# seed. MODEL names the frozen networks (a re2pix bundle; tiny), SIZE the generator (tiny), SEEDS
# and ROWS what is trained with each seed, ONCE what is trained with the first seed alone, SHARED
# and STEPS other numbers of training steps of what is shared and of a row. START is a bundle to
# start from instead of the shared generator: one with features serves rows with features alone.
# CLIPS are rendered for training unless ENCODED, a folder that `re2pix prepare encode` made with
# MODEL's networks, is there; FUTURES are rendered for the evaluation unless WORLD, a prepared
# folder whose validation clips are long enough, is. Flags of training go in TRAINING, those of the
# evaluation in EVALUATION. A first look in half an hour, from the shipped generator, which has seen
# mixed supervision and nested dropout (the rows show what a few steps without them undo):
#   START=tiny/generator SEEDS=0 ONCE= STEPS=100 bash launch/study.sh runs/look
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/.."
source launch/usage.sh
one_folder "$@"
source launch/environment.sh
out="${1:-runs/study}"
resolve='import sys; from re2pix_jax import bundles; print(bundles.resolve(sys.argv[1]))'
model="$(python -c "$resolve" "${MODEL:-tiny}")"
size="${SIZE:-tiny}"
mkdir -p "$out"
# The same networks are compiled for every row and seed; the compiler's results are kept between the
# commands.
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$(realpath "$out")/compiled}"
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=1
rows="${ROWS-full truth_only predicted_only no_nested_dropout full_doublings}"
once="${ONCE-baseline final_tenth_undropped baseline_large}"

encoded="${ENCODED:-$out/encoded}" world="${WORLD:-$out/world}"
if [ ! -d "$encoded" ]; then
  [ -d "$out/clips" ] || re2pix prepare world --out="$out/clips" --size=64x128 \
    --clips="${CLIPS:-1000}" --validation_clips=8
  re2pix prepare encode --source="records:$out/clips" --out="$encoded" \
    --encoder="$model/forecaster/encoder" --principal="$model/forecaster/principal" \
    --vae="$model/vae"
fi
[ -d "$world" ] || re2pix prepare world --out="$world" --size=64x128 --frames=60 --clips=1 \
  --validation_clips="${FUTURES:-192}"

sources="('encoded:$encoded',)"
# shellcheck disable=SC2086  # TRAINING and EVALUATION hold several words
train() {  # row, workdir, other flags
  re2pix train --config="study_train:$1-$size" --workdir="$2" --config.data.sources="$sources" \
    --config.data.flip=0.0 --config.eval_data.sources="$sources" \
    --config.frozen.forecaster="$model/forecaster" --config.frozen.vae="$model/vae" \
    --config.frozen.head="$model/head" --config.log.writers="()" "${@:3}" ${TRAINING:-}
}
start() {  # row → the bundle that it starts from, trained where it is not there
  local name=shared
  [ "$1" = baseline_large ] && name=shared_large
  [ -n "${START:-}" ] && { echo "$START"; return; }
  if [ ! -d "$out/starts/$name" ]; then
    train "$name" "$out/shared/$name" ${SHARED:+--config.steps="$SHARED"} >&2
    re2pix export --workdir="$out/shared/$name" --out="$out/starts/$name" >&2
  fi
  echo "$out/starts/$name"
}

first=yes
for seed in ${SEEDS-0 1 2}; do
  for row in $rows $([ -n "$first" ] && echo "$once"); do
    init="$(start "$row")"
    train "$row" "$out/runs/$row/$seed" --config.seed="$seed" --config.init="$init" \
      ${STEPS:+--config.steps="$STEPS"}
  done
  first=
  # shellcheck disable=SC2086
  re2pix study --config=study_evaluate --workdir="$out" \
    --config.evaluation.source="records:$world" ${EVALUATION:-}
done
