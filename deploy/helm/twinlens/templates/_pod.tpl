{{/* What the pods of the server, the toolbox and the worker share, so that all of them run on what is served. */}}

{{- define "twinlens.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
# A claim with many pictures would be walked through at each start otherwise.
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "twinlens.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "twinlens.environment" -}}
- name: TWINLENS_DATA
  value: /data
{{- if .Values.model.path }}
- name: TWINLENS_MODEL
  value: {{ printf "/models/%s" (trimPrefix "/" .Values.model.path) | quote }}
{{- end }}
{{- range $name, $value := .Values.settings }}
- name: TWINLENS_{{ $name }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- range $name, $key := .Values.secret.settings }}
- name: TWINLENS_{{ $name }}_FILE
  value: {{ printf "/run/secrets/twinlens/%s" $key | quote }}
{{- end }}
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "twinlens.mounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: data, mountPath: /data}
- {name: secrets, mountPath: /run/secrets/twinlens, readOnly: true}
{{- if .Values.media.existingClaim }}
- {name: media, mountPath: /data/media}
{{- end }}
{{- if not (empty .Values.model.volume) }}
- {name: model, mountPath: /models, readOnly: true}
{{- end }}
{{- end }}

{{- define "twinlens.volumes" -}}
- name: tmp
  emptyDir: {}
- name: data
  {{- toYaml .Values.cache.volume | nindent 2 }}
- name: secrets
  secret:
    secretName: {{ .Values.secret.name }}
    defaultMode: 0440
    items:
      {{- range values .Values.secret.settings | uniq | sortAlpha }}
      - {key: {{ . | quote }}, path: {{ . | quote }}}
      {{- end }}
{{- if .Values.media.existingClaim }}
- name: media
  persistentVolumeClaim:
    claimName: {{ .Values.media.existingClaim }}
{{- end }}
{{- if not (empty .Values.model.volume) }}
- name: model
  {{- toYaml .Values.model.volume | nindent 2 }}
{{- end }}
{{- end }}

{{- define "twinlens.placement" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- end }}
