#!/usr/bin/env bash
# Say how to get the recordings of the training pipeline, if a folder of them is missing.
#   scripts/need_recordings.sh CLIPS SPEECH NOISE MUSIC
set -euo pipefail
for folder in "$@"; do
  [ -d "$folder" ] && continue
  cat >&2 <<TEXT
$folder is missing. The pipeline reads four folders, which params.yaml names:
  $1: clips of single words, <word>/<speaker>_nohash_<n>.wav. Google Speech Commands:
    earmark-train prepare --download data
  $2: read speech in LibriSpeech's layout:
    earmark-train negatives data
  $3, $4: recordings of noise, and of music without singing (WAV, FLAC, Ogg or MP3),
    such as those of https://www.openslr.org/17/; or remove these two lines from params.yaml and dvc.yaml
Or link folders that you have: ln -s /path/to/clips $1
TEXT
  exit 1
done
