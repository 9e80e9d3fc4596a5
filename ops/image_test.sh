#!/usr/bin/env bash
# Builds both images and tries them as an operator would run them: another user than root, a read-only root file
# system, no capabilities. Predict, batch, drift, metrics and SIGTERM over HTTP; size and start-up time come last.
set -Eeuo pipefail
cd "$(dirname "$0")/.."
export WORK; WORK=$(realpath -m "${WORK:-build/image}")
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  missing=()
  for tool in podman runc mmdebstrap; do command -v "$tool" >/dev/null || missing+=("$tool"); done
  ((${#missing[@]} == 0)) || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; }
fi
ops/image.sh api full
. ops/engine.sh
python ops/image_test.py localhost/ai-product-photo-detector:api --monitor no | tee "$WORK/api.txt"
python ops/image_test.py localhost/ai-product-photo-detector:full --monitor yes | tee "$WORK/full.txt"
echo
tail -qn 1 "$WORK/api.txt" "$WORK/full.txt"
