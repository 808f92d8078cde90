#!/usr/bin/env bash
# Report changes in protos/ that would break clients of the contract as of a commit.
#   scripts/check_breaking.sh [COMMIT]      such as main (the default), origin/main or v1.0.0
set -euo pipefail
cd "$(dirname "$0")/.."
against=${1:-main}
git rev-parse --quiet --verify "$against^{commit}" >/dev/null || { echo "There is no commit $against in this repository." >&2; exit 2; }
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
git archive "$against" buf.yaml protos | tar -x -C "$scratch"
buf breaking --against "$scratch"
echo "protos/ is compatible with $against."
