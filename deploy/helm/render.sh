#!/bin/sh
# Writes the plain manifests from the chart: deploy/helm/render.sh >deploy/manifests/nsmesh.yaml
# and what may be added to them: deploy/helm/render.sh webhook >deploy/manifests/admission-webhook.yaml
# HELM names the program; a test says when they are out of step.
set -eu
[ "${1:-}" != webhook ] || set -- --set admissionWebhook.enabled=true \
    --show-only templates/admission-webhook.yaml --show-only templates/admission-webhook-rights.yaml
exec "${HELM:-helm}" template nsmesh "$(dirname "$0")" -n nsm-system --set namespace.create=true "$@"
