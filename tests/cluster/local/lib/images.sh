# Images without a container engine and without a registry: buildah makes them, the node imports them.

BASE=docker.io/library/python:3.11-slim-bookworm

bah() { buildah --storage-driver overlay "$@"; }

# Builds with the host's pip settings and certificates mounted, so that the Dockerfile need not know them.
image() { # target tag [context [dockerfile]]
  local context=${3:-.} mounts=() file
  base
  for file in /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do
    [ ! -e "$file" ] || mounts+=(--volume "$file:$file:ro")
  done
  bah bud --isolation chroot --network host --pull=never --layers "${mounts[@]}" \
    --file "${4:-$context/Dockerfile}" --target "$1" --tag "$2" "$context"
}

# Through a pipe: the job's image is gigabytes, and the node holds them twice already (as content and unpacked).
load() { # tag…
  local tag
  for tag in "$@"; do
    bah push --quiet "$tag" "docker-archive:/dev/stdout:$tag" | node_ctr images import - >/dev/null ||
      fail "$tag did not reach the node; free in $DIR: $(df -h --output=avail "$DIR" | tail -n 1 | tr -d ' ')"
  done
}

# Without a registry nothing can be pulled: the official Python image is replaced by one from Debian's own packages,
# under the same name, unless an image of that name is there.
base() {
  local root container
  bah images --quiet $BASE >/dev/null 2>&1 && return
  say "making a stand-in for $BASE"
  root=$(mktemp -d)
  debootstrap --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates bookworm "$root" >/dev/null
  ln -s python3 "$root/usr/bin/python"
  rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
  tar -C "$root" -cf "$root.tar" .
  container=$(bah from scratch)
  bah add "$container" "$root.tar" / >/dev/null
  bah config --env PATH=/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin --cmd python3 "$container"
  bah commit --rm "$container" $BASE >/dev/null 2>&1
  rm -rf "$root" "$root.tar"
}

# The container that holds a pod's namespaces: a program that only waits.
pause_image() {
  local container archive=$BIN/pause.tar
  if [ ! -e "$archive" ]; then
    gcc -static -Os -o "$BIN/pause" "$here/pause.c"
    container=$(bah from scratch)
    bah copy "$container" "$BIN/pause" /pause >/dev/null
    bah config --entrypoint '["/pause"]' "$container"
    bah commit --rm "$container" localhost/pause:1 >/dev/null 2>&1
    bah push localhost/pause:1 "docker-archive:$archive:localhost/pause:1" >/dev/null 2>&1
  fi
  node_ctr images import "$archive" >/dev/null
}
