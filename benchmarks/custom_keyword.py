"""Measure the miss rate of a custom keyword, by the number of recordings that it is trained on.

    python -m benchmarks.custom_keyword --words DIR --speech DIR [--sizes 10,30,100,300] [--only computer]
                                        [--synthesize] [--base FILE]

--words is a folder with one folder of recordings per word. For every word, the first N recordings are used
for training and the rest for the test (with N = 300 of 411, 111 for the test). The order of the recordings
depends on their content only. --speech is read speech in the layout of LibriSpeech: two thirds of its
speakers are negatives for the training, the others measure false alarms. Prints a Markdown table:

| column | meaning |
|---|---|
| miss rate | of the test recordings, at the model's calibrated threshold |
| false alarms per hour | of the test speakers, at the model's calibrated threshold |
| miss rate at 0.5 FA/h | of the test recordings, at the threshold with 0.5 false alarms per hour of the
test speakers |
| minutes | the training time, without the checks that only the command's report needs |
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from earmark_spotter import SpotterModel, score_recording
from earmark_training.data.corpus import SAMPLE_RATE_HZ, SourceFile, find_speech, read_audio
from earmark_training.evaluation.detections import detect
from earmark_training.evaluation.peaks import LOWEST_PEAK, find_peaks
from earmark_training.keyword.fine_tune import FineTuneRecipe
from earmark_training.keyword.negatives import contains_keyword
from earmark_training.keyword.pipeline import KeywordRequest, create_model
from earmark_training.keyword.recordings import find_audio

TEST_SHARE = 1 / 3
TARGET_FA_PER_HOUR = 0.5


def main() -> int:
    args = _arguments()
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    words = sorted(p for p in args.words.iterdir() if p.is_dir() and (not args.only or p.name in args.only))
    if not words:
        print(f"{args.words} has no folders of recordings: it needs one folder per word", file=sys.stderr)
        return 1
    print("| word | recordings | miss rate | false alarms per hour | miss rate at 0.5 FA/h | minutes |")
    print("|---|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        negatives = Path(folder) / "negatives"
        test_speech = _split_speakers(args.speech, negatives)
        for word in words:
            for size in args.sizes:
                row = _measure(
                    word,
                    size,
                    negatives=negatives,
                    test_speech=test_speech,
                    folder=Path(folder),
                    args=args,
                )
                print(row, flush=True)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--words", type=Path, required=True, help="a folder with one folder of recordings per word"
    )
    parser.add_argument("--speech", type=Path, required=True, help="read speech in the layout of LibriSpeech")
    parser.add_argument(
        "--sizes", type=lambda text: [int(n) for n in text.split(",")], default=[10, 30, 100, 300],
        help="numbers of training recordings (default: 10,30,100,300)",
    )  # fmt: skip
    parser.add_argument(
        "--only", action="append", metavar="WORD", help="measure this word only; may be repeated"
    )
    parser.add_argument("--synthesize", action="store_true", help="also train on synthesized speech")
    parser.add_argument("--base", type=Path, help="the model to fine-tune (default: the bundled model)")
    parser.add_argument("--seed", type=int, default=1, help="the random seed of the training (default: 1)")
    return parser.parse_args()


def _split_speakers(speech: Path, negatives: Path) -> list[SourceFile]:
    """Link two thirds of the speakers' files below `negatives`; return the other speakers' utterances."""
    audio = list(find_speech(speech))
    speakers = sorted({f.speaker for f in audio}, key=lambda s: hashlib.sha256(s.encode()).hexdigest())
    test = set(speakers[: round(TEST_SHARE * len(speakers))])
    for file in audio:
        if file.speaker not in test:
            for path in (file.path, *file.path.parent.glob("*.trans.txt")):
                link = negatives / path.relative_to(speech)
                if not link.exists():
                    link.parent.mkdir(parents=True, exist_ok=True)
                    link.symlink_to(path.resolve())
    return [f for f in audio if f.speaker in test]


def _measure(
    word: Path,
    size: int,
    *,
    negatives: Path,
    test_speech: list[SourceFile],
    folder: Path,
    args: argparse.Namespace,
) -> str:
    """Train on the first `size` recordings, test on the rest, and return the row of the table."""
    files, _ = find_audio(word)
    files.sort(key=lambda p: hashlib.sha256(p.read_bytes()).hexdigest())
    training = folder / f"{word.name}-{size}"
    training.mkdir()
    for path in files[:size]:
        (training / path.name).symlink_to(path.resolve())
    begin_s = time.monotonic()
    request = KeywordRequest(
        word.name, training, folder / f"{word.name}-{size}.onnx", (negatives,),
        synthesize="en" if args.synthesize else None, base=args.base, fa_per_hour=TARGET_FA_PER_HOUR,
        folds=0, recipe=FineTuneRecipe(seed=args.seed),
    )  # fmt: skip
    model = create_model(request)
    minutes = (time.monotonic() - begin_s) / 60
    meta = model.metadata
    (threshold,) = (info.threshold for info in meta.keywords.values())
    # With a second of silence on both sides, a word that touches the end of its file is not missed for that
    # reason.
    word_scores = [_best_score(model, np.pad(read_audio(path), SAMPLE_RATE_HZ)) for path in files[size:]]
    alarms, peaks, seconds = 0, [], 0.0
    for file in test_speech:
        if not contains_keyword(file.text, word.name):
            samples = read_audio(file.path)
            seconds += len(samples) / SAMPLE_RATE_HZ
            scores = score_recording(model, samples)
            alarms += len(detect(meta, scores))
            peaks += find_peaks(meta, scores, word.name)[1].tolist()
    hours = seconds / 3600
    # The highest peak beyond the allowed number of false alarms. Peaks below LOWEST_PEAK are not collected.
    ranked = sorted(peaks, reverse=True)
    target_threshold = (
        ranked[int(TARGET_FA_PER_HOUR * hours)]
        if len(ranked) > int(TARGET_FA_PER_HOUR * hours)
        else LOWEST_PEAK
    )
    miss_rate = np.mean([score < threshold for score in word_scores])
    target_miss_rate = np.mean([score <= target_threshold for score in word_scores])
    return (
        f"| {word.name} | {size} | {100 * miss_rate:.1f}% of {len(word_scores)} "
        f"| {alarms / hours:.2f} in {hours:.1f} h | {100 * target_miss_rate:.1f}% | {minutes:.1f} |"
    )


def _best_score(model: SpotterModel, samples: np.ndarray) -> float:
    """Return the keyword's highest score in a recording."""
    return float(score_recording(model, samples)[:, model.metadata.keyword_indices[0]].max())


if __name__ == "__main__":
    sys.exit(main())
