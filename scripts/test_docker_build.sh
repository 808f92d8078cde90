#!/usr/bin/env bash
# Build the images of the server, the web page and the client, test them, and clean up. Prints the step that failed.
#   scripts/test_docker_build.sh
#   DOCKER=podman DOCKER_BUILD_FLAGS='--network host --build-arg …' scripts/test_docker_build.sh
# With real speech in $EARMARK_DATA/speech_commands the test measures recall; without it, it uses the bundled recording only.
set -euo pipefail
cd "$(dirname "$0")/.."
docker=${DOCKER:-docker}
export DOCKER_BUILDKIT=1
read -ra build_flags <<<"${DOCKER_BUILD_FLAGS:-}"
server=earmark-test:server web=earmark-test:web client=earmark-test:client name=earmark-test-$$
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
  rm -f "${events:-}"
  "$docker" rm --force "$name" >/dev/null 2>&1 || true
  "$docker" image rm "$server" "$web" "$client" >/dev/null 2>&1 || true
  exit $code
}
trap finish EXIT
trap 'exit 130' INT TERM
inside() { "$docker" exec "$name" "$@"; }
seconds() { date -d "$1" +%s.%N; }
# With the restrictions of a production deployment. The client shares the server's network, so no port is published.
serve() {
  "$docker" run --detach --name "$name" --read-only --cap-drop ALL --security-opt no-new-privileges \
    --health-interval 1s "$server" >/dev/null
}
until_healthy() {
  for _ in $(seq 120); do
    [ "$("$docker" inspect -f '{{.State.Running}}' "$1")" = true ] || fail "The container has exited."
    [ "$("$docker" inspect -f '{{.State.Health.Status}}' "$1")" != healthy ] || return 0
    sleep 0.5
  done
  fail "The container was not healthy within 60 s: $("$docker" inspect -f '{{json .State.Health.Log}}' "$1")"
}

step "engine"
"$docker" version --format 'client {{.Client.Version}}, engine {{.Server.Version}}' ||
  fail "No container engine responds: install and start Docker, or set DOCKER_HOST."

step "build"
for target in server web client; do
  "$docker" build "${build_flags[@]}" --target "$target" --tag "earmark-test:$target" .
done

step "contents"
base=$("$docker" image inspect -f '{{.Size}}' "${PYTHON_IMAGE:-python:3.11-slim-bookworm}" 2>/dev/null || echo 0)
for image in "$server" "$web" "$client"; do
  size=$("$docker" image inspect -f '{{.Size}}' "$image")
  echo "$image: $((size / 1000000)) MB, $(((size - base) / 1000000)) MB without the base image"
done
# The base image's size depends on where it is from.
limit=$((base ? base + 200000000 : 350000000))
[ "$("$docker" image inspect -f '{{.Size}}' "$server")" -le $limit ] || fail "The image of the server is larger than $((limit / 1000000)) MB."
[ "$("$docker" image inspect -f '{{.Config.StopSignal}}' "$server")" = SIGTERM ] || fail "STOPSIGNAL is not SIGTERM."
labels=$("$docker" image inspect -f '{{json .Config.Labels}}' "$server")
[[ $labels == *'"org.opencontainers.image.version":"'[0-9]* ]] || fail "The image has no version label: $labels"

step "start"
serve
until_healthy "$name"
started=$(seconds "$("$docker" inspect -f '{{.State.StartedAt}}' "$name")")
log=$("$docker" logs --timestamps "$name" 2>&1)
serving=$(seconds "$(grep -m1 'event=serving' <<<"$log" | cut -d' ' -f1)")
awk -v a="$started" -v b="$serving" 'BEGIN { printf "SERVING %.2f s after the start of the container, and healthy\n", b - a }'

step "no unnecessary contents"
[ "$(inside id -u)" != 0 ] || fail "The server runs as root."
! inside touch /opt/earmark/x 2>/dev/null || fail "The server can write to its own files."
for module in torch torchaudio pip ensurepip setuptools; do
  ! inside python -c "import $module" 2>/dev/null || fail "The image contains the module $module."
done
for command in gcc cc make ld curl wget git pip; do
  ! inside sh -c "command -v $command" || fail "The image contains the command $command."
done
commands=$(inside sh -c 'ls /opt/earmark/bin /usr/local/bin | grep -v "^python"' | tr -d '\n')
[ "$commands" = "/opt/earmark/bin:earmarkearmark-server/usr/local/bin:" ] || fail "The image has other commands: $commands"
inside sh -c 'cd /usr/local/share/doc/earmark && test -s LICENSE && test -s NOTICE && test -s MODEL_CARD.md' ||
  fail "The image has no licence, notice or model card."
inside python -c 'import opentelemetry.exporter.otlp.proto.http, opentelemetry.sdk' || fail "The image cannot send traces."
inside python -c 'import json; b = json.load(open("/usr/local/share/sbom/earmark.cdx.json"))
print(", ".join(sorted("{name} {version}".format(**c) for c in b["components"])))' || fail "The image has no bill of materials."

step "health check"
"$docker" exec -i "$name" python - <<'PYTHON' || fail "The health check takes more than 60 ms of CPU."
import resource, subprocess
def cpu_ms():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (usage.ru_utime + usage.ru_stime)
times = []
for _ in range(5):
    before = cpu_ms()
    subprocess.run(["earmark", "health", "--server", "localhost:50051"], check=True, stdout=subprocess.DEVNULL)
    times.append(cpu_ms() - before)
print(f"{min(times):.0f} ms of CPU")
raise SystemExit(min(times) > 60)
PYTHON

step "spotting"
speech=()
mounts=(--volume "$PWD/scripts/check_spotting.py:/check.py:ro")
if [ -d "${EARMARK_DATA:-}/speech_commands" ]; then
  mounts+=(--volume "$(realpath "$EARMARK_DATA/speech_commands"):/speech:ro")
  speech=(/speech)
else
  echo "EARMARK_DATA has no speech_commands: the recall on real speech is not measured."
fi
"$docker" run --rm --network "container:$name" "${mounts[@]}" --entrypoint python "$client" \
  /check.py localhost:50051 "${speech[@]}"

step "web page"
DOCKER=$docker scripts/test_web_image.sh "$server" "$web"

step "drain"
events=$(mktemp)
"$docker" run --rm --network "container:$name" "$client" demo --json --server localhost:50051 --resume-within 0 \
  >"$events" 2>/dev/null &
stream=$!
for _ in $(seq 120); do
  [ ! -s "$events" ] || break # its first line is the event `started`
  sleep 0.5
done
begin=$SECONDS
"$docker" stop --time 10 "$name" >/dev/null
code=$("$docker" inspect -f '{{.State.ExitCode}}' "$name")
wait "$stream" && fail "The stream ended without an error, although its server stopped."
[ "$code" = 0 ] || fail "The server did not drain in time: exit code $code after $((SECONDS - begin)) s."
log=$("$docker" logs "$name" 2>&1)
grep -E 'event=(draining|stopped)' <<<"$log"
[[ $log == *'event=draining calls=1'* ]] || fail "No stream was open at the start of the drain."
echo "drained with an open stream, within $((SECONDS - begin)) s, exit code 0"

step "done"
