{{/* A pod of the group: root, and role, which is alone (all ranks in it), leader (starts the ranks) or worker (waits for them). */}}
{{- define "lockstep.podTemplate" -}}
metadata:
  labels:
    {{- include "lockstep.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .role }}
    {{- with .root.Values.podLabels }}{{ toYaml . | nindent 4 }}{{ end }}
  annotations:
    checksum/configuration: {{ include "lockstep.configuration" .root | sha256sum }}
    {{- with .root.Values.podAnnotations }}{{ toYaml . | nindent 4 }}{{ end }}
spec:
  {{- include "lockstep.podPlace" .root | nindent 2 }}
  serviceAccountName: {{ include "lockstep.serviceAccount" .root | trim | quote }}
  automountServiceAccountToken: false
  # Kubernetes would set LOCKSTEP_PORT to an address, which lockstepd would take for its option.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ include "lockstep.grace" .root }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 10001
    runAsGroup: 10001
    fsGroup: 10001
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile: {type: RuntimeDefault}
  {{- with .root.Values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . | quote }}
    {{- end }}
  {{- end }}
  containers:
    - {{ include "lockstep.container" . | nindent 6 | trim }}
  volumes:
    {{- include "lockstep.volumes" .root | nindent 4 }}
{{- end }}

{{- define "lockstep.podPlace" -}}
{{- with .Values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .Values.runtimeClassName }}
runtimeClassName: {{ . | quote }}
{{- end }}
{{- if .Values.topologySpread }}
topologySpreadConstraints:
  {{- range .Values.topologySpread }}
  - {{ toYaml . | nindent 4 | trim }}
    labelSelector:
      matchLabels: {{ include "lockstep.selector" $ | nindent 8 }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "lockstep.container" -}}
name: lockstep
image: {{ include "lockstep.image" .root | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
{{- if eq .role "alone" }}
command: [lockstep-run]
args: {{ concat (list "-n" (include "lockstep.ranks" .root)) .root.Values.launcherOptions (list "--" "lockstepd") | toJson }}
{{- else }}
command: [bash, /etc/lockstep/launch.sh, {{ .role }}]
{{- if and (eq .role "leader") .root.Values.launcherOptions }}
args: {{ .root.Values.launcherOptions | toJson }}
{{- end }}
{{- end }}
env:
  - {name: LOCKSTEP_CONFIG, value: /etc/lockstep/lockstep.conf}
  {{- if ne .role "alone" }}
  - {name: GROUP_NODES, value: {{ .root.Values.nodes | quote }}}
  - {name: RANKS_A_NODE, value: {{ .root.Values.devices.perNode | quote }}}
  - {name: SSH_PORT, value: {{ .root.Values.ports.ssh | quote }}}
  - {name: MPI_PORT, value: {{ .root.Values.ports.mpi | quote }}}
  - {name: START_SECONDS, value: {{ .root.Values.probes.startup | quote }}}
  {{- with .root.Values.env }}
  # mpirun passes these on to the other pods.
  - {name: RANKS_ENV, value: {{ keys . | sortAlpha | join " " | quote }}}
  {{- end }}
  {{- end }}
  {{- range $name, $value := .root.Values.env }}
  - {name: {{ $name }}, value: {{ $value | quote }}}
  {{- end }}
ports:
  - {name: shared, containerPort: {{ .root.Values.ports.shared }}}
  {{- range $rank := until (int .root.Values.devices.perNode) }}
  - {name: rank-{{ $rank }}, containerPort: {{ add $.root.Values.ports.rank $rank }}}
  {{- end }}
  {{- if ne .role "alone" }}
  - {name: ssh, containerPort: {{ .root.Values.ports.ssh }}}
  {{- end }}
{{ include "lockstep.probes" . }}
resources: {{ include "lockstep.resources" .root | nindent 2 }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  capabilities: {drop: [ALL]}
volumeMounts:
  - {name: configuration, mountPath: /etc/lockstep, readOnly: true}
  - {name: shm, mountPath: /dev/shm}
  - {name: tmp, mountPath: /tmp}
  {{- if ne .root.Values.model.source "embedded" }}
  - {name: model, mountPath: /models, readOnly: true}
  {{- end }}
  {{- range $name, $secret := dict "api" .root.Values.secrets.apiKeys "tls" .root.Values.secrets.tls "group" .root.Values.secrets.group }}
  {{- if $secret }}
  - {name: secret-{{ $name }}, mountPath: /etc/lockstep-secrets/{{ $name }}, readOnly: true}
  {{- end }}
  {{- end }}
  {{- if ne .role "alone" }}
  - {name: ssh, mountPath: /etc/lockstep-ssh, readOnly: true}
  {{- end }}
{{- end }}

{{/* A worker's ranks come by ssh: until then it is alive while sshd is. The drain is asked for where the launcher runs, and ends all ranks. */}}
{{- define "lockstep.probes" -}}
readinessProbe:
  {{- if and (eq .role "worker") (eq .root.Values.launch "mpiJob") }}
  # The names of the operator's pods resolve only when these are ready, and the launcher needs the names to start the ranks.
  tcpSocket: {port: ssh}
  {{- else }}
  {{- include "lockstep.probe" (dict "root" .root "path" "/ready") | nindent 2 }}
  {{- end }}
  {{- toYaml .root.Values.probes.readiness | nindent 2 }}
{{- if eq .role "worker" }}
livenessProbe:
  tcpSocket: {port: ssh}
  {{- toYaml .root.Values.probes.liveness | nindent 2 }}
lifecycle:
  preStop:
    exec:
      # Without it sshd, and with it the ranks here, would end at once; one rank's drain is the whole group's.
      command: [bash, /etc/lockstep/launch.sh, drain, {{ .root.Values.drain.delay | quote }}]
{{- else }}
startupProbe:
  {{- include "lockstep.probe" (dict "root" .root "path" "/ready") | nindent 2 }}
  periodSeconds: 5
  timeoutSeconds: 2
  failureThreshold: {{ max 1 (div (int .root.Values.probes.startup) 5) }}
livenessProbe:
  {{- include "lockstep.probe" (dict "root" .root "path" "/health") | nindent 2 }}
  {{- toYaml .root.Values.probes.liveness | nindent 2 }}
lifecycle:
  preStop:
    exec:
      # Balancers first, then the drain; the kubelet's SIGTERM comes when the hook ends, and finds nobody.
      command: [sh, -c, "sleep {{ .root.Values.drain.delay }}; kill -USR1 1; while kill -0 1; do sleep 1; done"]
{{- end }}
{{- end }}

{{- define "lockstep.resources" -}}
{{- $resources := deepCopy .Values.resources }}
{{- if eq .Values.devices.kind "gpu" }}
{{- $gpus := dict .Values.devices.gpuResource (int .Values.devices.perNode) }}
{{- $_ := set $resources "limits" (merge $gpus (default dict $resources.limits)) }}
{{- end }}
{{- toYaml $resources }}
{{- end }}

{{- define "lockstep.volumes" -}}
- name: configuration
  configMap: {name: {{ include "lockstep.name" . }}}
- name: shm
  emptyDir: {medium: Memory, sizeLimit: {{ .Values.sharedMemory }}}
- name: tmp
  emptyDir: {sizeLimit: 1Gi}
{{- if eq .Values.model.source "pvc" }}
- name: model
  persistentVolumeClaim: {claimName: {{ .Values.model.reference | quote }}, readOnly: true}
{{- else if eq .Values.model.source "hostPath" }}
- name: model
  hostPath: {path: {{ .Values.model.reference | quote }}, type: Directory}
{{- else if eq .Values.model.source "image" }}
- name: model
  image: {reference: {{ .Values.model.reference | quote }}, pullPolicy: IfNotPresent}
{{- end }}
{{- range $name, $secret := dict "api" .Values.secrets.apiKeys "tls" .Values.secrets.tls "group" .Values.secrets.group }}
{{- if $secret }}
- name: secret-{{ $name }}
  secret: {secretName: {{ $secret | quote }}, defaultMode: 0440}
{{- end }}
{{- end }}
{{- if ne .Values.launch "pod" }}
- name: ssh
  secret: {secretName: {{ .Values.secrets.ssh | quote }}, defaultMode: 0440}
{{- end }}
{{- end }}
