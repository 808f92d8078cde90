"""Measure custom keywords: the miss rate and false alarms in each condition, by the number of recordings.

    python -m benchmarks.custom_keyword --words DIR --speech DIR --corpus DIR [--sizes 0,10,100] [--draws 3]
                                        [--only computer] [--voices DIR] [--test-speech DIR] [--base FILE]

--words is a folder with one folder of recordings per word. For every word and size, N recordings are drawn
at random for training, and the others are the test; each draw has its own recordings and its own seed.
--speech is read speech in the layout of LibriSpeech: half of the speakers that the bundled model was
validated on measure false alarms, the others are negatives for the training. --corpus is a prepared corpus,
whose validation noises, music and talkers make the conditions. Prints one Markdown row per model:

| column | meaning |
|---|---|
| missed at 0.5, 2/h | of the test recordings, at 0.5 and at 2 false alarms per hour in each condition |
| missed | of the test recordings in each condition, at the model's calibrated threshold |
| false alarms | per hour of the readers in each condition, at the model's calibrated threshold |
| minutes | the training time, without the checks that only the command's report needs |
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from earmark_audio.endpointing import locate_word
from earmark_spotter import SpotterModel, final_scores
from earmark_training.data.corpus import (
    SAMPLE_RATE_HZ,
    Corpus,
    SourceFile,
    find_speech,
    read_audio,
    speech_split,
)
from earmark_training.evaluation.conditions import CONDITIONS, Condition, Scene
from earmark_training.evaluation.detections import detect
from earmark_training.evaluation.peaks import LOWEST_PEAK, find_peaks
from earmark_training.keyword.fine_tune import FineTuneRecipe
from earmark_training.keyword.head_training import head_recipe
from earmark_training.keyword.kokoro import Kokoro, default_cache
from earmark_training.keyword.negatives import contains_keyword
from earmark_training.keyword.pipeline import KeywordRequest, create_model
from earmark_training.keyword.pronunciation import accents, pronounce
from earmark_training.keyword.recordings import find_audio
from earmark_training.keyword.training_set import NeuralVoices

TARGET_FA_PER_HOUR = 0.5
RATES_PER_HOUR = (TARGET_FA_PER_HOUR, 2)
MEASURED = ("clean", "noise, 10 dB", "babble, 10 dB", "room", "television")
_SEED = 77


@dataclass(frozen=True)
class Test:
    """The sounds that a model is measured on: negatives, speech of other readers, and the conditions."""

    negatives: Path
    speech: list[SourceFile]
    scene: Scene
    conditions: list[Condition]


def main() -> int:
    args = _arguments()
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    words = sorted(p for p in args.words.iterdir() if p.is_dir() and (not args.only or p.name in args.only))
    if not words:
        print(f"{args.words} has no folders of recordings: it needs one folder per word", file=sys.stderr)
        return 1
    print("| word | recordings | draw | missed at 0.5, 2/h: " + " / ".join(MEASURED), end="")
    print(" | missed, same | false alarms per hour, same | hours | minutes |")
    print("|---|---:|---:|---|---|---|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        test = Test(
            Path(folder) / "negatives",
            _split_speakers(args.speech, Path(folder) / "negatives")
            + [f for extra in args.test_speech for f in find_speech(extra)],
            Scene(Corpus(args.corpus)),
            [c for c in CONDITIONS if c.name in MEASURED],
        )
        for word in words:
            for size in args.sizes:
                for draw in range(args.draws):
                    print(_measure(word, size, draw, test, Path(folder), args), flush=True)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--words", type=Path, required=True, help="a folder with one folder of recordings per word"
    )
    parser.add_argument("--speech", type=Path, required=True, help="read speech in the layout of LibriSpeech")
    parser.add_argument("--corpus", type=Path, required=True, help="a prepared corpus, for the conditions")
    parser.add_argument(
        "--test-speech", type=Path, action="append", default=[], metavar="DIR",
        help="more speech of readers that nothing was trained on, with transcripts; repeatable",
    )  # fmt: skip
    parser.add_argument(
        "--sizes", type=lambda text: [int(n) for n in text.split(",")], default=[10, 30, 100],
        help="numbers of training recordings (default: 10,30,100)",
    )  # fmt: skip
    parser.add_argument("--draws", type=int, default=1, help="draws of each size (default: 1)")
    parser.add_argument(
        "--only", action="append", metavar="WORD", help="measure this word only; may be repeated"
    )
    parser.add_argument("--voices", type=Path, help="also train on the neural voices in this folder")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="the cache of their speech")
    parser.add_argument("--base", type=Path, help="fine-tune this model, not the speech embedding's head")
    parser.add_argument("--keep", type=Path, help="folder to keep the models in")
    return parser.parse_args()


def _split_speakers(speech: Path, negatives: Path) -> list[SourceFile]:
    """Link the speakers of the training below `negatives`; return the utterances of the other ones."""
    audio = list(find_speech(speech))
    validation = sorted({f.speaker for f in audio if speech_split(f.speaker) == "validation"})
    validation.sort(key=lambda s: hashlib.sha256(s.encode()).hexdigest())
    test = set(validation[::2])
    for file in audio:
        if file.speaker not in test:
            for path in (file.path, *file.path.parent.glob("*.trans.txt")):
                link = negatives / path.relative_to(speech)
                if not link.exists():
                    link.parent.mkdir(parents=True, exist_ok=True)
                    link.symlink_to(path.resolve())
    return [f for f in audio if f.speaker in test]


def _measure(  # noqa: PLR0917
    word: Path, size: int, draw: int, test: Test, folder: Path, args: argparse.Namespace
) -> str:
    """Train on `size` recordings, test on the rest, and return the row of the table."""
    files, _ = find_audio(word)
    files.sort(key=lambda p: hashlib.sha256(p.read_bytes()).hexdigest())
    order = np.random.default_rng(draw).permutation(len(files))
    name = f"{word.name}-{size}-{draw}"
    training = folder / name
    training.mkdir()
    for i in order[:size]:
        (training / files[i].name).symlink_to(files[i].resolve())
    voices = None
    if args.voices:
        words = pronounce([word.name], "en")[0]
        voices = NeuralVoices(
            Kokoro(args.voices, args.cache), "en", {word.name: words}, {word.name: accents(word.name, "en")}
        )
    begin_s = time.monotonic()
    request = KeywordRequest(
        {word.name: training if size else None}, (args.keep or folder) / f"{name}.onnx", (test.negatives,),
        voices=voices, base=args.base, fa_per_hour=TARGET_FA_PER_HOUR, folds=0,
        recipe=FineTuneRecipe(seed=draw + 1) if args.base else head_recipe(draw + 1),
    )  # fmt: skip
    model = create_model(request)
    minutes = (time.monotonic() - begin_s) / 60
    missed_at, missed, alarms, hours = [], [], [], 0.0
    others = [files[i] for i in order[size:]]
    for condition in test.conditions:
        rng = np.random.default_rng(_SEED)
        scores = np.array([_best_score(model, path, condition, test.scene, rng) for path in others])
        hours, count, peaks = _false_alarms(model, condition, test, rng)
        ranked = sorted(peaks, reverse=True)
        # The highest peak beyond the allowed number. Peaks below LOWEST_PEAK are not collected.
        ceilings = [
            ranked[n] if len(ranked) > (n := int(rate * hours)) else LOWEST_PEAK for rate in RATES_PER_HOUR
        ]
        missed_at.append(", ".join(f"{100 * (scores <= c).mean():.1f}%" for c in ceilings))
        threshold = model.metadata.keywords[word.name].threshold
        missed.append(f"{100 * (scores < threshold).mean():.1f}%")
        alarms.append(f"{count / hours:.1f}")
    return (
        f"| {word.name} | {size} | {draw} | {' / '.join(missed_at)} | {' / '.join(missed)} "
        f"| {' / '.join(alarms)} | {hours:.1f} | {minutes:.1f} |"
    )


def _false_alarms(
    model: SpotterModel, condition: Condition, test: Test, rng: np.random.Generator
) -> tuple[float, int, list[float]]:
    """Return the hours of the test speech, the detections in it, and the scores of the keyword's peaks."""
    (keyword,) = model.metadata.keyword_names
    samples_read, count, peaks = 0, 0, []
    for file in test.speech:
        if not contains_keyword(file.text, keyword):
            samples = read_audio(file.path)
            samples_read += len(samples)
            changed = condition.change(test.scene, rng, samples, float(np.square(samples).mean()))
            scores = final_scores(model, changed)
            count += len(detect(model.metadata, scores))
            peaks += find_peaks(model.metadata, scores, keyword)[1].tolist()
    return samples_read / SAMPLE_RATE_HZ / 3600, count, peaks


def _best_score(
    model: SpotterModel, path: Path, condition: Condition, scene: Scene, rng: np.random.Generator
) -> float:
    """Return the keyword's highest score in a recording, with a second of silence on both sides."""
    samples = read_audio(path)
    start, end = locate_word(samples, SAMPLE_RATE_HZ) or (0, len(samples))
    power = float(np.square(samples[start:end]).mean())
    changed = condition.change(scene, rng, np.pad(samples, SAMPLE_RATE_HZ), power)
    return float(final_scores(model, changed)[:, model.metadata.keyword_indices[0]].max())


if __name__ == "__main__":
    sys.exit(main())
