// Not built: pins the API descriptions that schemas.py reads.
module lmfinetune.dev/charts/lint

go 1.26.8

require (
	github.com/cert-manager/cert-manager v1.21.2
	github.com/prometheus-operator/prometheus-operator v0.85.0
	k8s.io/kubernetes v1.36.3
)
