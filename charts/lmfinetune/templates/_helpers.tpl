{{/* Name of the chart, as in app.kubernetes.io/name. */}}
{{- define "lmfinetune.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/*
Name of every object of the release; short enough for the suffixes that templates add. A release may have dots and begin
with a digit, a Service may not.
*/}}
{{- define "lmfinetune.fullname" -}}
{{- $full := .Values.fullnameOverride }}
{{- if not $full }}
{{- $name := include "lmfinetune.name" . }}
{{- $full = contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) | replace "." "-" }}
{{- if regexMatch "^[0-9]" $full }}{{ $full = printf "lmft-%s" $full }}{{ end }}
{{- end }}
{{- $full | trunc 48 | trimSuffix "-" }}
{{- end }}

{{/* Name of cluster-scoped objects: two releases in two namespaces must not share them. */}}
{{- define "lmfinetune.clusterName" -}}
{{- if eq .Release.Namespace (include "lmfinetune.fullname" .) -}}
{{- include "lmfinetune.fullname" . }}
{{- else -}}
{{- printf "%s-%s" .Release.Namespace (include "lmfinetune.fullname" .) }}
{{- end }}
{{- end }}

{{/* Labels that never change: selectors are immutable. */}}
{{- define "lmfinetune.selectorLabels" -}}
app.kubernetes.io/name: {{ include "lmfinetune.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: operator
{{- end }}

{{/* Labels of every object. */}}
{{- define "lmfinetune.labels" -}}
{{- $labels := include "lmfinetune.selectorLabels" . | fromYaml }}
{{- $_ := set $labels "helm.sh/chart" (printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_")) }}
{{- $_ := set $labels "app.kubernetes.io/version" .Chart.AppVersion }}
{{- $_ := set $labels "app.kubernetes.io/managed-by" .Release.Service }}
{{- $_ := set $labels "app.kubernetes.io/part-of" .Chart.Name }}
{{- toYaml (merge $labels .Values.commonLabels) }}
{{- end }}

{{- define "lmfinetune.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "lmfinetune.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* Reference of an image: by digest where one is given, else by tag, else by the chart's appVersion. */}}
{{- define "lmfinetune.image" -}}
{{- $image := index . 0 }}{{ $root := index . 1 }}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default $root.Chart.AppVersion $image.tag }}
{{- end }}
{{- end }}

{{/* A quantity as text: a number of a file is a float, which as text could be 8.5e+09. Nothing for none. */}}
{{- define "lmfinetune.quantity" -}}
{{- if kindIs "string" . }}{{ . }}{{ else if . }}{{ int64 . }}{{ end }}
{{- end }}

{{/* Whether the operator serves anything over TLS: text if so. */}}
{{- define "lmfinetune.tls" -}}
{{- if or .Values.progress.enabled .Values.metrics.secure }}true{{ end }}
{{- end }}

{{/* Name of the Secret with the serving certificate. */}}
{{- define "lmfinetune.tlsSecretName" -}}
{{- default (printf "%s-progress-tls" (include "lmfinetune.fullname" .)) .Values.progress.tls.secretName }}
{{- end }}

{{/* Host under which pods reach the progress server; the name in the certificate, on whatever port it is shown. */}}
{{- define "lmfinetune.progressHost" -}}
{{ include "lmfinetune.fullname" . }}-progress.{{ .Release.Namespace }}.svc
{{- end }}

{{/*
The self-signed certificate as a Secret's data, and when it ends. The one in the cluster is kept until 30 days before
its end, so that an upgrade does not cut off the pods that trust it. Cached on the values: the Secret and the
Deployment's checksum must see the same one, and a certificate made twice is two certificates.
*/}}
{{- define "lmfinetune.selfSigned" -}}
{{- $tls := .Values.progress.tls }}
{{- if not (hasKey $tls "made") }}
{{- $made := dict }}
{{- $old := lookup "v1" "Secret" .Release.Namespace (include "lmfinetune.tlsSecretName" .) | default dict }}
{{- $ends := dig "metadata" "annotations" "lmfinetune.dev/certificate-ends" "0" $old }}
{{- if and $old.data (gt (int64 $ends) (add (now | unixEpoch | int64) 2592000)) }}
{{- $made = dict "ends" $ends "ca" (index $old.data "ca.crt") "cert" (index $old.data "tls.crt") "key" (index $old.data "tls.key") }}
{{- else }}
{{- $host := include "lmfinetune.progressHost" . }}
{{- $days := int $tls.selfSigned.validDays }}
{{- $ca := genCA (printf "%s-ca" $host | trunc 64) $days }}
{{- $cert := genSignedCert (trunc 64 $host) nil (list $host (printf "%s.cluster.local" $host)) $days $ca }}
{{- $made = dict "ends" (add (now | unixEpoch | int64) (mul $days 86400) | toString) "ca" (b64enc $ca.Cert) "cert" (b64enc $cert.Cert) "key" (b64enc $cert.Key) }}
{{- end }}
{{- $_ := set $tls "made" $made }}
{{- end }}
{{- toYaml $tls.made }}
{{- end }}

{{/* Not empty where a policy allows runs on more than one node. */}}
{{- define "lmfinetune.severalNodes" -}}
{{- $most := int .Values.policy.maxNodes }}
{{- range .Values.policy.perNamespace }}
{{- $most = max $most (int (default 0 .maxNodes)) }}
{{- end }}
{{- if gt $most 1 }}true{{ end }}
{{- end }}

{{/* Not empty where each attempt on several nodes gets a NetworkPolicy of its own. */}}
{{- define "lmfinetune.isolatesPeers" -}}
{{- if and .Values.networkPolicy.enabled .Values.networkPolicy.peers }}true{{ end }}
{{- end }}

{{/* Rules over the custom resource and its children: the same in a Role and in a ClusterRole. */}}
{{- define "lmfinetune.rules" -}}
- apiGroups: [lmfinetune.dev]
  resources: [lmfinetunes]
  # delete: spec.ttlSecondsAfterFinished removes the resource itself
  verbs: [get, list, watch, delete]
- apiGroups: [lmfinetune.dev]
  resources: [lmfinetunes/status]
  verbs: [patch]
- apiGroups: [lmfinetune.dev]
  resources: [lmfinetunes/finalizers]
  # owner references with blockOwnerDeletion, where that admission plugin is on
  verbs: [update]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [create, get, list, watch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
# by which the pods of a run on several nodes find each other
- apiGroups: [""]
  resources: [services]
  verbs: [create, get, delete]
{{- if and (include "lmfinetune.severalNodes" .) (include "lmfinetune.isolatesPeers" .) }}
# by which these pods accept connections from each other alone
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [create, get, delete]
{{- end }}
- apiGroups: [""]
  resources: [events]
  verbs: [list, watch, create]
{{- end }}
