#!/usr/bin/env bash
# Run the tests of the client and the server with the lowest versions that pyproject.toml allows.
set -euo pipefail
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python - >"$scratch/lowest.txt" <<'PYTHON'
import re, tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
extras = project["optional-dependencies"]
for requirement in (*project["dependencies"], *extras["server"], *extras["mic"], *extras["otel"], *extras["web"]):
    if not requirement.startswith("earmark["):
        print(re.sub(r">=([^;]+)", r"==\1", requirement))
PYTHON
python -m venv "$scratch/env"
"$scratch/env/bin/python" -m pip install --quiet --disable-pip-version-check --constraint "$scratch/lowest.txt" \
  '.[mic,otel,server,web]' 'grpcio-status>=1.85.1' cryptography onnx pytest pytest-timeout hypothesis jsonschema promql-parser pyyaml \
  httpx2 openapi-spec-validator
"$scratch/env/bin/python" -m pytest -q -p no:cacheprovider tests/spotter tests/server tests/client tests/cli tests/web
