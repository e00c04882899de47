# Runs take a real cluster: that of LMFT_E2E_KUBECONFIG, else a local node (Linux, root, Go; minutes the first time). What
# needs no node, the definition too, is tested on control planes of the tests' own, two at a time; seconds are counted
# where a leader is followed, so that is tested alone. KUBECONFIG is never used.
.PHONY: cluster-up
cluster-up: ## Start a local one-node Kubernetes with an S3 server; prints its KUBECONFIG
	@tests/cluster/local/cluster up

.PHONY: cluster-down
cluster-down: ## Stop it and delete its state
	@tests/cluster/local/cluster down

.PHONY: e2e
e2e: setup ## Tests against a real cluster, with the real images
	@tests/cluster/local/cluster build etcd kubernetes  # not within a test, whose time is limited
	$(BIN)/python -m pytest --timeout 1800 --numprocesses 2 --dist loadfile --ignore tests/cluster/operator/test_leader.py \
	  tests/cluster/test_crd.py tests/cluster/operator tests/cluster/chart
	$(BIN)/python -m pytest --timeout 1800 tests/cluster/operator/test_leader.py
	$(BIN)/python -m pytest --timeout 1800 tests/cluster/node

.PHONY: network-policies
network-policies: setup ## The chart's NetworkPolicies, enforced on a local node; builds an enforcer first, minutes once
	@tests/cluster/local/cluster build network-policies
	$(BIN)/python -m pytest --timeout 1800 tests/cluster/network

.PHONY: e2e-kueue
e2e-kueue: setup ## Runs in the queues of Kueue itself, on a local node; builds its manager first, minutes once
	@tests/cluster/local/cluster build kueue
	$(BIN)/python -m pytest --timeout 1800 tests/cluster/kueue

# Options: SEED=7 FAULTS=50 RUNS=3 PAUSE=20 STEPS=… TASKS="CausalLM CausalLM/2/FSDP" KUBELET_SECONDS=60 S3_SECONDS=30
# API_SECONDS=120; LMFT_E2E_KEEP=1 leaves the node up.
CHAOS_OPTIONS := seed:SEED faults:FAULTS runs:RUNS pause:PAUSE steps:STEPS tasks:TASKS kubelet-seconds:KUBELET_SECONDS \
  s3-seconds:S3_SECONDS api-seconds:API_SECONDS

.PHONY: chaos
chaos: setup ## Faults at random moments over small runs on a real node: make chaos SEED=7
	PYTHONPATH=tests $(BIN)/python -m cluster.chaos $(foreach option,$(CHAOS_OPTIONS),$(if \
	  $($(word 2,$(subst :, ,$(option)))),--$(word 1,$(subst :, ,$(option))) $($(word 2,$(subst :, ,$(option))))))
