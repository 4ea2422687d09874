{{- /* The capabilities that what is enabled takes, each with its reason, as a list for securityContext.capabilities.add. */ -}}
{{- define "nflog-agent.capabilities" -}}
{{- $config := .Values.config -}}
{{- $sockdiag := eq (toString $config.attribution) "sockdiag" -}}
{{- $namespaces := or $config.netns (index $config "netns-of-cgroup") (not .Values.hostNetwork) -}}
# Bind an NFLOG group; enlarge the socket's receive buffer beyond net.core.rmem_max.
- NET_ADMIN
{{- if not $sockdiag }}
# Create BPF maps and load BPF programs (Linux 5.8).
- BPF
# Let BPF programs read kernel memory, and attach them as kprobes (Linux 5.8).
- PERFMON
{{- end }}
# Read /proc/PID/exe of processes of other users{{ if $namespaces }}, and enter their namespaces{{ end }}.
- SYS_PTRACE
{{- if or $sockdiag .Values.kernels.withoutProbes }}
# Owners without probes: list /proc/PID/fd of processes of other users.
- DAC_READ_SEARCH
{{- end }}
{{- if and .Values.kernels.before5_11 (not $sockdiag) }}
# Kernels before 5.11: lift the memlock limit, against which BPF maps count.
- SYS_RESOURCE
{{- end }}
{{- if or $namespaces (and .Values.kernels.before5_8 (not $sockdiag)) }}
{{- if $namespaces }}
# setns to other network namespaces than the pod's.
{{- end }}
{{- if and .Values.kernels.before5_8 (not $sockdiag) }}
# Kernels before 5.8, which have neither BPF nor PERFMON.
{{- end }}
- SYS_ADMIN
{{- end }}
{{- with .Values.extraCapabilities }}
# extraCapabilities
{{ toYaml . }}
{{- end }}
{{- end -}}
