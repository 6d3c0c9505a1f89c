#!/usr/bin/env bash
# Reproduces the shipped `tiny` bundle from nothing: world → encoder → VAE, components → head,
# forecaster → generator → bundle.
#   bash launch/train_tiny.sh [OUT]      about four hours on 2 cores; a second call goes on where
#                                        the first was cut off
# VIDEOS=DIR adds real driving videos (a folder of mp4 files, a seventh of the clips) to what the
# VAE, the components and both stages see; the shipped weights were trained so, MODEL_CARD.md says
# on which. What needs labels is trained on the world alone.
# To try the script in a few minutes: STEPS=2 CLIPS=8 bash launch/train_tiny.sh runs/tried
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/usage.sh
one_folder "$@"
source launch/environment.sh
out="${1:-runs/tiny}"
parts="$out/parts"
mkdir -p "$parts"

[ -d "$out/world" ] || re2pix prepare world --out="$out/world" --size=64x128 \
  --frames=48 --clips="${CLIPS:-2000}" --validation_clips=64
world=(--config.data.sources="('records:$out/world',)")
mixed=("${world[@]}")
if [ -n "${VIDEOS:-}" ]; then
  mixed=(--config.data.sources="('records:$out/world','videos:$VIDEOS')"
    --config.data.weights="(0.85,0.15)")
fi

train() {  # train NAME CONFIG [overrides ...]: trains to the end, then exports the bundle
  local name="$1" config="$2"; shift 2
  [ ! -d "$parts/$name" ] || return 0
  re2pix train --config="$config" --workdir="$out/$name" \
    --config.eval_data.sources="('records:$out/world',)" "$@" ${STEPS:+--config.steps="$STEPS"}
  re2pix export --workdir="$out/$name" --out="$parts/$name"
}

train encoder encoder:tiny "${world[@]}"
train autoencoder autoencoder:tiny "${mixed[@]}" --config.frozen.encoder="$parts/encoder" \
  --config.loss.adversary=0.2 --config.loss.features=2.0
[ -d "$parts/principal" ] || re2pix fit_pca --config=principal:tiny --out="$parts/principal" \
  --config.frozen.encoder="$parts/encoder" "${mixed[@]}"
features=(--config.frozen.encoder="$parts/encoder" --config.frozen.principal="$parts/principal")
train head head:tiny "${world[@]}" "${features[@]}"
# These two judge forecasts, no model holds them.
train depth head:tiny-depth "${world[@]}" "${features[@]}"
train normals head:tiny-normals "${world[@]}" "${features[@]}"
# So does the judge, a network of video of its own.
train judge judge:tiny "${mixed[@]}"
# The frozen networks see every frame once, not at every step of both stages.
encode() {  # encode NAME SOURCE
  [ -d "$out/$1_encoded" ] || re2pix prepare encode --source="$2" --out="$out/$1_encoded" \
    --size=64x128 --encoder="$parts/encoder" --principal="$parts/principal" \
    --vae="$parts/autoencoder"
}
encode world "records:$out/world"
encoded=(--config.data.sources="('encoded:$out/world_encoded',)" --config.data.flip=0.0)
if [ -n "${VIDEOS:-}" ]; then
  encode videos "videos:$VIDEOS"
  encoded=(
    --config.data.sources="('encoded:$out/world_encoded','encoded:$out/videos_encoded')"
    --config.data.weights="(0.86,0.14)" --config.data.flip=0.0)
fi
train forecaster_one_step forecaster:tiny "${encoded[@]}" "${features[@]}"
train forecaster_unrolled forecaster:tiny-unrolled "${encoded[@]}" "${features[@]}" \
  --config.init="$parts/forecaster_one_step"
# Twelve frames ahead it goes on from its own errors alone; only the world's clips are as long.
train forecaster forecaster:tiny-unrolled "${features[@]}" \
  --config.data.sources="('encoded:$out/world_encoded',)" --config.data.flip=0.0 \
  --config.init="$parts/forecaster_unrolled" --config.loss.unroll=12 --config.data.frames=16
train generator generator:tiny "${encoded[@]}" --config.loss.context_noise=0.3 \
  --config.frozen.forecaster="$parts/forecaster" \
  --config.frozen.vae="$parts/autoencoder" --config.frozen.head="$parts/head"

# What is shipped: the whole model, and the two heads and the network that judge it, stored in half
# precision.
ship() {  # ship RUN BUNDLE CARD
  [ -d "$2" ] || re2pix export --workdir="$out/$1" --out="$2" --storage=float16 --card="$3"
}
cards=re2pix_jax/bundles/shipped/tiny
ship generator "$out/tiny" "$cards/MODEL_CARD.md"
ship depth "$out/tiny/depth" "$cards/depth/MODEL_CARD.md"
ship normals "$out/tiny/normals" "$cards/normals/MODEL_CARD.md"
ship judge "$out/tiny/judge" "$cards/judge/MODEL_CARD.md"
echo "The model is $out/tiny; evaluate it with"
echo "  re2pix evaluate --config=evaluate --config.model=$out/tiny --config.evals.depth.head= \\"
echo "    --workdir=$out/evaluation"
