{{- define "nflog-agent.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "nflog-agent.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "nflog-agent.labels" -}}
{{ include "nflog-agent.selector" . }}
app.kubernetes.io/part-of: nflog-agent
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "nflog-agent.metadata" -}}
name: {{ include "nflog-agent.fullname" . }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "nflog-agent.labels" . | nindent 2 }}
{{- with .Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "nflog-agent.account" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "nflog-agent.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "nflog-agent.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- /* Whether the agent asks the API server: true or nothing. */ -}}
{{- define "nflog-agent.kubernetes" -}}
{{- /* `off` is false in YAML. */ -}}
{{- if not (has (toString .Values.config.kubernetes) (list "off" "false")) -}}true{{- end -}}
{{- end -}}

{{- /* Whether health and metrics are served on the pod's address: true or nothing. */ -}}
{{- define "nflog-agent.exposed" -}}
{{- if or .Values.http.expose .Values.podMonitor.enabled .Values.serviceMonitor.enabled (not .Values.hostNetwork) -}}true{{- end -}}
{{- end -}}
