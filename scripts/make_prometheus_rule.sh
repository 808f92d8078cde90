#!/usr/bin/env bash
# Write the alerts of deploy/prometheus/alerts.yml as an object of the Prometheus operator, for deploy/kubernetes/production.
set -euo pipefail
cd "$(dirname "$0")/../deploy"
rule=kubernetes/production/prometheus-rule.yaml
{
  cat <<'YAML'
# Written by scripts/make_prometheus_rule.sh from ../../prometheus/alerts.yml.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: earmark
  labels: {app.kubernetes.io/name: earmark}
spec:
YAML
  sed -n '/^groups:/,$p' prometheus/alerts.yml | sed 's/^./  &/'
} >"$rule"
