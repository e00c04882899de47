# What makes the control plane a node: network, containerd, kubelet, kube-proxy, DNS, and an S3 server beside it.

node_up() {
  mkdir -p "$DIR"/{cni,kubelet,containerd,s3}
  cat >"$DIR/cni/10-pods.conflist" <<N
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "ipam": {
    "type": "host-local", "dataDir": "$DIR/ipam", "ranges": [[{"subnet": "$POD_RANGE"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
N
  start scheduler
  start s3
  start containerd
  wait_for 30 "containerd's socket" test -S "$DIR/containerd.sock"
  pause_image
  start kubelet
  start proxy
  start dns
  wait_for 60 "the node" kc get node $NODE
  kc wait --for=condition=Ready "node/$NODE" --timeout=60s >/dev/null
  wait_for 30 "the default service account" kc get serviceaccount default
}

# A bridge without ports holds the node's address and the routes of service and pod addresses: a packet for one
# that nothing answers ends there instead of leaving the machine. Pods reach the node and each other only.
network() {
  ip link show lmft0 >/dev/null 2>&1 || ip link add lmft0 type bridge
  ip addr replace $NODE_IP/32 dev lmft0
  ip link set lmft0 up
  ip route replace $SERVICE_RANGE dev lmft0
  ip route replace 10.244.0.0/16 dev lmft0
  sysctl -qw net.ipv4.ip_forward=1
  nft -f - <<'N'
table inet lmft-cluster
delete table inet lmft-cluster
table inet lmft-cluster {
  chain forward { type filter hook forward priority -10; policy accept; iifname "cni0" oifname != "cni0" drop; }
}
N
}

run_s3() {
  mkdir -p "$DIR/s3"
  ROOT_ACCESS_KEY=test ROOT_SECRET_KEY=testsecret spawn s3 versitygw --port ":$S3_PORT" posix "$DIR/s3"
}

run_containerd() {
  # restrict_oom_score_adj: without CAP_SYS_RESOURCE a score may only be raised.
  cat >containerd.toml <<N
version = 3
root = "$DIR/containerd/root"
state = "$DIR/containerd/state"
[grpc]
  address = "$DIR/containerd.sock"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "localhost/pause:1"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["/usr/lib/cni"]
  conf_dir = "$DIR/cni"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
    BinaryName = "$BIN/runc"
N
  spawn containerd containerd --config containerd.toml
}

run_kubelet() {
  # crashLoopBackOff: tests kill the operator more often than the five minutes between restarts would let them see.
  cat >kubelet.yaml <<N
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $DIR/pki/ca.crt}}
authorization: {mode: Webhook}
containerRuntimeEndpoint: unix://$DIR/containerd.sock
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
enforceNodeAllocatable: []
clusterDNS: [$NODE_IP]
clusterDomain: cluster.local
resolvConf: ""
evictionHard: {nodefs.available: "1%", imagefs.available: "1%", memory.available: 100Mi}
crashLoopBackOff: {maxContainerRestartPeriod: 10s}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
N
  spawn kubelet kubelet --config kubelet.yaml --kubeconfig kubelet.conf --root-dir "$DIR/kubelet" \
    --cert-dir "$DIR/kubelet/pki" --hostname-override $NODE --node-ip $NODE_IP
}

run_proxy() {
  cat >proxy.yaml <<N
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
clientConnection: {kubeconfig: $DIR/proxy.conf}
hostnameOverride: $NODE
clusterCIDR: $POD_RANGE
conntrack: {maxPerCore: 0, min: 0}
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
N
  spawn proxy kube-proxy --config proxy.yaml
}

run_dns() {
  cat >Corefile <<N
.:53 {
  bind $NODE_IP
  errors
  kubernetes cluster.local {
    kubeconfig $DIR/dns.conf local
  }
}
N
  spawn dns coredns -conf Corefile
}

# Started by hand: without it the node ignores NetworkPolicies, as bridges do. The first packet of each connection that
# leaves a pod, for another pod or for the node, waits for a verdict; while nobody gives one, it is dropped.
run_policies() {
  local chain
  command -v iptables >/dev/null || fail "iptables is needed, which sends packets to the enforcer"
  # A bridge's frames between two pods are packets to iptables only so.
  sysctl -qw net.bridge.bridge-nf-call-iptables=1 || fail "the kernel has no br_netfilter"
  for chain in INPUT FORWARD; do
    iptables -w -C $chain "${to_policies[@]}" 2>/dev/null || iptables -w -I $chain "${to_policies[@]}"
  done
  spawn policies network-policies --kubeconfig "$DIR/admin.conf" --node $NODE --queue $POLICY_QUEUE
}

POLICY_QUEUE=7070
to_policies=(-i cni0 -m conntrack --ctstate NEW -j NFQUEUE --queue-num $POLICY_QUEUE)

stopped_policies() {
  local chain
  for chain in INPUT FORWARD; do iptables -w -D $chain "${to_policies[@]}" 2>/dev/null || true; done
}

# containerd's own client in the namespace that kubelet uses.
node_ctr() { ctr --address "$DIR/containerd.sock" --namespace k8s.io "$@"; }

# Containers outlive kubelet and containerd by design, so they are ended one by one, then what is still mounted.
node_down() {
  local task mount namespace
  for task in policies kubelet proxy dns; do stop $task; done
  if [ -S "$DIR/containerd.sock" ]; then
    # Without it nobody knows which containers there are.
    start containerd
    (wait_for 30 "containerd's answer" node_ctr tasks ls -q) || say "containers may be left over"
    for task in $(node_ctr tasks ls -q); do node_ctr tasks kill --signal KILL --all "$task" 2>/dev/null || true; done
    sleep .5
    for task in $(node_ctr tasks ls -q); do node_ctr tasks rm --force "$task" >/dev/null 2>&1 || true; done
  fi
  stop containerd
  awk -v dir="$DIR/" 'index($2, dir) == 1 {print $2}' /proc/mounts | sort -r | while read -r mount; do
    umount --lazy "$mount" || true
  done
  # The pods' ends of the bridge's links, then the bridge.
  for namespace in $(ip -o link show master cni0 2>/dev/null | sed -n 's/.* link-netns \([^ ]*\).*/\1/p'); do
    ip netns delete "$namespace" || true
  done
  ip link del cni0 2>/dev/null || true
  ip link del lmft0 2>/dev/null || true
  nft delete table inet lmft-cluster 2>/dev/null || true
  nft delete table ip kube-proxy 2>/dev/null || true
  nft delete table ip6 kube-proxy 2>/dev/null || true
}
