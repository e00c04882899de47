# Images without a container engine and without a registry: buildah makes them, the node imports them.

BASE=docker.io/library/python:3.11-slim-bookworm

bah() { buildah --storage-driver overlay "$@"; }

# Builds with the host's pip settings and certificates mounted, so that the Dockerfile need not know them. JOB_IMAGE is
# for images made from the job's.
image() { # target tag [context [dockerfile]]
  local context=${3:-.} mounts=() file
  base
  for file in /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do
    [ ! -e "$file" ] || mounts+=(--volume "$file:$file:ro")
  done
  bah bud --isolation chroot --network host --pull=never --layers "${mounts[@]}" \
    ${JOB_IMAGE:+--build-arg "JOB_IMAGE=$JOB_IMAGE"} \
    --file "${4:-$context/Dockerfile}" --target "$1" --tag "$2" "$context"
}

# Only what the node lacks travels: a change of code is one small layer of an image of gigabytes. Layers lie in a folder
# beside the programs, so that buildah does not write them out again either.
load() { # tag…
  local tag layout=$BIN/layers manifest known blob new
  mkdir -p "$layout"
  for tag in "$@"; do
    rm -f "$layout/index.json"
    bah push --disable-compression --format oci "$tag" "oci:$layout:$tag" >/dev/null 2>&1
    # Under the other name the node would take it for a tag without a repository.
    sed -i 's/org.opencontainers.image.ref.name/io.containerd.image.name/' "$layout/index.json"
    manifest=$(digests "$layout/index.json") known=$(node_ctr content ls -q)
    new=(oci-layout index.json)
    for blob in "$manifest" $(digests "$layout/blobs/sha256/$manifest"); do
      grep -qF "$blob" <<<"$known" || new+=("blobs/sha256/$blob")
    done
    tar -C "$layout" -cf - "${new[@]}" | node_ctr images import - >/dev/null
  done
}

digests() { grep -ohE '[0-9a-f]{64}' "$1" | sort -u; } # file

# Nothing can be pulled here: the official Python image is replaced by one from Debian's own packages, under the
# same name, unless an image of that name is there.
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
