#!/usr/bin/env bash
# Write requirements/*.txt: what the images install, exact, with the hash of every file that may be taken for it.
#   scripts/lock.sh             anew, as pyproject.toml and constraints.txt say now; other packages keep their version
#   scripts/lock.sh --upgrade   those too at their newest
set -euo pipefail
cd "$(dirname "$0")/.."
lock() { # lock NAME INPUT OPTION...
  local name=$1
  shift
  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
    --custom-compile-command 'make lock' --constraint constraints.txt \
    --output-file "requirements/$name.txt" "${upgrade[@]}" "$@"
  echo "requirements/$name.txt: $(grep -c == "requirements/$name.txt") packages"
}
upgrade=("$@")
lock client pyproject.toml
lock server pyproject.toml --extra server
lock trainer pyproject.toml --extra train --excludes requirements/torch.txt
lock build requirements/build.in
