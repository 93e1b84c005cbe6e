{{- define "nsmesh.labels" -}}
app.kubernetes.io/part-of: nsmesh
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "nsmesh.image" -}}
image: "{{ .Values.image.repository }}:{{ .Values.image.tag }}"
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end }}

{{- define "nsmesh.pod" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
enableServiceLinks: false
{{- end }}

{{- define "nsmesh.everyNode" -}}
{{- with .Values.nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
tolerations: {{ toJson .Values.tolerations }}
{{- if .Values.priorityClasses.create }}
priorityClassName: nsm-node
{{- end }}
{{- end }}

{{- define "nsmesh.centre" -}}
{{- if .Values.priorityClasses.create }}
priorityClassName: nsm-control
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "nsmesh.unprivileged" -}}
securityContext:
  readOnlyRootFilesystem: true
  allowPrivilegeEscalation: false
  capabilities: {drop: [ALL]}
{{- end }}

{{- define "nsmesh.logEnv" -}}
- {name: NSM_LOG_LEVEL, value: {{ .Values.logLevel | quote }}}
- {name: NSM_LOG_LEVEL_FILE, value: /etc/nsm/logging/level}
{{- end }}

{{- define "nsmesh.logMount" -}}
- {name: logging, mountPath: /etc/nsm/logging, readOnly: true}
{{- end }}

{{- define "nsmesh.logVolume" -}}
- {name: logging, configMap: {name: nsm-logging, optional: true}}
{{- end }}

{{- define "nsmesh.policyMount" -}}
- {name: policies, mountPath: /etc/nsm/policies, readOnly: true}
{{- end }}

{{- define "nsmesh.policyVolume" -}}
- {name: policies, configMap: {name: {{ . }}}}
{{- end }}

{{- define "nsmesh.policySum" -}}
{{- /* a policy that changes begins with new pods */ -}}
annotations: {nsmesh/policies: {{ toJson . | sha256sum | trunc 16 | quote }}}
{{- end }}

{{- define "nsmesh.env" -}}
{{ include "nsmesh.logEnv" . }}
- {name: NSM_MAX_TOKEN_LIFETIME, value: {{ .Values.maxTokenLifetime | quote }}}
- {name: SPIFFE_ENDPOINT_SOCKET, value: "unix://{{ .Values.identity.socketFolder }}/agent.sock"}
- {name: NODE_NAME, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
- {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
- {name: POD_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
{{- end }}

{{- define "nsmesh.spireMount" -}}
- {name: spire-agent-socket, mountPath: {{ .Values.identity.socketFolder | quote }}, readOnly: true}
{{- end }}

{{- define "nsmesh.spireVolume" -}}
- {name: spire-agent-socket, hostPath: {path: {{ .Values.identity.socketFolder | quote }}, type: DirectoryOrCreate}}
{{- end }}

{{- define "nsmesh.lastHook" -}}
helm.sh/hook: post-delete
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded,hook-failed
{{- end }}

{{- define "nsmesh.moreEnv" -}}
{{- range $name, $value := . -}}
- {name: {{ $name | quote }}, value: {{ $value | quote }}}
{{ end }}
{{- end }}
