#!/usr/bin/env bash
# Train a model in the trainer image: download Speech Commands and LibriSpeech dev-clean, prepare, train, export, evaluate.
#   scripts/train_in_image.sh IMAGE [OPTION OF earmark-train train]...      such as --preset quick --epochs 1
# Writes model.onnx and run/ to $OUT (default: trained/). Downloads recordings to $DATA (default: data/) unless it
# contains speech_commands/.
set -euo pipefail
[ $# -ge 1 ] || { sed -n '3,5s/^# //p' "$0" >&2; exit 2; }
image=$1
shift
docker=${DOCKER:-docker}
# The image has no Git history, so the commit for the model's metadata is passed in.
commit=$(git -C "$(dirname "$0")" describe --always --abbrev=12 --dirty --match= 2>/dev/null || echo unknown)
mkdir -p "${OUT:=trained}" "${DATA:=data}"
inside() { # runs as the current user, who owns the folders
  "$docker" run --rm --user "$(id -u):$(id -g)" --env TRAIN=1 --env HOME=/tmp --env "EARMARK_COMMIT=$commit" \
    --volume "$(realpath "$OUT"):/models" --volume "$(realpath "$DATA"):/data" "$@"
}
if [ ! -d "$DATA/speech_commands" ]; then
  inside --entrypoint python "$image" -c '
from torchaudio.datasets import LIBRISPEECH, SPEECHCOMMANDS
SPEECHCOMMANDS("/data", download=True)
LIBRISPEECH("/data", url="dev-clean", download=True)'
  rm -f "$DATA"/*.tar.gz
  mv "$DATA/SpeechCommands/speech_commands_v0.02" "$DATA/speech_commands"
fi
inside "$image" "$@"
