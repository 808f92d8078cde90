#!/usr/bin/env bash
# Find a model, or train one if there is none. The trainer image runs this script, and so does the build of the images.
#   train_if_needed.sh [OPTION OF earmark-train train]...      such as --preset quick --epochs 2
#
# It uses the model in MODELS if there is one, else the bundled model unless TRAIN=1, else it trains a model.
#   MODELS   folder of the model, and of the output of the training (default: /models)
#   BUNDLED  the bundled model
#   TRAIN    1: ignore the bundled model (default: 0)
#   CLIPS    recordings of words, in the layout of Speech Commands (default: /data/speech_commands)
#   SPEECH   optional: read speech, in the layout of LibriSpeech (default: /data/LibriSpeech)
#   CORPUS   folder for the prepared recordings (default: /corpus)
#   OUT      optional: folder that receives the model as model.onnx, its MODEL_CARD.md, and the training log and report
set -euo pipefail
models=${MODELS:-/models} bundled=${BUNDLED:-/opt/earmark/bundled.onnx} corpus=${CORPUS:-/corpus}
clips=${CLIPS:-/data/speech_commands} speech=${SPEECH:-/data/LibriSpeech} run=$models/run

say() { echo "model: $*"; }
fail() {
  echo "model: $*" >&2
  exit 1
}
deliver() { # deliver MODEL CARD
  cp "$1" "$OUT/model.onnx"
  if [ -f "$2" ]; then cp "$2" "$OUT/MODEL_CARD.md"; else echo "This model was given without a card." >"$OUT/MODEL_CARD.md"; fi
}
choose() { # choose FILE ORIGIN
  say "using $1 ($(stat -c %s "$1") bytes), $2: no training."
  [ -z "${OUT:-}" ] || deliver "$1" "$(dirname "$1")/MODEL_CARD.md"
  exit 0
}

shopt -s nullglob
given=("$models"/*.onnx)
[ ${#given[@]} -le 1 ] || fail "$models has ${#given[@]} models (${given[*]##*/}): keep only the one to use."
[ ${#given[@]} -eq 0 ] || choose "${given[0]}" "the given model"
if [ "${TRAIN:-0}" != 1 ]; then
  [ ! -f "$bundled" ] || choose "$bundled" "the bundled model (TRAIN=1 trains another one)"
  why="and there is no bundled model"
else
  why="and TRAIN=1 ignores the bundled one"
fi
say "$models has no model, $why: training one."

command -v earmark-train >/dev/null || fail "earmark-train is not installed here: use the image 'trainer'."
[ -d "$clips" ] || fail "there are no training recordings: mount a folder in the layout of Speech Commands at $clips."
for folder in "$models" "$corpus"; do
  { mkdir -p "$folder" && [ -w "$folder" ]; } || fail "user $(id -u) cannot write to $folder: run the container" \
    "as its owner, $(stat -c %u:%g "$folder" 2>/dev/null || echo user:group). With compose: EARMARK_USER=\$(id -u):\$(id -g)"
done
if [ ! -f "$corpus/index.json" ]; then
  options=()
  [ ! -d "$speech" ] || options=(--speech "$speech")
  earmark-train prepare --clips "$clips" "${options[@]}" --corpus "$corpus"
fi
earmark-train train --corpus "$corpus" --out "$run" "$@"
earmark-train export "$run" --corpus "$corpus" --out "$run/model.onnx"
[ -s "$run/model.onnx" ] || fail "training ended without a model in $run: see its train.log."
earmark-train evaluate "$run/model.onnx" --corpus "$corpus" --out "$run/report"
mv "$run/model.onnx" "$models/model.onnx"
say "trained $models/model.onnx ($(stat -c %s "$models/model.onnx") bytes); train.log, metrics.json, curves.png" \
  "and report/ are in $run."
if [ -n "${OUT:-}" ]; then
  deliver "$models/model.onnx" "$run/report/model_card.md"
  cp -r "$run"/{train.log,metrics.json,curves.png,report} "$OUT"
fi
