#!/usr/bin/env bash
# Build the server's and the client's image, and try them as a person would; says which step failed, and cleans up.
#   scripts/test_docker_build.sh
#   DOCKER=podman DOCKER_BUILD_FLAGS='--network host --build-arg …' scripts/test_docker_build.sh
# Speech of people is looked for in $EARMARK_DATA/speech_commands; without it only the bundled recording is spotted.
set -euo pipefail
cd "$(dirname "$0")/.."
docker=${DOCKER:-docker}
export DOCKER_BUILDKIT=1
read -ra build_flags <<<"${DOCKER_BUILD_FLAGS:-}"
server=earmark-test:server client=earmark-test:client name=earmark-test-$$
step="start"

step() {
  step=$1
  printf '\n== %s (%ss)\n' "$step" "$SECONDS"
}
fail() {
  echo "$*" >&2
  exit 1
}
finish() {
  local code=$?
  if [ $code != 0 ]; then
    "$docker" logs "$name" 2>&1 | tail -20 >&2 || true
    echo "Failed at the step: $step" >&2
  fi
  rm -f "${heard:-}"
  "$docker" rm --force "$name" >/dev/null 2>&1 || true
  "$docker" image rm "$server" "$client" >/dev/null 2>&1 || true
  exit $code
}
trap finish EXIT
trap 'exit 130' INT TERM
inside() { "$docker" exec "$name" "$@"; }
seconds() { date -d "$1" +%s.%N; }
# As others run it: nothing may be written, nothing may be gained. Its client shares its network, so no port is published.
serve() {
  "$docker" run --detach --name "$name" --read-only --cap-drop ALL --security-opt no-new-privileges \
    --health-interval 1s "$server" >/dev/null
}
until_healthy() {
  for _ in $(seq 120); do
    [ "$("$docker" inspect -f '{{.State.Running}}' "$name")" = true ] || fail "The container has ended."
    [ "$("$docker" inspect -f '{{.State.Health.Status}}' "$name")" != healthy ] || return 0
    sleep 0.5
  done
  fail "It was not healthy within 60 s: $("$docker" inspect -f '{{json .State.Health.Log}}' "$name")"
}

step "engine"
"$docker" version --format 'client {{.Client.Version}}, engine {{.Server.Version}}' ||
  fail "There is no container engine that answers: install Docker and start it, or set DOCKER_HOST."

step "build"
for target in server client; do
  "$docker" build "${build_flags[@]}" --target "$target" --tag "earmark-test:$target" .
done

step "contents"
base=$("$docker" image inspect -f '{{.Size}}' "${PYTHON_IMAGE:-python:3.11-slim-bookworm}" 2>/dev/null || echo 0)
for image in "$server" "$client"; do
  size=$("$docker" image inspect -f '{{.Size}}' "$image")
  echo "$image: $((size / 1000000)) MB, of which $(((size - base) / 1000000)) MB above the base image"
done
[ "$("$docker" image inspect -f '{{.Size}}' "$server")" -le 350000000 ] || fail "The server's image is over 350 MB."
[ "$("$docker" image inspect -f '{{.Config.StopSignal}}' "$server")" = SIGTERM ] || fail "STOPSIGNAL is not SIGTERM."
labels=$("$docker" image inspect -f '{{json .Config.Labels}}' "$server")
[[ $labels == *'"org.opencontainers.image.version":"'[0-9]* ]] || fail "The image does not tell its version: $labels"

step "start"
serve
until_healthy
began=$(seconds "$("$docker" inspect -f '{{.State.StartedAt}}' "$name")")
log=$("$docker" logs --timestamps "$name" 2>&1)
serving=$(seconds "$(grep -m1 'event=serving' <<<"$log" | cut -d' ' -f1)")
awk -v a="$began" -v b="$serving" 'BEGIN { printf "SERVING %.2f s after the container began, and healthy\n", b - a }'

step "nothing in it that it does not need"
[ "$(inside id -u)" != 0 ] || fail "It runs as root."
! inside touch /opt/earmark/x 2>/dev/null || fail "It can write to its own files."
for module in torch torchaudio pip ensurepip setuptools; do
  ! inside python -c "import $module" 2>/dev/null || fail "It can import $module."
done
for command in gcc cc make ld curl wget git pip; do
  ! inside sh -c "command -v $command" || fail "It has the command $command."
done
inside python -c 'import json; b = json.load(open("/usr/local/share/sbom/earmark.cdx.json"))
print(", ".join(sorted("{name} {version}".format(**c) for c in b["components"])))' || fail "It has no bill of materials."

step "spotting"
speech=()
mounts=(--volume "$PWD/scripts/check_spotting.py:/check.py:ro")
if [ -d "${EARMARK_DATA:-}/speech_commands" ]; then
  mounts+=(--volume "$(realpath "$EARMARK_DATA/speech_commands"):/speech:ro")
  speech=(/speech)
else
  echo "EARMARK_DATA names no folder with speech_commands: no speech of people."
fi
"$docker" run --rm --network "container:$name" "${mounts[@]}" --entrypoint python "$client" \
  /check.py localhost:50051 "${speech[@]}"

step "drain"
heard=$(mktemp)
"$docker" run --rm --network "container:$name" "$client" demo --json --server localhost:50051 --resume-within 0 \
  >"$heard" 2>/dev/null &
stream=$!
for _ in $(seq 120); do
  [ ! -s "$heard" ] || break # its first line says that it has started
  sleep 0.5
done
begun=$SECONDS
"$docker" stop --time 10 "$name" >/dev/null
code=$("$docker" inspect -f '{{.State.ExitCode}}' "$name")
wait "$stream" && fail "The stream did not notice that its server went away."
[ "$code" = 0 ] || fail "It did not drain in time: exit code $code after $((SECONDS - begun)) s."
log=$("$docker" logs "$name" 2>&1)
grep -E 'event=(draining|stopped)' <<<"$log"
[[ $log == *'event=draining calls=1'* ]] || fail "No stream was open when it was to drain."
echo "drained with a stream open, within $((SECONDS - begun)) s, exit code 0"

step "done"
