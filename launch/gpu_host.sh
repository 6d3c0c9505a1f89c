#!/usr/bin/env bash
# One host, all its GPUs: sets up re2pix with CUDA (once), looks at driver and memory, lets
# `re2pix plan` choose how the state lies on the cards, and trains the stages of a recipe.
#   RECIPE=base bash launch/gpu_host.sh [--dry-run] [OUT]     given again, it goes on
# RECIPE, DATA, PARTS, TRAINING, RESTARTS: see launch/stages.sh. TOPOLOGY=h100:8 says what the cards
# are where their name does not; with it, --dry-run needs none. DRIVER is the least version of the
# driver (CUDA 13).
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/usage.sh
fail() { echo "error: $1" >&2; exit 2; }
case " $* " in *" --dry-run "*) dry=yes ;; *) dry="" ;; esac

look() {  # at the cards, and at what they are
  local cards count name driver memory total used kind
  command -v nvidia-smi >/dev/null || fail "no nvidia-smi here: install NVIDIA's driver, or train \
on the CPU with bash launch/stages.sh; TOPOLOGY=h100:8 and --dry-run show what such a host would do"
  # It lists all cards, whatever CUDA_VISIBLE_DEVICES says.
  cards="$(nvidia-smi ${CUDA_VISIBLE_DEVICES:+--id="$CUDA_VISIBLE_DEVICES"} \
    --query-gpu=name,driver_version,memory.total,memory.used --format=csv,noheader,nounits)" \
    || fail "nvidia-smi finds no card: $cards"
  count="$(wc -l <<< "$cards")"
  IFS=, read -r name driver memory _ <<< "$cards"
  [ "${driver%%.*}" -ge "${DRIVER:-580}" ] || fail "driver$driver: CUDA 13 needs ${DRIVER:-580} \
or newer; update it, or install jax[cuda12] into .venv yourself and set DRIVER=525"
  echo "$count x $name, driver$driver"
  while IFS=, read -r _ _ total used; do
    [ $((used * 10)) -le "$total" ] || fail "a card has $used of$total MiB in use: end what runs \
there (nvidia-smi lists it), or choose cards by CUDA_VISIBLE_DEVICES"
  done <<< "$cards"
  [ -z "${TOPOLOGY:-}" ] || return 0
  kind=""
  case "$name" in
    *Laptop* | *" Ti"*) ;;  # has another memory than the card of that number
    *H200*) kind=h200 ;;
    *H100*) kind=h100 ;;
    *A100*) [ "$memory" -lt 70000 ] || kind=a100 ;;  # there is one of 40 GB
    *"RTX 4090"*) kind=rtx4090 ;;
    *"RTX 4080"*) kind=rtx4080 ;;
    *"RTX 4060"*) kind=rtx4060 ;;
  esac
  if [ -n "$kind" ]; then
    export TOPOLOGY="$kind:$count"
  else
    echo "$name is not known to re2pix plan: the state is replicated"
  fi
}
# A mistake is said before anything is set up.
said="$(bash launch/stages.sh --dry-run "$@" 2>&1 >/dev/null)" || fail "${said#error: }"
[[ "${TOPOLOGY:-h100:1}" =~ ^(h100|h200|a100|rtx4060|rtx4080|rtx4090):[1-9][0-9]*$ ]] \
  || fail "TOPOLOGY=$TOPOLOGY: expected cards and their number, such as h100:8; cards are h100, \
h200, a100, rtx4060, rtx4080, rtx4090"
if [ -z "$dry" ] || [ -z "${TOPOLOGY:-}" ]; then look; fi
if [ -n "$dry" ]; then
  echo "EXTRA=cuda source launch/environment.sh"
else
  command -v re2pix >/dev/null || EXTRA=cuda source launch/environment.sh
fi
exec bash launch/stages.sh "$@"
