#!/usr/bin/env bash
# Makes `small`, a model of 128x256 frames, of the driving world: world → encoder → components, VAE,
# head → forecaster, its roll-outs → generator → bundle. About 25 minutes of one H100, in calls that
# end by themselves before LIMIT seconds (540) are over:
#   until bash launch/train_small.sh [OUT]; do [ $? = 75 ] || break; done
#   PLAN=1 bash launch/train_small.sh      what each part takes there, and in which call it comes
# All that has to survive between two calls is in OUT (runs/small): the parts that are done, at most
# 60 MB in archives of 15. The rendered world, what the networks make of it and checkpoints lie in
# WORK (OUT.work). Where that is lost, as on another machine, data are made anew and the part that
# was being trained begins anew, with as many steps as a call was found to hold, if these are fewer
# than the recipe's. Status 75: call again.
# GRACE: seconds after LIMIT that a command has to save and end (50).
# BARE=1 takes the machine's own Python instead of .venv. To try the script on a CPU:
#   STEPS=2 CLIPS=8 BATCH=2 WORKERS=0 bash launch/train_small.sh runs/tried
# shellcheck disable=SC2046,SC2086  # where words are several, they are meant to be
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/usage.sh
one_folder "$@"
[ -n "${BARE:-}" ] || source launch/environment.sh
if [ -n "${PLAN:-}" ]; then
  exec python3 -m re2pix_jax recipes encoder:small principal:small autoencoder:small head:small \
    forecaster:small forecaster:small-unrolled generator:small --mfu=0.2 --call=9 --first=2
fi
out="${1:-runs/small}"
work="${WORK:-$out.work}" limit="${LIMIT:-540}" grace="${GRACE:-50}" clips="${CLIPS:-1500}"
parts="$work/parts"

again() { echo "stopped after $SECONDS s; the same call goes on"; exit 75; }
run() {  # run COMMAND ...: in what is left of the call; status 143 where that is not enough
  local left=$((limit - SECONDS)) status=0
  [ "$left" -gt 0 ] || return 143
  timeout --foreground --preserve-status --signal=TERM --kill-after="$grace" "$left" \
    python3 -m re2pix_jax "$@" || status=$?
  # Killed, since it took too long to save, and goes on from the checkpoint before.
  if [ $status = 137 ] && [ $SECONDS -ge $((limit + grace)) ]; then status=143; fi
  return $status
}
must() { local status=0; run "$@" || status=$?; [ $status != 143 ] || again; return $status; }

# Archives are there whole or not at all: DONE names the last ones.
keep() {
  local last=0 next; [ ! -f "$out/DONE" ] || last="$(<"$out/DONE")"
  next=$((last + 1))
  rm -f "$out/$next".tar.*
  tar -C "$parts" -cf - . | split -b 15m - "$out/$next.tar."
  echo "$next" > "$out/DONE.new" && mv "$out/DONE.new" "$out/DONE"
  rm -f "$out/$last".tar.*
}
mkdir -p "$out" "$work"
if [ ! -d "$parts" ]; then
  rm -rf "$parts.new" && mkdir "$parts.new"
  [ ! -f "$out/DONE" ] || cat "$out/$(<"$out/DONE")".tar.* | tar -C "$parts.new" -xf -
  mv "$parts.new" "$parts"
fi
[ -f "$out/DONE" ] || [ ! -f "$parts/finished" ] || keep

world() {
  [ -d "$work/world" ] || must prepare world --out="$work/world" --size=160x320 \
    --clips="$clips" --validation_clips=$((clips < 64 ? clips : 64))
}
encoded() {  # every frame that is trained on, once
  [ ! -d "$work/encoded" ] || return 0
  world
  must prepare encode --source="${sources[world]}" --out="$work/encoded" \
    --splits=train --size=128x256 --encoder="$(holder encoder)" \
    --principal="$(holder principal)" --vae="$parts/autoencoder"
}
declare -A sources=([world]="records:$work/world" [encoded]="encoded:$work/encoded")
holder() {  # holder PART: its bundle, or that of a forecaster, which holds encoder and components
  local name
  for name in forecaster forecaster_one_step "$1"; do
    [ ! -d "$parts/$name" ] || { echo "$parts/$name"; return; }
  done
}
frozen() { local name; for name in "$@"; do echo "--config.frozen.$name=$(holder "$name")"; done; }

