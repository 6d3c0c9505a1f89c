#!/usr/bin/env bash
# A Cloud TPU slice, or several, from queued resources or one that is there already.
#   export TPU=NAME ZONE=us-west4-a PROJECT=mine TYPE=v5litepod-64 RECIPE=base OUT=gs://bucket/run \
#     DATA=gs://bucket/cityscapes PARTS=gs://bucket/bundles
#   bash launch/tpu_pod.sh up        create, wait, copy, install, start on all workers, tail
#   bash launch/tpu_pod.sh VERB [--dry-run]     does, or shows, one of
#     create  queued resources (SPOT=1: spot), and waits until they are there
#     setup   copies this repository to all workers and installs it
#     start   starts the stages of RECIPE on all workers, or COMMAND; given again, they go on
#     tail    shows what the first worker says        status  says whether it runs on each
#     stop    lets the run save and end               watch   starts again what was preempted, lost
#     fetch   gets the logs of all workers and OUT, to TO (fetched/$TPU)
#     delete  gives the slice back
# An existing slice: begin with setup. SLICES=2: multislice. VERSION: the runtime
# (v2-alpha-tpuv5-lite, v2-alpha-tpuv5, v2-alpha-tpuv6e; by TYPE otherwise). OUT, DATA and PARTS are
# in a bucket, since workers have a disk each. RECIPE, TRAINING, RESTARTS: see launch/stages.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/usage.sh
source launch/show.sh
fail() { echo "error: $1" >&2; exit 2; }
verb="" dry=""
for argument in "$@"; do
  case "$argument" in
    --dry-run) dry=yes ;;
    *)
      [ -z "$verb" ] || fail "unknown argument $argument; expected VERB [--dry-run]"
      verb="$argument" ;;
  esac
done
[ -n "${TPU:-}" ] || fail "TPU names the slice: set it"
[ -n "${ZONE:-}" ] || fail "ZONE, such as us-west4-a: set it"
[ -n "${PROJECT:-}" ] || fail "PROJECT, the project that pays: set it"
[[ "${SLICES:-1}" =~ ^[1-9][0-9]*$ ]] || fail "SLICES=$SLICES: expected a whole number from 1 on"
slices="${SLICES:-1}" places=(--zone="$ZONE" --project="$PROJECT")
if [ "$slices" -gt 1 ]; then
  mapfile -t nodes < <(seq -f "$TPU-%.0f" 0 $((slices - 1)))
else
  nodes=("$TPU")
fi

check_stages() {  # before anything is made that costs money
  [ -z "${COMMAND:-}" ] || return 0
  case "${OUT:-}" in
    gs://*) ;;
    *) fail "OUT=${OUT:-}: expected gs://BUCKET/FOLDER, since workers share no disk" ;;
  esac
  local said name
  said="$(JAX_PROCESS_ID=0 bash launch/stages.sh --dry-run 2>&1 >/dev/null)" \
    || fail "${said#error: }"
  [ "${RECIPE:-tiny}" != tiny ] || return 0
  for name in DATA PARTS; do
    [[ "${!name:-}" == gs://* ]] \
      || fail "$name=${!name:-}: expected gs://BUCKET/FOLDER, since workers share no disk"
  done
}
run() { if [ -n "$dry" ]; then show "$@"; else "$@"; fi; }
queue() { run gcloud compute tpus queued-resources "$1" "$TPU" "${places[@]}" "${@:2}"; }
on() {  # on NODE WORKER COMMAND [FLAGS]
  run gcloud compute tpus tpu-vm ssh "$1" "${places[@]}" --worker="$2" --command="$3" "${@:4}"
}
everywhere() { for node in "${nodes[@]}"; do on "$node" all "$@"; done; }
state() {  # ACTIVE, ... of the queued resources; NONE: there are none; UNKNOWN: no answer
  local errors found
  errors="$(mktemp)"
  if found="$(gcloud compute tpus queued-resources describe "$TPU" "${places[@]}" \
    --format='value(state.state)' 2> "$errors")"; then
    echo "$found"
  elif grep -q NOT_FOUND "$errors"; then
    echo NONE
  else
    cat "$errors" >&2
    echo UNKNOWN
  fi
  rm -f "$errors"
}

create() {
  [ -n "${TYPE:-}" ] || fail "TYPE, such as v5litepod-64, v5p-128 or v6e-64: set it"
  local version="${VERSION:-}"
  if [ -z "$version" ]; then
    case "$TYPE" in
      v5lite*) version=v2-alpha-tpuv5-lite ;;
      v5p*) version=v2-alpha-tpuv5 ;;
      v6e*) version=v2-alpha-tpuv6e ;;
      *) fail "TYPE=$TYPE: set VERSION to its runtime" ;;
    esac
  fi
  local named=(--node-id="$TPU")
  [ "$slices" -eq 1 ] || named=(--node-count="$slices" --node-prefix="$TPU")
  queue create "${named[@]}" --accelerator-type="$TYPE" --runtime-version="$version" \
    ${SPOT:+--spot}
  [ -z "$dry" ] || { queue describe --format='value(state.state)'; return; }
  local now before=""
  while now="$(state)"; [ "$now" != ACTIVE ]; do
    [ "$now" = "$before" ] || echo "$TPU: $now"
    before="$now"
    case "$now" in
      FAILED | SUSPENDED | NONE) fail "$TPU is $now: delete it, and create it again" ;;
    esac
    sleep "${POLL:-30}"
  done
}

