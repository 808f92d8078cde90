#!/usr/bin/env bash
# Build the server's image with full output, and report what takes time and space: make docker-report
# Prints the slowest steps, the build context, the layers, and the packages by size.
set -euo pipefail
cd "$(dirname "$0")/.."
docker=${DOCKER:-docker}
export DOCKER_BUILDKIT=1
read -ra flags <<<"${DOCKER_BUILD_FLAGS:-}"
image=earmark-report:server context=earmark-report:context

log=$(mktemp)
trap 'rm -f "$log"; "$docker" image rm "$image" "$context" >/dev/null 2>&1 || true' EXIT
"$docker" build "${flags[@]}" --progress=plain --tag "$image" . 2>&1 | tee "$log"
printf "\n== Slowest steps, in seconds (without cached ones)\n"
grep -E '^#[0-9]+ (DONE|\[)' "$log" | awk '
  $2 == "DONE" { if ($3 + 0 >= 1) print $3 + 0 "\t" name[$1]; next } { n = $1; $1 = ""; name[n] = substr($0, 2, 100) }' |
  sort -rn | head -10

printf '\n== Build context (models and training data only if a build uses them)\n'
printf 'FROM scratch\nCOPY . /\n' | "$docker" build --quiet --tag "$context" --file - . >/dev/null
"$docker" image inspect -f '{{.Size}}' "$context" | awk '{ printf "%.2f MB in total\n", $1 / 1e6 }'
"$docker" create --name earmark-report-$$ "$context" none >/dev/null
"$docker" export earmark-report-$$ | tar -tv | awk '$3 > 50000 { print $3 "\t" $6 }' | sort -rn | head -10
"$docker" rm earmark-report-$$ >/dev/null

printf '\n== Layers, newest first\n'
# shellcheck disable=SC2016 # the engine's template
"$docker" history --no-trunc --format '{{.Size}}\t{{.CreatedBy}}' "$image" | grep -v '^0B' | cut -c1-120

printf '\n== Packages, in kB\n'
"$docker" run --rm --network none --entrypoint sh "$image" -c \
  'cd /opt/earmark/lib/python3*/site-packages && du -sk -- * | sort -rn | head -15'
