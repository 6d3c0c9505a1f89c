#!/usr/bin/env bash
# Set up (once) and do the main job: predict the future of held-out world clips, and of your own
# video if you name one.
#   bash launch/quickstart.sh [--video drive.mp4] [--out DIR]
set -euo pipefail
# shellcheck source=launch/usage.sh
source "$(dirname "$0")/usage.sh"
video="" out="runs/quickstart"
while [ $# -gt 0 ]; do
  case "$1" in
    --video) video="$(realpath -m -- "${2:?--video needs a path}")"; shift 2 ;;
    --out) out="$(realpath -m -- "${2:?--out needs a folder}")"; shift 2 ;;
    *) echo "error: unknown argument $1; expected [--video FILE] [--out DIR]" >&2; exit 2 ;;
  esac
done
cd "$(dirname "$0")/.."
source launch/environment.sh
for clip in 0 1 2; do
  echo; echo "World clip validation:$clip"
  re2pix predict --world "validation:$clip" --model tiny --out "$out/world_$clip"
done
if [ -n "$video" ]; then
  echo; echo "Your video $video"
  re2pix predict --video "$video" --model tiny --out "$out/video"
fi
echo; echo "Look at $out/*/sheet.png and $out/*/future.mp4"
