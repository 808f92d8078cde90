#!/usr/bin/env bash
# Test a wheel in an empty environment: first the client alone, without heavy packages, then with [server].
#   scripts/smoke_test_wheel.sh dist/earmark-*.whl
set -euo pipefail
wheel=$(realpath "$1")
constraints=$(realpath "$(dirname "$0")/../constraints.txt")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch" # Import nothing from the checkout.
"${PYTHON:-python3}" -m venv env
pip() { env/bin/python -m pip --quiet --disable-pip-version-check "$@"; }

pip install --constraint "$constraints" "$wheel"
for module in torch torchaudio onnxruntime soxr; do
  if env/bin/python -c "import $module" 2>/dev/null; then
    echo "The base installation must not contain $module, but it does." >&2
    exit 1
  fi
done
env/bin/earmark --help >/dev/null
env/bin/python -c 'import earmark_client; from earmark.v1 import keyword_spotting_service_pb2_grpc'
if env/bin/earmark demo >out 2>err; then
  echo "'earmark demo' must fail without the server, but it did not." >&2
  exit 1
fi
grep -q 'the extra .server.' err || { echo "The error of 'earmark demo' does not state how to install the server:" >&2; cat err >&2; exit 1; }
# fails_for_extra EXTRA COMMAND...: the command must fail with one line that states the missing extra.
fails_for_extra() {
  local extra=$1
  shift
  if "env/bin/$1" "${@:2}" >out 2>err || [ "$(wc -l <err)" != 1 ] || ! grep -q "the extra .$extra." err; then
    echo "'$*' must fail with one line that states the extra $extra. It printed:" >&2
    cat out err >&2
    exit 1
  fi
}
env/bin/earmark-server --help >/dev/null
fails_for_extra server earmark-server
fails_for_extra server earmark-server --workers 2
env/bin/earmark-train --help >/dev/null
fails_for_extra train earmark-train train --corpus corpus --out run

pip install --constraint "$constraints" "${wheel}[server]"
env/bin/earmark demo --fast --json >out
grep -q '"keyword"' out || { echo "The installed wheel detected no keyword in the demo." >&2; cat out >&2; exit 1; }
echo "The wheel works: the client alone, and with the server."
