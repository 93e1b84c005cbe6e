#!/bin/sh
# Writes the plain manifests from the chart: deploy/helm/render.sh >deploy/manifests/nsmesh.yaml
# HELM names the program; a test says when the two are out of step.
set -eu
exec "${HELM:-helm}" template nsmesh "$(dirname "$0")" -n nsm-system --set namespace.create=true
