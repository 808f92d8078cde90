"""Measure custom keywords: the miss rate and false alarms in each condition, by the number of recordings.

    python -m benchmarks.custom_keyword --words DIR --speech DIR --corpus DIR [--sizes 0,10,100] [--draws 3]
                                        [--only computer] [--together] [--voices DIR] [--test-speech DIR]
                                        [--base FILE] [--keep DIR]

--words is a folder with one folder of recordings per word. For every word and size, N recordings are drawn
at random for training, and the others are the test; each draw has its own recordings and its own seed.
--speech is read speech in the layout of LibriSpeech: half of the speakers that the bundled model was
validated on measure false alarms, the others are negatives for the training. --corpus is a prepared corpus,
whose validation noises, music and talkers make the conditions. With --together, one model has all words.
Prints one Markdown row per word of each model:

| column | meaning |
|---|---|
| missed at 0.5, 2/h | of the test recordings, at 0.5 and at 2 false alarms per hour in each condition |
| missed | of the test recordings in each condition, at the model's calibrated threshold |
| false alarms | per hour of the readers in each condition, at the model's calibrated threshold |
| minutes | the training time of the model, without the checks that only the command's report needs |
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import sys
import tempfile
import time
from collections import Counter
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
        for group in [words] if args.together else [[word] for word in words]:
            for size in args.sizes:
                for draw in range(args.first_draw, args.first_draw + args.draws):
                    for row in _measure(group, size, draw, test, Path(folder), args):
                        print(row, flush=True)
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
        "--first-draw", type=int, default=0, metavar="N",
        help="number of the first draw, to go on with earlier ones (default: 0)",
    )  # fmt: skip
    parser.add_argument(
        "--only", action="append", metavar="WORD", help="measure this word only; may be repeated"
    )
    parser.add_argument("--together", action="store_true", help="make one model of all words")
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
    words: list[Path], size: int, draw: int, test: Test, folder: Path, args: argparse.Namespace
) -> list[str]:
    """Train a model on `size` recordings of each word, test on the rest, and return the rows of the table."""
    keywords = [word.name for word in words]
    name = f"{'-'.join(keywords)}-{size}-{draw}"
    training: dict[str, Path | None] = {}
    others: dict[str, list[Path]] = {}
    for word in words:
        files, _ = find_audio(word)
        files.sort(key=lambda p: hashlib.sha256(p.read_bytes()).hexdigest())
        order = np.random.default_rng(draw).permutation(len(files))
        recordings = folder / name / word.name
        recordings.mkdir(parents=True)
        for i in order[:size]:
            (recordings / files[i].name).symlink_to(files[i].resolve())
        training[word.name] = recordings if size else None
        others[word.name] = [files[i] for i in order[size:]]
    voices = None
    if args.voices:
        voices = NeuralVoices(
            Kokoro(args.voices, args.cache),
            "en",
            {k: pronounce([k], "en")[0] for k in keywords},
            {k: accents(k, "en") for k in keywords},
        )
    begin_s = time.monotonic()
    request = KeywordRequest(
        training, (args.keep or folder) / f"{name}.onnx", (test.negatives,),
        voices=voices, base=args.base, fa_per_hour=TARGET_FA_PER_HOUR, folds=0,
        recipe=FineTuneRecipe(seed=draw + 1) if args.base else head_recipe(draw + 1),
    )  # fmt: skip
    model = create_model(request)
    minutes = (time.monotonic() - begin_s) / 60
    columns: dict[str, list[list[str]]] = {k: [[], [], []] for k in keywords}
    hours = dict.fromkeys(keywords, 0.0)
    for condition in test.conditions:
        rng = np.random.default_rng(_SEED)
        scores = {
            k: np.array([_best_score(model, path, k, condition, test.scene, rng) for path in paths])
            for k, paths in others.items()
        }
        for k, (read_hours, count, peaks) in _false_alarms(model, condition, test, rng).items():
            hours[k] = read_hours
            ranked = sorted(peaks, reverse=True)
            # The highest peak beyond the allowed number. Peaks below LOWEST_PEAK are not collected.
            ceilings = [
                ranked[n] if len(ranked) > (n := int(rate * read_hours)) else LOWEST_PEAK
                for rate in RATES_PER_HOUR
            ]
            threshold = model.metadata.keywords[k].threshold
            missed_at, missed, alarms = columns[k]
            missed_at.append(", ".join(f"{100 * (scores[k] <= c).mean():.1f}%" for c in ceilings))
            missed.append(f"{100 * (scores[k] < threshold).mean():.1f}%")
            alarms.append(f"{count / read_hours:.1f}")
    measured = {k: " | ".join(" / ".join(column) for column in columns[k]) for k in keywords}
    return [f"| {k} | {size} | {draw} | {measured[k]} | {hours[k]:.1f} | {minutes:.1f} |" for k in keywords]


def _false_alarms(
    model: SpotterModel, condition: Condition, test: Test, rng: np.random.Generator
) -> dict[str, tuple[float, int, list[float]]]:
    """Return the hours of the test speech, the detections in it, and the scores of the peaks, by keyword.

    An utterance with a keyword in its transcript is left out for this keyword.
    """
    meta = model.metadata
    samples_read, count = Counter[str](), Counter[str]()
    peaks: dict[str, list[float]] = {k: [] for k in meta.keyword_names}
    for file in test.speech:
        absent = {k for k in meta.keyword_names if not contains_keyword(file.text, k)}
        samples = read_audio(file.path)
        changed = condition.change(test.scene, rng, samples, float(np.square(samples).mean()))
        scores = final_scores(model, changed)
        count.update(d.keyword for d in detect(meta, scores) if d.keyword in absent)
        for k in absent:
            samples_read[k] += len(samples)
            peaks[k] += find_peaks(meta, scores, k)[1].tolist()
    return {k: (samples_read[k] / SAMPLE_RATE_HZ / 3600, count[k], peaks[k]) for k in meta.keyword_names}


def _best_score(  # noqa: PLR0917
    model: SpotterModel,
    path: Path,
    keyword: str,
    condition: Condition,
    scene: Scene,
    rng: np.random.Generator,
) -> float:
    """Return the keyword's highest score in a recording, with a second of silence on both sides."""
    samples = read_audio(path)
    start, end = locate_word(samples, SAMPLE_RATE_HZ) or (0, len(samples))
    power = float(np.square(samples[start:end]).mean())
    changed = condition.change(scene, rng, np.pad(samples, SAMPLE_RATE_HZ), power)
    return float(final_scores(model, changed)[:, model.metadata.labels.index(keyword)].max())


if __name__ == "__main__":
    sys.exit(main())