trained=0  # parts in this call
train() {  # train NAME DATA CONFIG [overrides ...]: to the end, then it is a bundle
  local name="$1" data="$2" config="$3" began steps status=0; shift 3
  "$data"
  # The steps of a run are those that it began with.
  if [ ! -f "$work/$name.steps" ]; then
    if [ -f "$parts/$name.slow" ]; then cp "$parts/$name.slow" "$work/$name.steps"
    else echo "${STEPS:-}" > "$work/$name.steps"; fi
  fi
  steps="$(<"$work/$name.steps")" began=$SECONDS
  run train --config="$config" --workdir="$work/$name" \
    --config.data.sources="('${sources[$data]}',)" --config.data.workers="${WORKERS:-8}" \
    --config.eval_data.sources="('${sources[world]}',)" "$@" \
    ${BATCH:+--config.batch_size="$BATCH"} ${steps:+--config.steps="$steps"} || status=$?
  if [ $status = 143 ]; then slow "$name" "$began"; again; fi
  [ $status = 0 ] || exit $status
  must export --workdir="$work/$name" --out="$parts/$name" --storage=float16
  rm -f "$parts/$name.slow"
  trained=$((trained + 1))
}
slow() {  # slow NAME BEGAN: notes how many steps a call holds that had nothing else to train
  local rate log="$work/$1/timing.jsonl"
  rate="$(tail -qn 1 "$log" 2>/dev/null | grep -o 'steps_per_second": [0-9.]*' || :)"
  [ -n "$rate" ] && [ $trained = 0 ] || return 0
  python3 -c "print(max(1, int(0.8 * ${rate##* } * ($limit - $2))))" > "$parts/$1.slow"
  keep
}

make_encoder() { train encoder world encoder:small; }
make_principal() {
  world
  must fit_pca --config=principal:small --out="$parts/principal" $(frozen encoder) \
    --config.data.sources="('${sources[world]}',)" --config.clips="$clips" \
    ${BATCH:+--config.batch_size="$BATCH"}
}
make_autoencoder() { train autoencoder world autoencoder:small $(frozen encoder); }
make_head() { train head world head:small $(frozen encoder principal); }
make_forecaster_one_step() {
  train forecaster_one_step encoded forecaster:small $(frozen encoder principal)
}
make_forecaster() {
  train forecaster encoded forecaster:small-unrolled $(frozen encoder principal) \
    --config.init="$parts/forecaster_one_step"
}
make_generator() {
  train generator encoded generator:small $(frozen forecaster) \
    --config.frozen.vae="$parts/autoencoder" --config.frozen.head="$parts/head"
}
# What each makes superfluous: it holds them.
declare -A holds=([forecaster_one_step]="encoder principal" [forecaster]=forecaster_one_step
  [generator]="forecaster autoencoder head")
for part in encoder principal autoencoder head forecaster_one_step forecaster generator; do
  if ! grep -qsx $part "$parts/finished"; then
    rm -rf "${parts:?}/$part"
    make_$part
    echo $part >> "$parts/finished"
    (cd "$parts" && rm -rf ${holds[$part]:-})
    keep
    echo "$part is done after $SECONDS s of this call, $(du -sm "$out" | cut -f1) MB in $out"
  fi
done
echo "The model is $parts/generator, $(du -sm "$parts/generator" | cut -f1) MB; evaluate it with"
echo "  re2pix evaluate --config=evaluate --config.model=$parts/generator \\"
echo "    --config.evals.depth.head= --workdir=$out.evaluation"
