{{- define "twinlens.name" -}}
{{- .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "twinlens.fullname" -}}
{{- if contains .Chart.Name .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* What selects the pods of one component: list $ "server". Selectors cannot be changed later, so no version is here. */}}
{{- define "twinlens.selector" -}}
app.kubernetes.io/name: {{ include "twinlens.name" (index . 0) }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "twinlens.labels" -}}
{{ include "twinlens.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ printf "%s-%s" (index . 0).Chart.Name (index . 0).Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "twinlens.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "twinlens.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "twinlens.image" -}}
{{- $tagged := printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- if .Values.image.digest }}{{ $tagged }}@{{ .Values.image.digest }}{{ else }}{{ $tagged }}{{ end }}
{{- end }}

{{/* TWINLENS_DEADLINE in whole seconds, rounded up. */}}
{{- define "twinlens.deadline" -}}
{{- .Values.settings.DEADLINE | default "30" | toString | trim | trimSuffix "s" | trim | float64 | ceil | int }}
{{- end }}

{{- define "twinlens.remoteStore" -}}
{{- if or .Values.settings.MEDIA_URL .Values.secret.settings.MEDIA_URL }}yes{{ end }}
{{- end }}

{{/* What would lose data, or start nowhere, is refused before anything is installed. */}}
{{- define "twinlens.check" -}}
{{- if not .Values.secret.name }}
{{- fail "secret.name must name a Secret with the database's URL: kubectl create secret generic NAME --from-literal=database-url=postgresql://..." }}
{{- end }}
{{- if not .Values.secret.settings.DATABASE_URL }}
{{- fail "secret.settings.DATABASE_URL must name the key of the Secret that holds the database's URL: the embedded database would vanish with its pod" }}
{{- end }}
{{- range $name, $_ := .Values.settings }}
{{- if hasKey $.Values.secret.settings $name }}
{{- fail (printf "%s is given in settings and in secret.settings: leave one out" $name) }}
{{- end }}
{{- if has $name (list "DATABASE_URL" "OWNER_DATABASE_URL" "DIRECT_DATABASE_URL" "READ_DATABASE_URL") }}
{{- fail (printf "settings.%s would show a password to all who may read the Deployment: give it in secret.settings" $name) }}
{{- end }}
{{- if has $name (list "HOST" "PORT" "DATA" "MODEL") }}
{{- fail (printf "settings.%s is the chart's own: the container listens on port 8000 and has its folders where they are mounted (model.path names an artifact)" $name) }}
{{- end }}
{{- end }}
{{- if and (not (include "twinlens.remoteStore" .)) (not .Values.media.existingClaim) }}
{{- fail "pictures need a place that outlives a pod: settings.MEDIA_URL or secret.settings.MEDIA_URL (s3://bucket/prefix), or media.existingClaim" }}
{{- end }}
{{- if and (not (empty .Values.model.volume)) (not .Values.model.path) }}
{{- fail "model.path must name the artifact's folder in model.volume" }}
{{- end }}
{{- end }}
