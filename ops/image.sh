#!/usr/bin/env bash
# Builds the images with podman: ai-product-photo-detector:full (with the drift monitor), :api (without) and :ui.
# Needs podman, runc and, where no registry can be reached, mmdebstrap, which then makes a stand-in for the base image
# out of Debian's packages. Where root runs this without systemd, the engine is told so in a folder of its own:
# nothing of /etc/containers is touched. Exit code 75: podman cannot run containers on this machine.
# usage: image.sh [full|api|ui …]     env: WORK (default build/image)
set -Eeuo pipefail
cd "$(dirname "$0")/.."
WORK=$(realpath -m "${WORK:-build/image}")
BASE=docker.io/library/python:3.11-slim
mkdir -p "$WORK"
cannot() { say "$1"; exit 75; }
say() { printf '== [%4ds] %s\n' "$SECONDS" "$*"; }
quietly() { # prints what it said only where it fails
  local log=$1
  shift
  "$@" >"$log" 2>&1 || { tail -40 "$log" >&2; return 1; }
}
. ops/engine.sh

if ! podman image exists "$BASE"; then
  say "base image: $BASE"
  if ! timeout 60 podman pull -q "$BASE" >"$WORK/pull.log" 2>&1; then
    say "no registry answers: a stand-in out of Debian's packages"
    sources=/etc/apt/sources.list.d/debian.sources
    [ -s "$sources" ] || sources=/etc/apt/sources.list
    # shellcheck disable=SC2016 - mmdebstrap expands $1
    quietly "$WORK/base.log" mmdebstrap --mode=root --variant=minbase \
      --include=ca-certificates,python3,python3-venv \
      --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
      --dpkgopt='path-exclude=/usr/share/locale/*' \
      --customize-hook='rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED' bookworm "$WORK/base.tar" "$sources" ||
      cannot "no base image: mmdebstrap cannot make one on this machine"
    podman import -q --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
      "$WORK/base.tar" "$BASE" >/dev/null || cannot "podman keeps no image on this machine"
    rm "$WORK/base.tar"
  fi
fi

quietly "$WORK/run.log" podman run --rm "$BASE" true || cannot "podman runs no container on this machine"

export BENTOML_HOME=$WORK/bentoml BENTOML_DO_NOT_TRACK=True
for kind in "${@:-full}"; do
  if [ "$kind" = ui ]; then
    say "podman build -f ops/Containerfile.ui"
    CONTAINERS_CONF=$BUILD_CONF quietly "$WORK/build-ui.log" \
      podman build --network=host -f ops/Containerfile.ui -t localhost/ai-product-photo-detector:ui .
    continue
  fi
  file=bentofile.yaml
  [ "$kind" = api ] && file=ops/bentofile.api.yaml
  say "bentoml build -f $file"
  tag=$(bentoml build -f "$file" -o tag . 2>"$WORK/build-$kind.log" | sed -n 's/^__tag__://p')
  [ -n "$tag" ] || { cat "$WORK/build-$kind.log" >&2; exit 1; }
  say "bentoml containerize $tag"
  # From /: BentoML copies the Bento to a temporary folder, and then refuses our template as outside of the working one.
  (cd / && CONTAINERS_CONF=$BUILD_CONF quietly "$WORK/containerize-$kind.log" \
    bentoml containerize "$tag" --backend podman --opt network=host -t "localhost/ai-product-photo-detector:$kind")
done
say "images: $(podman image ls --format '{{.Repository}}:{{.Tag}} {{.Size}}' | grep detector | tr '\n' ' ')"
