#!/usr/bin/env bash
# Set up (once) and make a model of your own videos, with a page to look at.
#   bash launch/finetune.sh MY_VIDEOS MY_MODEL [--minutes=30] [--preview] ...
# Other flags are those of `re2pix finetune --help`. Given again after an interruption, it goes on.
set -euo pipefail
# shellcheck source=launch/usage.sh
source "$(dirname "$0")/usage.sh"
if [[ $# -lt 2 || "$1" == -* || "$2" == -* ]]; then
  echo "error: expected MY_VIDEOS MY_MODEL [FLAGS]" >&2
  exit 2
fi
footage="$(realpath -m -- "$1")" out="$(realpath -m -- "$2")"
shift 2
cd "$(dirname "$0")/.."
source launch/environment.sh
exec re2pix finetune "$footage" --out="$out" "$@"
