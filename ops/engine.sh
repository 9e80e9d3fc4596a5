# Sourced by image.sh and image_test.sh. Tells podman what it needs to know on a bare machine: images under $WORK, no
# cgroups of systemd's, no network of its own, and for build steps the machine's certificates and local wheels.
# An engine that is set up already needs none of it: PLAIN_PODMAN=1.
BUILD_CONF=${CONTAINERS_CONF:-}
if [ -z "${PLAIN_PODMAN:-}" ]; then
  mkdir -p "$WORK/engine"
  cat >"$WORK/engine/storage.conf" <<EOF
[storage]
driver = "overlay"
graphroot = "$WORK/storage"
runroot = "$WORK/run"
EOF
  most=$(ulimit -Hn)
  [ "$most" = unlimited ] && most=20000
  cat >"$WORK/engine/run.conf" <<EOF
[containers]
netns = "host"
default_ulimits = ["nofile=$most:$most", "nproc=16384:16384"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
EOF
  certificates=/etc/ssl/certs/ca-certificates.crt
  printf '[global]\ncert = %s\n' "$certificates" >"$WORK/engine/pip.conf"
  volumes="\"$certificates:$certificates:ro\", \"$WORK/engine/pip.conf:/etc/pip.conf:ro\""
  if [ -d "${PIP_FIND_LINKS:-}" ]; then
    printf 'find-links = %s\n' "$PIP_FIND_LINKS" >>"$WORK/engine/pip.conf"
    volumes+=", \"$PIP_FIND_LINKS:$PIP_FIND_LINKS:ro\""
  fi
  sed "s#^\[containers\]#&\nvolumes = [$volumes]#" "$WORK/engine/run.conf" >"$WORK/engine/build.conf"
  export CONTAINERS_STORAGE_CONF=$WORK/engine/storage.conf CONTAINERS_CONF=$WORK/engine/run.conf
  BUILD_CONF=$WORK/engine/build.conf
fi
