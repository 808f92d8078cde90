#!/usr/bin/env bash
# Fail if the generated code in protos/ is not up to date with the .proto files.
set -euo pipefail
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cp -r buf.yaml buf.gen.yaml protos "$scratch"
find "$scratch/protos" -name '*_pb2*' -delete
(cd "$scratch" && buf generate)
if ! diff -rq --exclude=__pycache__ protos "$scratch/protos"; then
  echo "The generated code is not up to date with the .proto files: run 'make generate' and commit the result." >&2
  exit 1
fi
