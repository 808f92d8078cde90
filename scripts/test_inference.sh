#!/usr/bin/env bash
# Synthesize speech with keywords, spot them with a server, and save the response and the latency.
#   scripts/test_inference.sh IMAGE                start a server in a container of this image (pulled if necessary)
#   scripts/test_inference.sh --server HOST:PORT   use a running server; `python` must have earmark_client
# Writes words.wav, response.json and inference_metrics.json to $OUT (default: inference/). WORDS sets the spoken words,
# VOICES the voices of flite. Needs flite and sox.
set -euo pipefail
[ $# = 1 ] || [ "${1:-} $#" = "--server 2" ] || { sed -n '3,6s/^# //p' "$0" >&2; exit 2; }
scripts=$(realpath "$(dirname "$0")")
docker=${DOCKER:-docker}
mkdir -p "${OUT:=inference}"
out=$(realpath "$OUT")
read -ra words <<<"${WORDS:-yes no up down left right stop go backward forward zero one two three four five}"
read -ra voices <<<"${VOICES:-slt rms awb}"
scratch=$(mktemp -d)
container=
finish() {
  rm -rf "$scratch"
  [ -z "$container" ] || "$docker" rm --force "$container" >/dev/null
}
trap finish EXIT

for command in flite sox; do
  command -v "$command" >/dev/null || { echo "$command is missing: apt-get install flite sox" >&2; exit 1; }
done
clips=() spoken=()
for voice in "${voices[@]}"; do
  for word in "${words[@]}"; do
    flite -voice "$voice" -t "$word" -o "$scratch/word.wav"
    sox -q "$scratch/word.wav" -r 16000 -c 1 -b 16 "$scratch/$voice-$word.wav" gain -n -6 pad 0.6 0.6
    clips+=("$scratch/$voice-$word.wav") spoken+=("$word")
  done
done
sox -q "${clips[@]}" "$out/words.wav"
said=$(IFS=, && echo "${spoken[*]}")

if [ "$1" = --server ]; then
  python "$scripts/measure_inference.py" "$2" "$out/words.wav" "$said" "$out"
  exit
fi
container=$("$docker" run --detach --read-only --cap-drop ALL --security-opt no-new-privileges --health-interval 1s "$1")
for _ in $(seq 120); do
  health=$("$docker" inspect -f '{{.State.Health.Status}}' "$container")
  [ "$health" != healthy ] || break
  sleep 0.5
done
[ "$health" = healthy ] || { "$docker" logs "$container" >&2; echo "The server was not healthy within 60 s; its log is above." >&2; exit 1; }
# The image contains the client too. It runs in the server's network, as the user who runs this script.
"$docker" run --rm --network "container:$container" --user "$(id -u):$(id -g)" --volume "$scripts:/scripts:ro" \
  --volume "$out:/out" --entrypoint python "$1" /scripts/measure_inference.py localhost:50051 /out/words.wav "$said" /out
