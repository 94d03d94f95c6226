{{- define "mcs.check" -}}
{{- if ne .Release.Namespace "mcs-system" -}}
{{- fail "mcs lives in the namespace mcs-system: helm install … --namespace mcs-system --create-namespace" -}}
{{- end -}}
{{- end -}}

{{- define "mcs.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag }}
{{- end -}}

{{- /* The probes of agents and controllers. */ -}}
{{- define "mcs.probes" -}}
startupProbe:
  httpGet:
    path: /livez
    port: metrics
  periodSeconds: 1
  failureThreshold: 60
livenessProbe:
  httpGet:
    path: /livez
    port: metrics
  periodSeconds: 10
  timeoutSeconds: 3
  failureThreshold: 3
readinessProbe:
  httpGet:
    path: /readyz
    port: metrics
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 2
{{- end -}}
