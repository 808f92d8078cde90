#!/usr/bin/env bash
# Find the model that is there, or train one where none is. What the image `trainer` runs, and the images' build.
#   train_if_needed.sh [OPTION OF earmark-train train]...      such as --preset quick --epochs 2
#
# In this order: the one model in MODELS; the one that comes with Earmark, unless TRAIN=1; else one is trained.
#   MODELS   folder of the given model, and of what training leaves (/models)
#   BUNDLED  the model that comes with Earmark
#   TRAIN    1 sets the bundled model aside (0)
#   CLIPS    recordings of words as in Speech Commands (/data/speech_commands)
#   SPEECH   read speech as in LibriSpeech, used if it is there (/data/LibriSpeech)
#   CORPUS   where recordings are prepared, once (/corpus)
#   OUT      folder that gets the chosen model, as model.onnx, with what tells of its training, if given
set -euo pipefail
models=${MODELS:-/models} bundled=${BUNDLED:-/opt/earmark/bundled.onnx} corpus=${CORPUS:-/corpus}
clips=${CLIPS:-/data/speech_commands} speech=${SPEECH:-/data/LibriSpeech} run=$models/run

say() { echo "model: $*"; }
fail() {
  echo "model: $*" >&2
  exit 1
}
choose() { # choose FILE WHAT: nothing is trained
  say "found $1 ($(stat -c %s "$1") bytes), $2: nothing is trained."
  [ -z "${OUT:-}" ] || cp "$1" "$OUT/model.onnx"
  exit 0
}

shopt -s nullglob
given=("$models"/*.onnx)
[ ${#given[@]} -le 1 ] || fail "$models has ${#given[@]} models (${given[*]##*/}): leave the one that is to be used."
[ ${#given[@]} -eq 0 ] || choose "${given[0]}" "which was given"
if [ "${TRAIN:-0}" != 1 ]; then
  [ ! -f "$bundled" ] || choose "$bundled" "which comes with Earmark (TRAIN=1 trains another)"
  why="and none comes with Earmark"
else
  why="and TRAIN=1 sets the one that comes with Earmark aside"
fi
say "none is given in $models, $why: training one."

command -v earmark-train >/dev/null || fail "earmark-train is not installed here: use the image 'trainer'."
[ -d "$clips" ] || fail "there are no recordings to train with: give a folder laid out as Speech Commands at $clips."
for folder in "$models" "$corpus"; do
  { mkdir -p "$folder" && [ -w "$folder" ]; } || fail "$folder cannot be written by user $(id -u): run as its owner."
done
if [ ! -f "$corpus/index.json" ]; then
  options=()
  [ ! -d "$speech" ] || options=(--speech "$speech")
  earmark-train prepare --clips "$clips" "${options[@]}" --corpus "$corpus"
fi
earmark-train train --corpus "$corpus" --out "$run" "$@"
earmark-train export "$run" --corpus "$corpus" --out "$run/model.onnx"
[ -s "$run/model.onnx" ] || fail "training ended without a model in $run: its train.log says how far it came."
earmark-train evaluate "$run/model.onnx" --corpus "$corpus" --out "$run/report"
mv "$run/model.onnx" "$models/model.onnx"
say "trained $models/model.onnx ($(stat -c %s "$models/model.onnx") bytes); train.log, metrics.json, curves.png" \
  "and report/ are in $run."
if [ -n "${OUT:-}" ]; then
  cp -r "$models/model.onnx" "$run"/{train.log,metrics.json,curves.png,report} "$OUT"
fi
