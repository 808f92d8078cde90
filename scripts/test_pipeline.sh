#!/usr/bin/env bash
# Run the training pipeline on a few made-up words, in a clone: `dvc repro` must do what is out of date, and no more.
# Commits count, changes that are not committed do not. Takes minutes; needs dvc, earmark-train and the packages of [dev].
set -euo pipefail
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export DVC_NO_ANALYTICS=1 DVC_SITE_CACHE_DIR=$scratch/site

git clone --quiet . "$scratch/earmark"
cd "$scratch/earmark"
export PYTHONPATH=$PWD/protos:$PWD/server:$PWD/client:$PWD/training
git config user.name Pipeline
git config user.email pipeline@example.org

step() { printf '\n== %s (%ss)\n' "$1" "$SECONDS"; }
fail() {
  echo "$*" >&2
  exit 1
}
set_parameter() { sed -i "s/^  $1: .*/  $1: $2/" params.yaml; }
# ran EXPECTED...: run what is out of date; it must be these stages.
ran() {
  dvc repro | tee "$scratch/output"
  local stages
  stages=$(sed -n "s/^Running stage '\(.*\)':$/\1/p" "$scratch/output" | xargs)
  [ "$stages" = "$*" ] || fail "It ran: ${stages:-nothing}. It should have run: ${*:-nothing}."
}

step "a few made-up words"
PYTHONPATH=tests:$PYTHONPATH python - <<'PYTHON'
from pathlib import Path
from support.synthetic_words import BANANA, COMPUTER, LEMON, write_clips, write_speech
write_clips(Path("data/speech_commands"), {"computer": COMPUTER, "banana": BANANA, "lemon": LEMON}, people=20)
write_speech(Path("data/LibriSpeech"), speakers=10, utterances=4)
PYTHON
set_parameter preset quick
set_parameter epochs 1
set_parameter keywords computer,banana

step "all of it"
ran prepare train export evaluate
git add --all
[ -z "$(git ls-files data runs)" ] || fail "Data or a model would have been committed: $(git ls-files data runs)"
git commit --quiet --message "The made-up words' model"

step "nothing changed"
ran

step "another operating point: no training"
set_parameter fa-per-hour 20.0
ran export evaluate
dvc params diff
dvc metrics diff
[ -n "$(dvc metrics diff)" ] || fail "The figures of two models are the same."

step "a module that no stage's training uses changed: no training"
echo "# a change" >>training/earmark_training/reporting/report.py
ran export evaluate

step "done"
