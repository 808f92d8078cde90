#!/usr/bin/env bash
# Write what a server is made of, as a CycloneDX bill of materials in JSON.
#   scripts/make_sbom.sh OUT [PYTHON]
# PYTHON is the interpreter of an environment with the server in it, such as an image's; without it, an environment
# is made as the image's is: '.[server]' with constraints.txt. cyclonedx-py (extra [dev]) is taken from the path;
# where it is not there it is installed for this run, apart from what is described.
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
  # What is in every new environment is not the server's.
  "$scratch/server/bin/python" -m pip uninstall --quiet --yes pip setuptools
  python=$scratch/server/bin/python
fi
if ! command -v cyclonedx-py >/dev/null; then
  install cyclonedx cyclonedx-bom
  PATH=$scratch/cyclonedx/bin:$PATH
fi
cyclonedx-py environment "$python" --pyproject pyproject.toml --output-reproducible --of JSON -o "$out"
