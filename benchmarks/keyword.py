"""How well a word of one's own is heard, by how many recordings of it there are.

    python -m benchmarks.keyword --words DIR --speech DIR [--sizes 10,30,100,300] [--only computer]
                                 [--synthesize] [--base FILE]

DIR of --words has a folder of recordings for each word. Of every word's recordings, in an order that
their content decides, the first N are taught and the rest heard afterwards (for 300 of 411, 111), through
the served model. --speech is read speech in LibriSpeech's layout: two thirds of its speakers are the
negatives, the others are heard for false alarms. Prints a Markdown table:

| column | meaning |
|---|---|
| missed | of the recordings that were not taught, at the model's own threshold |
| false alarms per hour | of the speakers that were not taught, at the model's own threshold |
| missed at 0.5 | the same, had the threshold been set for 0.5 false alarms per hour of those speakers |
| minutes | how long teaching took, without the checks that only the command's report needs |
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
from earmark_training.evaluation.operating_point import detect
from earmark_training.evaluation.peaks import LOWEST_PEAK, find_peaks
from earmark_training.keyword.command import Request, teach
from earmark_training.keyword.fine_tune import Tuning
from earmark_training.keyword.negatives import holds
from earmark_training.keyword.recordings import find_audio

TEST_SHARE = 1 / 3
TARGET = 0.5


def main() -> int:
    args = _arguments()
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    words = sorted(p for p in args.words.iterdir() if p.is_dir() and (not args.only or p.name in args.only))
    if not words:
        print(f"{args.words} holds no folders of recordings", file=sys.stderr)
        return 1
    print("| word | recordings | missed | false alarms per hour | missed at 0.5 | minutes |")
    print("|---|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        negatives = Path(folder) / "negatives"
        test_speech = _share_speakers(args.speech, negatives)
        for word in words:
            for size in args.sizes:
                line = _measure(
                    word,
                    size,
                    negatives=negatives,
                    test_speech=test_speech,
                    folder=Path(folder),
                    args=args,
                )
                print(line, flush=True)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--words", type=Path, required=True, help="a folder of recordings for each word")
    parser.add_argument("--speech", type=Path, required=True, help="read speech in LibriSpeech's layout")
    parser.add_argument(
        "--sizes", type=lambda text: [int(n) for n in text.split(",")], default=[10, 30, 100, 300],
        help="how many recordings to teach",
    )  # fmt: skip
    parser.add_argument("--only", action="append", metavar="WORD", help="not all words; repeatable")
    parser.add_argument("--synthesize", action="store_true", help="with synthesized voices")
    parser.add_argument("--base", type=Path, help="begin with this model")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def _share_speakers(speech: Path, negatives: Path) -> list[SourceFile]:
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
    """Teach the first `size` recordings, hear the rest, and return the table's line."""
    files, _ = find_audio(word)
    files.sort(key=lambda p: hashlib.sha256(p.read_bytes()).hexdigest())
    taught = folder / f"{word.name}-{size}"
    taught.mkdir()
    for path in files[:size]:
        (taught / path.name).symlink_to(path.resolve())
    begun = time.monotonic()
    request = Request(
        word.name, taught, folder / f"{word.name}-{size}.onnx", (negatives,),
        synthesize="en" if args.synthesize else None, base=args.base, fa_per_hour=TARGET, checks=0,
        tuning=Tuning(seed=args.seed),
    )  # fmt: skip
    model = teach(request)
    minutes = (time.monotonic() - begun) / 60
    meta = model.metadata
    (threshold,) = (info.threshold for info in meta.keywords.values())
    # A second of silence on either side: what is cut off at a file's end is nobody's miss.
    said = [_best(model, np.pad(read_audio(path), SAMPLE_RATE_HZ)) for path in files[size:]]
    alarms, peaks, seconds = 0, [], 0.0
    for file in test_speech:
        if not holds(file.text, word.name):
            samples = read_audio(file.path)
            seconds += len(samples) / SAMPLE_RATE_HZ
            scores = score_recording(model, samples)
            alarms += len(detect(meta, scores))
            peaks += find_peaks(meta, scores, word.name)[1].tolist()
    hours = seconds / 3600
    # The peak that would be the first alarm too many; lower ones than LOWEST_PEAK are not collected.
    ranked = sorted(peaks, reverse=True)
    fair = ranked[int(TARGET * hours)] if len(ranked) > int(TARGET * hours) else LOWEST_PEAK
    return (
        f"| {word.name} | {size} | {100 * np.mean([s < threshold for s in said]):.1f}% of {len(said)} "
        f"| {alarms / hours:.2f} in {hours:.1f} h | {100 * np.mean([s <= fair for s in said]):.1f}% "
        f"| {minutes:.1f} |"
    )


def _best(model: SpotterModel, samples: np.ndarray) -> float:
    """Return the keyword's highest score in a recording."""
    return float(score_recording(model, samples)[:, model.metadata.keyword_indices[0]].max())


if __name__ == "__main__":
    sys.exit(main())
