# Lints the chart with the programs that tests/cluster/local pins: Helm 4 and 3, kubeconform, kube-score, helm-docs;
# with checkov, from a lock of its own; and the workflows with actionlint.
CHART := charts/lmfinetune
CHART_TOOLS := helm helm3 kubeconform kube-score helm-docs actionlint
CHART_BIN := $(or $(LMFT_CLUSTER_BIN),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/lmft-cluster)
CHART_SCHEMAS := $(CHART_BIN)/schemas

.PHONY: chart-tools
chart-tools:
	@tests/cluster/local/cluster build $(CHART_TOOLS)

.PHONY: lint-chart
lint-chart: setup chart-tools ## Lint and render the chart, default and full values, with Helm 4 and 3
	$(BIN)/python charts/lint/schemas.py $(CHART_SCHEMAS)
	PATH="$(CHART_BIN):$$PATH" charts/lint/lint $(CHART) $(CHART_SCHEMAS)
	PYTHON=$(BIN)/python charts/lint/checkov $(CHART) $(CHART_BIN)
	$(CHART_BIN)/actionlint -no-color
	$(BIN)/python -m pytest -q tests/chart

.PHONY: chart-readme
chart-readme: chart-tools ## Write the chart's README from its values
	$(CHART_BIN)/helm-docs --log-level warning --chart-search-root $(CHART) --sort-values-order file

generate: chart-readme
