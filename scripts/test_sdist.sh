#!/usr/bin/env bash
# Unpack the source distribution into an empty folder, and run the tests there, in an environment of their own.
#   scripts/test_sdist.sh dist/earmark-*.tar.gz [TEST]...      TEST: a file of tests; default: as `make test`
set -euo pipefail
[ $# -ge 1 ] || { sed -n '3s/^# //p' "$0" >&2; exit 2; }
archive=$(realpath "$1")
shift
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
tar --extract --gzip --file "$archive" --directory "$scratch" --strip-components 1
cd "$scratch"
make torch-cpu || echo "The CPU build of torch cannot be installed: make installs the default one, which is larger."
if [ $# = 0 ]; then
  make test
else
  make .venv/.dev
  .venv/bin/python -m pytest -q "$@"
fi
