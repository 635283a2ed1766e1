{{/* A release may have dots in its name and begin with a digit; a Service may not. */}}
{{- define "lockstep.name" -}}
{{- $name := .Release.Name | replace "." "-" }}
{{- if not (contains .Chart.Name $name) }}{{ $name = printf "%s-%s" $name .Chart.Name }}{{ end }}
{{- if regexMatch "^[0-9]" $name }}{{ $name = printf "r%s" $name }}{{ end }}
{{- $name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "lockstep.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "lockstep.labels" -}}
{{ include "lockstep.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "lockstep.metadata" -}}
name: {{ include "lockstep.name" . }}
namespace: {{ .Release.Namespace | quote }}
labels:
  {{- include "lockstep.labels" . | nindent 2 }}
{{- end }}

{{- define "lockstep.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (ternary (include "lockstep.name" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{- define "lockstep.image" -}}
{{ .Values.image.repository }}{{ if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{- define "lockstep.ranks" -}}
{{ mul (int .Values.nodes) (int .Values.devices.perNode) }}
{{- end }}

{{- define "lockstep.grace" -}}
{{ add (int .Values.drain.delay) (int .Values.drain.timeout) (int .Values.drain.margin) }}
{{- end }}

{{/* The file that lockstepd reads. Values as JSON: templates would print a million as 1e+06. Raw: lockstepd knows no \u003c. */}}
{{- define "lockstep.configuration" -}}
host = 0.0.0.0
port = {{ .Values.ports.rank }}
shared-port = {{ .Values.ports.shared }}
peer-port = {{ .Values.ports.peer }}
drain-timeout = {{ .Values.drain.timeout }}s
{{- if eq .Values.devices.kind "gpu" }}
device = cuda
{{- end }}
{{- if ne .Values.model.source "embedded" }}
model = {{ printf "/models/%s" .Values.model.folder | trimSuffix "/" | toRawJson }}
{{- end }}
{{- if .Values.secrets.apiKeys }}
api-key-file = /etc/lockstep-secrets/api/api-keys
{{- end }}
{{- if .Values.secrets.tls }}
tls-cert = /etc/lockstep-secrets/tls/tls.crt
tls-key = /etc/lockstep-secrets/tls/tls.key
{{- end }}
{{- if .Values.secrets.group }}
group-secret-file = /etc/lockstep-secrets/group/group-secret
{{- end }}
{{- range $name, $value := .Values.options }}
{{ $name }} = {{ $value | toRawJson }}
{{- end }}
{{- end }}

{{- define "lockstep.probe" -}}
httpGet: {path: {{ .path }}, port: rank-0, scheme: {{ ternary "HTTPS" "HTTP" (ne .root.Values.secrets.tls "") }}}
{{- end }}

{{/* Refuses ports that run into each other: the schema sees each alone. */}}
{{- define "lockstep.checkPorts" -}}
{{- $ranks := int .Values.devices.perNode }}
{{- $ports := .Values.ports }}
{{- $ranges := list (list "rank" (int $ports.rank) $ranks) (list "shared" (int $ports.shared) 1) (list "ssh" (int $ports.ssh) 1) (list "mpi" (int $ports.mpi) 256) (list "peer" (int $ports.peer) $ranks) }}
{{- range $i, $one := $ranges }}
{{- if gt (add (index $one 1) (index $one 2)) 65536 }}
{{- fail (printf "ports.%s takes %d ports from %d on: the last there is is 65535" (index $one 0) (index $one 2) (index $one 1)) }}
{{- end }}
{{- range $other := slice $ranges 0 $i }}
{{- if and (lt (index $one 1) (add (index $other 1) (index $other 2))) (lt (index $other 1) (add (index $one 1) (index $one 2))) }}
{{- fail (printf "ports.%s takes %d from %d on, ports.%s %d from %d on: keep them apart" (index $one 0) (index $one 2) (index $one 1) (index $other 0) (index $other 2) (index $other 1)) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Between the nodes of a group: ssh, Open MPI's ports as launch.sh fixes them, and the ranks' peer channels. With GPUs all: NCCL takes any. */}}
{{- define "lockstep.groupPorts" -}}
{{- if eq .Values.devices.kind "gpu" }}
- {port: 1024, endPort: 65535, protocol: TCP}
{{- else }}
- {port: {{ .Values.ports.ssh }}, protocol: TCP}
- {port: {{ .Values.ports.mpi }}, endPort: {{ add .Values.ports.mpi 255 }}, protocol: TCP}
- {port: {{ .Values.ports.peer }}, endPort: {{ add .Values.ports.peer .Values.devices.perNode -1 }}, protocol: TCP}
{{- end }}
{{- end }}
