#!/usr/bin/env bash
# Builds the images and tries the service's two as an operator would run them: another user than root, a read-only root
# file system, no capabilities. Predict, batch, drift, metrics and SIGTERM over HTTP; size and start-up time come last.
# Of the page it asks only whether all of it is in its image and can be imported: the browser's tests use it.
set -Eeuo pipefail
cd "$(dirname "$0")/.."
export WORK; WORK=$(realpath -m "${WORK:-build/image}")
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  missing=()
  for tool in podman runc mmdebstrap; do command -v "$tool" >/dev/null || missing+=("$tool"); done
  ((${#missing[@]} == 0)) || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null; }
fi
ops/image.sh api full ui
. ops/engine.sh
python ops/image_test.py localhost/ai-product-photo-detector:api --monitor no | tee "$WORK/api.txt"
python ops/image_test.py localhost/ai-product-photo-detector:full --monitor yes | tee "$WORK/full.txt"
podman run --rm --read-only --entrypoint python localhost/ai-product-photo-detector:ui -c 'import ui.page' || exit 1
echo
tail -qn 1 "$WORK/api.txt" "$WORK/full.txt"
