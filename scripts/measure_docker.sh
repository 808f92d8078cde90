#!/usr/bin/env bash
# Measure the build times and sizes of the images, and print the tables of docs/docker.md.
#   scripts/measure_docker.sh                 measure builds of the server
#   scripts/measure_docker.sh --trainer       also of the trainer, which downloads torch
#   scripts/measure_docker.sh --empty-cache   empty the engine's whole build cache first, so that "cold" includes downloads
# DOCKER and DOCKER_BUILD_FLAGS have the same meaning as for test_docker_build.sh.
set -euo pipefail
cd "$(dirname "$0")/.."
docker=${DOCKER:-docker}
export DOCKER_BUILDKIT=1
read -ra flags <<<"${DOCKER_BUILD_FLAGS:-}"
trainer="" cold="cold, packages already downloaded"
for option; do
  case $option in
    --trainer) trainer=1 ;;
    --empty-cache)
      "$docker" builder prune --all --force >/dev/null
      cold="cold"
      ;;
    *)
      sed -n '2,7s/^# //p' "$0" >&2
      exit 2
      ;;
  esac
done

copy=$(mktemp -d) log=$(mktemp)
tags=()
trap 'rm -rf "$copy" "$log"; "$docker" image rm "${tags[@]}" >/dev/null 2>&1 || true' EXIT
git ls-files -z | tar --null --files-from - --create | tar --extract --directory "$copy"
cd "$copy"

layers() { "$docker" image inspect -f '{{json .RootFS.Layers}}' "earmark-measure:$1" 2>/dev/null | tr ',' '\n' || true; }
build() { # build TARGET OPTION...: sets elapsed_s, steps, cached and unchanged
  local begin before target=$1
  shift
  before=$(layers "$target")
  begin=$(date +%s.%N)
  "$docker" build "${flags[@]}" "$@" --progress=plain --target "$target" --tag "earmark-measure:$target" . >"$log" 2>&1 ||
    { tail -30 "$log" >&2 && exit 1; }
  elapsed_s=$(echo "$(date +%s.%N) $begin" | awk '{ printf "%.1f", $1 - $2 }')
  # Count each step once, without the internal ones that read the Dockerfile and the context.
  steps=$(grep -E '^#[0-9]+ \[' "$log" | grep -v '\[internal\]' | cut -d' ' -f1 | sort -u | wc -l)
  cached=$(grep -cE '^#[0-9]+ CACHED' "$log" || true)
  unchanged=$(comm -12 <(sort <<<"$before") <(layers "$target" | sort) | grep -c sha256 || true)
  tags+=("earmark-measure:$target")
}
row() { # row NAME TARGET OPTION...
  local name=$1
  shift
  build "$@"
  echo "| $name | $elapsed_s | $cached of $steps | $unchanged of $(layers "$1" | wc -l) |"
}

echo "| build of the server | time, s | cached steps | unchanged layers |"
echo "| --- | ---: | ---: | ---: |"
row "$cold" server --no-cache
row "nothing changed" server
echo "# changed" >>server/earmark_server/server.py
row "code changed" server
mkdir -p models && cp server/earmark_spotter/models/default.onnx models/model.onnx && echo >>models/model.onnx
row "model changed" server
sed -i "/^uvloop==/,\$d" requirements/server.txt # remove one package
row "a dependency changed" server
[ -z "$trainer" ] || row "trainer, $cold" trainer --no-cache

rm models/model.onnx
printf 'FROM scratch\nCOPY . /\n' | "$docker" build --quiet --tag earmark-measure:context --file - . >/dev/null
tags+=(earmark-measure:context)
size() { "$docker" image inspect -f '{{.Size}}' "earmark-measure:$1"; }
mb() { awk -v bytes="$1" 'BEGIN { printf "%.1f", bytes / 1e6 }'; }
printf '\n| stage | size, MB | without the base image, MB |\n| --- | ---: | ---: |\n'
for stage in base client web server ${trainer:+trainer}; do
  [ "$stage" = trainer ] || build "$stage"
  [ "$stage" != base ] || base=$(size base)
  echo "| $stage | $(mb "$(size "$stage")") | $(mb $(($(size "$stage") - base))) |"
done
printf '\nBuild context with the bundled model: %s MB; without: %s MB.\n' \
  "$(mb "$(size context)")" "$(mb $(($(size context) - $(stat -c %s server/earmark_spotter/models/default.onnx))))"
