#!/usr/bin/env bash
# Write requirements/*.txt: the exact versions of all packages of the images, with the hashes of their files.
#   scripts/lock.sh             update for pyproject.toml and constraints.txt; other packages keep their versions
#   scripts/lock.sh --upgrade   update all packages to their newest versions
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
lock web pyproject.toml --extra web
lock server pyproject.toml --extra server --extra otel
lock trainer pyproject.toml --extra train --excludes requirements/torch.txt
lock build requirements/build.in
