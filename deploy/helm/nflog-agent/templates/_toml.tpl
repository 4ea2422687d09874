{{- define "nflog-agent.toml.key" -}}
{{- if regexMatch "^[A-Za-z0-9_-]+$" . }}{{ . }}{{ else }}{{ toJson . }}{{ end -}}
{{- end -}}

{{- /* A value as TOML, on one line. Strings, numbers and booleans are written as in JSON. */ -}}
{{- define "nflog-agent.toml.value" -}}
{{- if kindIs "map" . -}}
{{- $members := list -}}
{{- range $key, $value := . -}}
{{- $members = append $members (printf "%s = %s" (include "nflog-agent.toml.key" $key) (include "nflog-agent.toml.value" $value)) -}}
{{- end -}}
{{- if $members }}{ {{ join ", " $members }} }{{ else }}{}{{ end -}}
{{- else if kindIs "slice" . -}}
{{- $members := list -}}
{{- range . -}}
{{- $members = append $members (include "nflog-agent.toml.value" .) -}}
{{- end -}}
[{{ join ", " $members }}]
{{- else -}}
{{- toJson . -}}
{{- end -}}
{{- end -}}

{{- /* The members of a table, one a line; those that are null are left out. */ -}}
{{- define "nflog-agent.toml.members" -}}
{{- range $key, $value := . }}
{{- if not (kindIs "invalid" $value) }}
{{ include "nflog-agent.toml.key" $key }} = {{ include "nflog-agent.toml.value" $value }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* The configuration file. The endpoint and the resource's attributes are variables of the container, where the kubelet puts in the
       node's name and address. */ -}}
{{- define "nflog-agent.toml" -}}
{{- $config := omit .Values.config "otlp" "resource" "prefix" "rule" -}}
{{- if and (not .Values.hostNetwork) (not $config.netns) (not (index $config "netns-of-cgroup")) -}}
{{- $config = set $config "netns" "/proc/1/ns/net" -}}
{{- end -}}
{{- /* `off` is false in YAML. */ -}}
{{- range list "conntrack" "kubernetes" "record-id" -}}
{{- if kindIs "bool" (index $config .) }}{{ $config = set $config . (ternary "on" "off" (index $config .)) }}{{ end -}}
{{- end -}}
{{- if not $config.spool }}{{ $config = omit $config "spool" }}{{ end -}}
{{- $otlp := omit (default dict .Values.config.otlp) "endpoint" -}}
{{- with .Values.tls -}}
{{- if .secretName -}}
{{- if .caKey }}{{ $otlp = set $otlp "certificate" (printf "/etc/nflog-agent/tls/%s" .caKey) }}{{ end -}}
{{- if .certKey }}{{ $otlp = set $otlp "client-certificate" (printf "/etc/nflog-agent/tls/%s" .certKey) }}{{ end -}}
{{- if .keyKey }}{{ $otlp = set $otlp "client-key" (printf "/etc/nflog-agent/tls/%s" .keyKey) }}{{ end -}}
{{- end -}}
{{- end -}}
{{- include "nflog-agent.toml.members" $config | trim }}
{{ with $otlp }}
[otlp]
{{- include "nflog-agent.toml.members" . }}
{{ end }}
{{- range .Values.config.prefix }}
[[prefix]]
{{- include "nflog-agent.toml.members" . }}
{{ end }}
{{- range .Values.config.rule }}
[[rule]]
{{- include "nflog-agent.toml.members" . }}
{{ end }}
{{- end -}}

{{- /* OTEL_RESOURCE_ATTRIBUTES: the node's name, then config.resource, percent-encoded. */ -}}
{{- define "nflog-agent.resource" -}}
k8s.node.name=$(K8S_NODE_NAME),host.name=$(K8S_NODE_NAME)
{{- range $key, $value := .Values.config.resource -}}
,{{ $key | urlquery | replace "+" "%20" }}={{ $value | toString | urlquery | replace "+" "%20" }}
{{- end -}}
{{- end -}}
