# A real cluster: KUBECONFIG from LMFT_E2E_KUBECONFIG, else a local node (Linux, root, Go; minutes the first time).
.PHONY: cluster-up
cluster-up: ## Start a local one-node Kubernetes with an S3 server; prints its KUBECONFIG
	@tests/cluster/local/cluster up

.PHONY: cluster-down
cluster-down: ## Stop it and delete its state
	@tests/cluster/local/cluster down

.PHONY: e2e
e2e: setup ## Tests against a real cluster, with the real images
	$(BIN)/python -m pytest --timeout 1800 tests/cluster/test_crd.py tests/cluster/operator tests/cluster/chart \
	  tests/cluster/node/test_quickstart.py tests/cluster/node/test_pods.py
