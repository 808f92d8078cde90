#!/usr/bin/env bash
# Try a wheel in empty environments: the client alone must work and stay small; with [server] it must spot.
#   scripts/smoke_test_wheel.sh dist/earmark-*.whl
set -euo pipefail
wheel=$(realpath "$1")
constraints=$(realpath "$(dirname "$0")/../constraints.txt")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch" # so that nothing is imported from the checkout
"${PYTHON:-python3}" -m venv env
pip() { env/bin/python -m pip --quiet --disable-pip-version-check "$@"; }

pip install --constraint "$constraints" "$wheel"
for module in torch torchaudio onnxruntime soxr; do
  if env/bin/python -c "import $module" 2>/dev/null; then
    echo "The client's installation brought $module along." >&2
    exit 1
  fi
done
env/bin/earmark --help >/dev/null
env/bin/python -c 'import earmark_client; from earmark.v1 import keyword_spotting_service_pb2_grpc'
if env/bin/earmark demo >out 2>err; then
  echo "Without the server installed, 'earmark demo' should say that it is missing." >&2
  exit 1
fi
grep -q 'earmark\[server\]' err || { echo "It did not say how to install the server:" >&2; cat err >&2; exit 1; }

pip install --constraint "$constraints" "${wheel}[server]"
env/bin/earmark demo --fast --json >out
grep -q '"keyword"' out || { echo "The installed wheel marked no keyword in the demo." >&2; cat out >&2; exit 1; }
echo "The wheel works: client alone, and with the server."
