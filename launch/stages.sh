#!/usr/bin/env bash
# The stages of a recipe in order, each on all processes and devices there are, then its bundle.
# What the launchers run (gpu_host.sh, slurm.sbatch, tpu_pod.sh, gke.yaml); alone, on this machine:
#   bash launch/stages.sh [--dry-run] [OUT]     given again, it goes on where it was cut off
# Ctrl-C and SIGTERM end it, as all that it runs, saved and with status 143.
# RECIPE=tiny (default) trains both stages on the procedural world from the shipped parts.
# RECIPE=base, base-l, base-xl, ... (of configs/generator.py): Cityscapes. DATA holds the prepared
#   records (data/cityscapes; configs/README.md says how), PARTS the bundles encoder and vae
#   (bundles/base: re2pix published bundles/base --only=encoder,vae).
# TOPOLOGY=h100:8 lets `re2pix plan` choose how the state lies on devices (one host);
#   PLATFORM=tpu trains layers as a loop.
# TRAINING: more fields of every `re2pix train`, such as --config.steps=100. RESTARTS: how often a
#   stage is started again after a process was killed (3). All hosts see OUT, DATA and PARTS.
# A stage whose batch is smaller than the devices are many, as head's, gets a clip on each.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/usage.sh
source launch/show.sh
fail() { echo "error: $1" >&2; exit 2; }
dry="" out=""
for argument in "$@"; do
  case "$argument" in
    --dry-run) dry=yes ;;
    -*) fail "unknown flag $argument; expected [--dry-run] [OUT]" ;;
    *)
      [ -z "$out" ] || fail "$out and $argument: expected [--dry-run] [OUT], one folder"
      out="$argument" ;;
  esac
done
recipe="${RECIPE:-tiny}"
out="${out:-${OUT:-runs/$recipe}}"
data="${DATA:-data/cityscapes}" given="${PARTS:-bundles/base}" parts="$out/parts"
case "$recipe" in
  tiny) configs=(forecaster:tiny generator:tiny) ;;
  base | base-unet | base-joint | base-baseline | base-baseline-large | base-[sbl] | base-xl)
    configs=(head:base forecaster_lowres "generator:$recipe") ;;
  *) fail "RECIPE=$recipe: expected tiny, base or a variant of it in configs/generator.py, as \
base-l, base-xl, base-unet" ;;
esac
read -r -d '' -a training <<< "${TRAINING:-}" || true  # all lines of it
for word in "${training[@]}"; do
  [[ "$word" =~ ^--(no)?config\.[a-z0-9_.]+(=.*)?$ ]] \
    || fail "TRAINING: $word: expected fields of the config, such as --config.steps=100"
done
for name in RESTARTS PATIENCE; do
  [[ "${!name:-0}" =~ ^[0-9]+$ ]] || fail "$name=${!name}: expected a whole number"
done
cards='(h100|h200|a100|rtx4060|rtx4080|rtx4090|cpu):[1-9][0-9]*'
tpus='v(5e|5p|6e):[1-9][0-9]*(x[1-9][0-9]*){1,2}'
[[ "${TOPOLOGY:-h100:1}" =~ ^($cards|$tpus)$ ]] || fail "TOPOLOGY=$TOPOLOGY: expected devices and \
their number, such as h100:8 or v5e:4x4; re2pix plan --help lists them"
[ -n "$dry" ] || command -v re2pix >/dev/null || source launch/environment.sh
# What every stage is given is looked at before the first, where re2pix is there to do it.
checked='import sys; from re2pix_jax.commands import _config
try:
  for name in sys.argv[1].split(): _config.checked(["", f"--config={name}", *sys.argv[2:]])
