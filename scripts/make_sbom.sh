#!/usr/bin/env bash
# Write the server's bill of materials, as CycloneDX JSON.
#   scripts/make_sbom.sh OUT [PYTHON]
# PYTHON is the interpreter of an environment that has the server, such as that of an image. Without PYTHON, the script
# creates an environment like that of the image: '.[server]' with constraints.txt. It uses cyclonedx-py (extra [dev])
# from the PATH, or else installs it in a separate temporary environment.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,6s/^# //p' "$0" >&2; exit 2; }
out=$(realpath "$1") python=${2:-}
[ -z "$python" ] || python=$(command -v "$python")
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
install() { # ENVIRONMENT REQUIREMENT
  python3 -m venv "$scratch/$1"
  "$scratch/$1/bin/python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt "$2"
}
if [ -z "$python" ]; then
  install server '.[server]'
  # Every new environment has these; they are not part of the server.
  "$scratch/server/bin/python" -m pip uninstall --quiet --yes pip setuptools
  python=$scratch/server/bin/python
fi
if ! command -v cyclonedx-py >/dev/null; then
  install cyclonedx cyclonedx-bom
  PATH=$scratch/cyclonedx/bin:$PATH
fi
cyclonedx-py environment "$python" --pyproject pyproject.toml --output-reproducible --of JSON -o "$out"
