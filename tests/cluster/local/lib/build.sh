# Builds the pinned programs. A stamp named after the module's hash says that it is done.

KUBERNETES=1.36.3

build() { # [module…]
  local module stamp lock
  command -v go >/dev/null || fail "Go is needed to build the cluster's programs"
  mkdir -p "$BIN"
  [ $# -gt 0 ] || { set -- etcd runc containerd coredns versitygw kubernetes helm helm3; debian_packages; }
  for module in "$@"; do
    stamp=$BIN/.$module-$(sha256sum <"$here/modules/$module/go.mod" | cut -c1-12)
    [ ! -e "$stamp" ] || continue
    # Tests that start control planes at the same time build them once; the others wait for it.
    exec {lock}>"$BIN/.$module.lock"
    flock "$lock"
    [ ! -e "$stamp" ] || { exec {lock}>&-; continue; }
    say "building $module"
    (cd "$here/modules/$module" && compile "$module")
    rm -f "$BIN/.$module-"*
    touch "$stamp"
    exec {lock}>&-
  done
}

compile() { # module   in its folder
  local flags=(-mod=readonly -trimpath) version=k8s.io/component-base/version
  export CGO_ENABLED=0
  case $1 in
    runc) CGO_ENABLED=1 go build "${flags[@]}" -tags seccomp -ldflags '-s -w' -o "$BIN/" tool ;;
    containerd) go build "${flags[@]}" -tags no_btrfs -ldflags '-s -w' -o "$BIN/" tool ;;
    # The tools of these two are called "server" and "helm": give them names of their own.
    etcd) go build "${flags[@]}" -ldflags '-s -w' -o "$BIN/etcd" go.etcd.io/etcd/server/v3 ;;
    helm3) go build "${flags[@]}" -ldflags '-s -w' -o "$BIN/helm3" helm.sh/helm/v3/cmd/helm ;;
    # Without a version of its own, an API server built from source calls itself v0.0.0 and refuses to start.
    kubernetes) go build "${flags[@]}" -o "$BIN/" -ldflags "-s -w -X $version.gitVersion=v$KUBERNETES
      -X $version.gitMajor=1 -X $version.gitMinor=$(cut -d. -f2 <<<$KUBERNETES)" tool ;;
    network-policies) go build "${flags[@]}" -ldflags '-s -w' -o "$BIN/network-policies" . ;;
    *) go build "${flags[@]}" -ldflags '-s -w' -o "$BIN/" tool ;;
  esac
}

debian_packages() {
  local missing=() pair
  for pair in buildah:/usr/bin/buildah debootstrap:/usr/sbin/debootstrap nftables:/usr/sbin/nft iproute2:/sbin/ip \
    conntrack:/usr/sbin/conntrack containernetworking-plugins:/usr/lib/cni/bridge openssl:/usr/bin/openssl \
    gcc:/usr/bin/gcc pkg-config:/usr/bin/pkg-config libseccomp-dev:/usr/include/seccomp.h; do
    [ -e "${pair#*:}" ] || missing+=("${pair%%:*}")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || fail "please install: ${missing[*]}"
  say "installing ${missing[*]}"
  apt-get update -qq && apt-get install -y -qq "${missing[@]}" >/dev/null
}
