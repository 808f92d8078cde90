#!/usr/bin/env bash
# Run the training pipeline on synthetic words, in a clone: `dvc repro` must run the stages that are out of date, no others.
# Uses the committed state only. Takes minutes; needs dvc, earmark-train and the extra [dev].
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
# expect_stages STAGE...: run the stages that are out of date, and fail if they are not exactly these.
expect_stages() {
  dvc repro | tee "$scratch/output"
  local stages
  stages=$(sed -n "s/^Running stage '\(.*\)':$/\1/p" "$scratch/output" | xargs)
  [ "$stages" = "$*" ] || fail "dvc ran the stages: ${stages:-none}. Expected: ${*:-none}."
}

step "synthetic words"
PYTHONPATH=tests:$PYTHONPATH python - <<'PYTHON'
from pathlib import Path
import numpy as np, soundfile
from support.synthetic_words import BANANA, COMPUTER, LEMON, write_clips, write_speech
write_clips(Path("data/speech_commands"), {"computer": COMPUTER, "banana": BANANA, "lemon": LEMON}, people=20)
write_speech(Path("data/LibriSpeech"), speakers=10, utterances=4)
for kind in ("noise", "music"):
    Path("data", kind).mkdir()
    for i in range(8):
        sound = np.random.default_rng(i).normal(0, 0.1, 5 * 16_000).cumsum() % 0.2 - 0.1
        soundfile.write(f"data/{kind}/{i}.flac", sound, 16_000)
PYTHON
set_parameter preset quick
set_parameter epochs 1
set_parameter keywords computer,banana
set_parameter passes 1
set_parameter examples 640
set_parameter encoded-steps 20

step "all stages"
expect_stages recordings prepare train export verifier evaluate
git add --all
[ -z "$(git ls-files data runs)" ] || fail "git would commit data or a model: $(git ls-files data runs)"
git commit --quiet --message "The model of the synthetic words"

step "nothing changed"
expect_stages

step "another operating point: no training"
set_parameter fa-per-hour 20.0
expect_stages export verifier evaluate
dvc params diff
dvc metrics diff
[ -n "$(dvc metrics diff)" ] || fail "The metrics of both models are the same."

step "a module that training does not use changed: no training"
echo "# a change" >>training/earmark_training/reporting/report.py
expect_stages export verifier evaluate

step "done"