except ValueError as error: sys.exit(f"error: TRAINING, for {name}: {error}")'
[ ${#training[@]} -eq 0 ] || ! command -v re2pix >/dev/null \
  || python -c "$checked" "${configs[*]}" "${training[@]}" || exit 2

# Which process this is: the first alone makes bundles.
rank="${JAX_PROCESS_ID:-${SLURM_PROCID:-}}"
if [ -z "$rank" ] && [ -n "${TPU_WORKER_ID:-}" ]; then
  rank=$((${MEGASCALE_SLICE_ID:-0} * 1000 + TPU_WORKER_ID))
elif [ -z "$rank" ] && [ "${RE2PIX_DISTRIBUTED:-}" = 1 ]; then  # a TPU VM
  about() {
    curl -sf -H "Metadata-Flavor: Google" \
      "http://metadata.google.internal/computeMetadata/v1/instance/attributes/$1"
  }
  slice="$(about tpu-env | sed -n "s/^MEGASCALE_SLICE_ID: *'\{0,1\}\([0-9]*\).*/\1/p")"
  rank=$((${slice:-0} * 1000 + $(about agent-worker-number)))
fi
rank="${rank:-0}"

# A signal reaches this script, the command under way or both: it is passed on, and waited for.
child="" stopped=""
# One in the background hears no Ctrl-C.
trap 'stopped=yes; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null || true' TERM INT
run() {
  if [ -n "$dry" ]; then show "$@"; return; fi
  [ -z "$stopped" ] || exit 143
  local status=0
  "$@" & child=$!
  # A signal that came before its number was known.
  [ -z "$stopped" ] || kill -TERM "$child" 2>/dev/null || true
  # Not by `wait`: bash loses the status of what ends just as a signal interrupts it.
  while kill -0 "$child" 2>/dev/null; do sleep 1 || true; done  # a Ctrl-C ends a sleep, too
  wait "$child" || status=$?
  child=""
  [ "$status" -eq 0 ] || exit "$status"
}
exists='import sys; from etils import epath
try: found = epath.Path(sys.argv[1]).exists()
except Exception as error:
  print(f"error: {sys.argv[1]}: {str(error).splitlines()[0]}; the same command goes on",
        file=sys.stderr)
  sys.exit(75)
sys.exit(not found)'
there() {  # a bundle here or in a bucket, where the file that is looked for is written last
  [ -z "$dry" ] || return 1
  case "$1" in
    *://*)
      local status=0
      python -c "$exists" "$1/config.json" || status=$?
      [ $status -le 1 ] || exit $status
      return $status ;;
    *) [ -f "$1/config.json" ] ;;
  esac
}
alone() {  # alone BUNDLE COMMAND ...: by the first process; the others wait for the bundle
  local bundle="$1"; shift
  [ "$rank" -ne 0 ] \
    || run env -u RE2PIX_DISTRIBUTED -u JAX_COORDINATOR_ADDRESS JAX_PLATFORMS=cpu "$@"
  [ -z "$dry" ] || return 0
  local waited=$((SECONDS + ${PATIENCE:-1800}))
  until there "$bundle"; do
    [ -z "$stopped" ] || exit 143
    [ $SECONDS -lt $waited ] || { echo "error: $bundle: not made by process 0" >&2; exit 75; }
    sleep 2
  done
}
chosen() {  # the flags that `re2pix plan` recommends for a config, asked for once
  [ -n "${TOPOLOGY:-}" ] || return 0
  local file="$out/plans/$1-$TOPOLOGY.txt" asked
  if [ ${#training[@]} -gt 0 ]; then
    file="${file%.txt}-$(cksum <<< "${training[*]}" | cut -d ' ' -f 1).txt"
  fi
  asked=(re2pix plan --config="$1" --topology="$TOPOLOGY" --search --fill_devices "${training[@]}")
  if [ -n "$dry" ]; then
    echo "JAX_PLATFORMS=cpu ${asked[*]} > $file" >&2
    return
  fi
  if [ ! -f "$file" ]; then
    mkdir -p "$out/plans"
    # In $(...) a failure ends nothing by itself, and half a plan would be taken for one.
    JAX_PLATFORMS=cpu "${asked[@]}" > "$file.partial" || exit
    if ! grep -q '^take ' "$file.partial"; then
      sed -n 's/^none fits/error: &/p' "$file.partial" >&2
      exit 2
    fi
    mv "$file.partial" "$file"
  fi
  sed -n 's/^none is shown/warning: &/p' "$file" >&2
  sed -n 's/^take //p' "$file"
}
stage() {  # stage NAME CONFIG [FLAGS]: trained to the end, then its bundle
  local name="$1" config="$2" flags; shift 2
  ! there "$parts/$name" || return 0
  flags="$(chosen "$config")"
  # shellcheck disable=SC2086  # flags are several words
  run "${kept[@]}" re2pix train --config="$config" --workdir="$out/$name" \
    --restarts="${RESTARTS:-3}" --fill_devices $flags "$@" "${training[@]}"
  alone "$parts/$name" re2pix export --workdir="$out/$name" --out="$parts/$name"
}

loop=() kept=()
# Workers come and go, the bucket stays: what was compiled is there when they start again.
case "${PLATFORM:-}-$out" in
  tpu-*://*) kept=(env JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$out/compiled}") ;;
esac
# A TPU's compiler does not finish with a transformer's layers one by one.
case "${PLATFORM:-}-$recipe" in *unet*) ;; tpu-base*) loop=(--config.model.unroll=False) ;; esac
case "$recipe" in
  tiny)
    stage forecaster forecaster:tiny --config.frozen.encoder=tiny --config.frozen.principal=tiny
    stage generator generator:tiny --config.frozen.forecaster="$parts/forecaster" \
      --config.frozen.vae=tiny --config.frozen.head=tiny
    ;;
  *)
    records=(--config.data.sources="('records:$data',)")
    encoder=(--config.frozen.encoder="$given/encoder")
    features=("${encoder[@]}" --config.frozen.principal="$parts/principal")
    there "$parts/principal" || run re2pix fit_pca --config=principal:base \
      --out="$parts/principal" "${encoder[@]}" "${records[@]}"
    # Of no use in planning: a head is small.
    TOPOLOGY="" stage head head:base "${features[@]}" "${records[@]}"
    stage forecaster forecaster_lowres "${features[@]}" "${records[@]}"
    stage generator "generator:$recipe" "${loop[@]}" \
      --config.frozen.forecaster="$parts/forecaster" \
      --config.frozen.vae="$given/vae" --config.frozen.head="$parts/head" "${records[@]}"
    ;;
esac
[ -n "$dry" ] || echo "The model is $parts/generator"