setup() {
  local archive="${TMPDIR:-/tmp}/re2pix-$TPU.tgz"
  local left_out=(.venv .git .compiled runs data fetched)
  run tar "${left_out[@]/#/--exclude=./}" -czf "$archive" .
  for node in "${nodes[@]}"; do
    run gcloud compute tpus tpu-vm scp "$archive" "$node:re2pix.tgz" "${places[@]}" --worker=all
  done
  everywhere 'mkdir -p re2pix && tar -xzf re2pix.tgz -C re2pix && cd re2pix &&
    { command -v re2pix || EXTRA=tpu,gcs bash -c "source launch/environment.sh"; }'
}

# shellcheck disable=SC2016  # for the worker's shell
alive='kill -0 -- "-$(cat run.pid 2>/dev/null)" 2>/dev/null'
how="cd re2pix
cat run.status 2>/dev/null || if $alive; then echo running
else cat run.status 2>/dev/null || echo lost; fi"  # it may have ended in between

start() {
  local settings="" name script
  check_stages
  for name in RECIPE OUT DATA PARTS TRAINING RESTARTS; do
    [ -z "${!name:-}" ] || settings+="export $name=${!name@Q}; "
  done
  # The status is left when it ends; a signal is for what runs, and waited for.
  script="trap : TERM; export RE2PIX_DISTRIBUTED=1 PLATFORM=tpu; $settings"
  script+='echo $$ > run.pid; [ ! -f .venv/bin/activate ] || source .venv/bin/activate; '
  script+="${COMMAND:-bash launch/stages.sh}; echo \$? > run.status.new; "
  script+="mv run.status.new run.status"
  everywhere "cd re2pix && if $alive; then echo running already; else rm -f run.status
nohup setsid bash -c ${script@Q} >> run.log 2>&1 < /dev/null & fi"
}

tail_log() { on "${nodes[0]}" 0 'tail -n 50 -F re2pix/run.log'; }
status() { everywhere "$how"; }
# shellcheck disable=SC2016  # for the worker's shell
stop() { everywhere 'kill -TERM -- "-$(cat re2pix/run.pid)"'; }

watch() {  # until the first worker's run has ended by itself
  [ -z "$dry" ] || { queue describe --format='value(state.state)'; return; }
  [ "$(state)" != NONE ] || fail "$TPU: no queued resources of that name, as create makes them: \
what is taken away can't be had again"
  local now found todo=()  # verbs, each tried until it goes well
  while :; do
    now="$(state)"
    case "$now-${todo[0]:-}" in
      ACTIVE- | ACTIVE-start)
        found="$(on "${nodes[0]}" 0 "$how")" || found=unreachable
        case "$found" in
          running) todo=() ;;
          unreachable) ;;  # for a moment, or until it is SUSPENDED
          lost | 75) todo=(start) ;;
          *) echo "ended with status $found"; return ;;
        esac ;;
      ACTIVE-create) todo=(setup start) ;;
      SUSPENDED-* | FAILED-*)
        echo "$TPU was taken away: once more"
        todo=(delete create setup start) ;;
      NONE-) fail "$TPU was deleted" ;;
      NONE-*) todo=(create setup start) ;;
    esac
    while [ ${#todo[@]} -gt 0 ] && [ "$now" != UNKNOWN ]; do
      bash launch/tpu_pod.sh "${todo[0]}" || { echo "$TPU: no ${todo[0]} yet"; break; }
      todo=("${todo[@]:1}")
    done
    sleep "${POLL:-60}"
  done
}

fetch() {
  local to="${TO:-fetched/$TPU}"
  for node in "${nodes[@]}"; do
    run mkdir -p "$to/$node"
    on "$node" all 'cat re2pix/run.log' --output-directory="$to/$node"
  done
  case "${OUT:-}" in gs://*) run gcloud storage cp --recursive "$OUT" "$to" ;; esac
}

delete() {
  local now=""
  [ -n "$dry" ] || now="$(state)"
  case "$now" in
    UNKNOWN) fail "$TPU: not known whether it is there; try again" ;;
    NONE)  # it was not made here
      for node in "${nodes[@]}"; do
        run gcloud compute tpus tpu-vm delete "$node" "${places[@]}" --quiet
      done ;;
    *) queue delete --force --quiet ;;
  esac
}

case "$verb" in
  up) check_stages; create; setup; start; tail_log ;;
  tail) tail_log ;;
  create | setup | start | status | stop | watch | fetch | delete) "$verb" ;;
  *) fail "expected up, create, setup, start, tail, status, stop, watch, fetch or delete" ;;
esac
