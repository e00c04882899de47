# etcd, API server, controllers, and the certificates that all of it shares.

control_plane_up() { # [--no-controllers]
  mkdir -p "$DIR"/{pki,run,logs}
  pki
  start etcd
  start apiserver
  wait_for 60 "an API server that is ready" kc get --raw /readyz
  [ "${1:-}" = --no-controllers ] || start manager
  # Kept apart from readiness: namespaces work only once RBAC's bootstrap roles are there.
  wait_for 30 "the default namespace" kc get namespace default
}

run_etcd() {
  # No fsync: the state of a test cluster need not outlive the machine's power.
  spawn etcd etcd --data-dir etcd --unsafe-no-fsync --log-level warn --quota-backend-bytes 8589934592 \
    --listen-client-urls "http://$ETCD_HOST:$ETCD_PORT" --advertise-client-urls "http://$ETCD_HOST:$ETCD_PORT" \
    --listen-peer-urls "http://$ETCD_HOST:$((ETCD_PORT + 1))"
}

run_apiserver() {
  spawn apiserver kube-apiserver --etcd-servers "http://$ETCD_HOST:$ETCD_PORT" \
    --bind-address $LISTEN --secure-port "$API_PORT" --advertise-address "$NODE_IP" --allow-privileged \
    --tls-cert-file pki/server.crt --tls-private-key-file pki/server.key --client-ca-file pki/ca.crt \
    --kubelet-client-certificate pki/admin.crt --kubelet-client-key pki/admin.key \
    --kubelet-preferred-address-types InternalIP \
    --service-account-issuer https://kubernetes.default.svc.cluster.local \
    --service-account-signing-key-file pki/sa.key --service-account-key-file pki/sa.key \
    --service-cluster-ip-range $SERVICE_RANGE --endpoint-reconciler-type "$([ $KIND = node ] && echo lease || echo none)" \
    --authorization-mode Node,RBAC --enable-admission-plugins NodeRestriction \
    --audit-policy-file "$here/audit-policy.yaml" --audit-log-path logs/audit.log --audit-log-mode batch
}

run_manager() {
  spawn manager kube-controller-manager --kubeconfig manager.conf --leader-elect=false --secure-port 0 \
    --service-account-private-key-file pki/sa.key --root-ca-file pki/ca.crt --use-service-account-credentials
}

run_scheduler() {
  spawn scheduler kube-scheduler --kubeconfig scheduler.conf --leader-elect=false --secure-port 0
}

pki() {
  [ ! -e "$DIR/admin.conf" ] || return 0
  openssl genrsa -out "$DIR/pki/sa.key" 2048 2>/dev/null
  openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=lmft-cluster-ca \
    -keyout "$DIR/pki/ca.key" -out "$DIR/pki/ca.crt" 2>/dev/null
  certificate server kube-apiserver kubernetes
  identity admin admin system:masters
  identity manager system:kube-controller-manager kubernetes
  [ $KIND = node ] || return 0
  identity scheduler system:kube-scheduler kubernetes
  identity kubelet "system:node:$NODE" system:nodes
  identity proxy system:kube-proxy kubernetes
  identity dns system:serviceaccount:kube-system:coredns system:masters
}

certificate() { # name common-name organisation
  local at="$DIR/pki/$1"
  openssl req -newkey rsa:2048 -nodes -subj "/O=$3/CN=$2" -keyout "$at.key" -out "$at.csr" 2>/dev/null
  openssl x509 -req -days 3650 -in "$at.csr" -out "$at.crt" -CA "$DIR/pki/ca.crt" -CAkey "$DIR/pki/ca.key" \
    -CAcreateserial -extfile - 2>/dev/null <<N
subjectAltName=IP:$LOOPBACK,IP:$NODE_IP,IP:$API_SERVICE_IP,DNS:localhost,DNS:$NODE,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local
N
}

identity() { # name common-name organisation   a certificate and the kubeconfig that holds it
  certificate "$@"
  local config=(kubectl config --kubeconfig "$DIR/$1.conf")
  "${config[@]}" set-cluster local --server "https://$API_HOST:$API_PORT" --certificate-authority "$DIR/pki/ca.crt" --embed-certs
  "${config[@]}" set-credentials "$1" --client-certificate "$DIR/pki/$1.crt" --client-key "$DIR/pki/$1.key" --embed-certs
  "${config[@]}" set-context local --cluster local --user "$1"
  "${config[@]}" use-context local
} >/dev/null
