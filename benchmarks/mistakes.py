"""Measure learning from mistakes: ten reviewed false alarms, and the false alarms in another recording.

    python -m benchmarks.mistakes --words DIR --speech DIR --out DIR [--only computer] [--programmes 4]
                                  [--review-only]

--words is a folder with one folder of recordings per word, --speech read speech in LibriSpeech's layout.
A programme is five readers in one place: a room with a television or without. Its first recording has half of
what they read, its second recording the other half. For every word and programme:

1. `earmark-train keyword` makes a model from N recordings of the word and the speech of other readers,
2. `earmark spot --clips` writes the clips of its ten false alarms in the first recording (the threshold is
   lowered or raised so that there are ten, or all that the verifier has scored), and `earmark review` marks
   them as wrong. It states the threshold that two thirds of them would not have reached,
3. `earmark-train keyword --mistakes` makes the second model,
4. both models spot the word in the second recording, and in the other recordings of the word, which were
   spoken in the same place: alone, and 10 dB above the programme.

With --review-only there are no second models, so there is one training per word, and the row is shorter.
Prints one Markdown row per word and programme, and the sum:

| column | meaning |
|---|---|
| reviewed | the false alarms of the first recording that were reviewed |
| false alarms | of the first model in the second recording, at the threshold of step 2 |
| review's threshold | of the first model there, at the threshold of the review |
| same threshold | false alarms of the second model there, at the same threshold |
| same recall | false alarms of the second model there, at the threshold that detects as many of the words |
| recall | of the first model, of it at the review's threshold, and of the second one at the same threshold |
| own threshold | false alarms and recall of both, each at the threshold that was chosen for it |
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile
from earmark_audio.endpointing import locate_word
from earmark_cli.review.reviewed_clips import read_clips
from earmark_cli.review.thresholds import raised_threshold
from earmark_spotter import SpotterModel, final_scores
from earmark_training.data.augment import synthetic_sound
from earmark_training.data.corpus import SAMPLE_RATE_HZ, SourceFile, find_speech, read_audio, speech_split
from earmark_training.data.rooms import draw_room, impulse_response, reverberate
from earmark_training.data.surroundings import at_level_of, loudspeaker
from earmark_training.evaluation.peaks import find_peaks
from earmark_training.keyword.negatives import contains_keyword
from earmark_training.keyword.recordings import find_audio

from benchmarks.loadgen.server_process import running_server

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

MISTAKES = 10
_READERS, _NEGATIVE_READERS, _TEST_RECORDINGS = 5, 15, 150
_MUSIC_DB, _ABOVE_PROGRAMME_DB = 15.0, 10.0
_RT60_S, _DISTANCE_M = (0.3, 0.6), (1.0, 3.5)
_SEED = 71
_SUMMED = ("hours", "reviewed", "false alarms", "review's threshold")
_SUMMED_OF_SECOND = ("same threshold", "same recall")


@dataclass(frozen=True)
class Place:
    """A room, from whose loudspeaker a programme comes, or in which the readers are themselves."""

    response: Samples
    seed: int
    has_television: bool

    def play(self, samples: Samples) -> Samples:
        """Return a programme as it is recorded here; every recording through the same loudspeaker."""
        rng = np.random.default_rng(self.seed)
        if self.has_television:
            music = np.resize(synthetic_sound(rng, 60 * SAMPLE_RATE_HZ), len(samples))
            power = np.square(samples).mean() / np.square(music).mean() / 10 ** (_MUSIC_DB / 10)
            samples = loudspeaker(rng, samples + music * np.float32(np.sqrt(power)))
        return self.speak(samples)

    def speak(self, samples: Samples) -> Samples:
        """Return the voice of a person here."""
        return at_level_of(samples, reverberate(samples, self.response))


@dataclass(frozen=True)
class Measured:
    """The peaks of the keyword's score in the second recording, and the highest score of each word."""

    peaks: NDArray[np.float64]
    words: NDArray[np.float64]

    def alarms(self, threshold: float) -> int:
        """Return the number of false alarms."""
        return int((self.peaks >= threshold).sum())

    def recall(self, threshold: float) -> float:
        """Return the share of the words that are detected."""
        return float((self.words >= threshold).mean())

    def threshold_with(self, recall: float) -> float:
        """Return the highest threshold with at least this recall."""
        ranked = np.sort(self.words)[::-1]
        return float(ranked[max(0, round(recall * len(ranked)) - 1)])


def main() -> int:
    args = _arguments()
    words = sorted(p for p in args.words.iterdir() if p.is_dir() and (not args.only or p.name in args.only))
    if not words:
        print(f"{args.words} has no folders of recordings: it needs one folder per word", file=sys.stderr)
        return 1
    args.out.mkdir(parents=True, exist_ok=True)
    columns = ["word", "programme", *_SUMMED, "recall"]
    if not args.review_only:
        columns[-1:] = [*_SUMMED_OF_SECOND, "recall", "own threshold"]
    print(f"| {' | '.join(columns)} |")
    print("|---" * len(columns) + "|")
    rows = [_measure(word, number, args) for word in words for number in range(args.programmes)]
    hours, *counts = np.sum(rows, axis=0)
    rest = [""] * (len(columns) - 3 - len(counts))
    print(f"| all | | {hours:.1f} | {' | '.join([*(f'{count:.0f}' for count in counts), *rest])} |")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--words", type=Path, required=True, help="a folder with one folder of recordings per word"
    )
    parser.add_argument("--speech", type=Path, required=True, help="read speech in the layout of LibriSpeech")
    parser.add_argument("--out", type=Path, required=True, help="folder for recordings, clips and models")
    parser.add_argument(
        "--only", action="append", metavar="WORD", help="measure this word only; may be repeated"
    )
    parser.add_argument("--recordings", type=int, default=20, help="recordings to train on (default: 20)")
    parser.add_argument("--programmes", type=int, default=4, help="programmes of each word (default: 4)")
    parser.add_argument("--review-only", action="store_true", help="measure the review's threshold alone")
    return parser.parse_args()


def _readers(speech: Path, keyword: str) -> list[list[SourceFile]]:
    """Return the utterances of each reader, those first that the bundled model was not trained on."""
    by_reader: dict[str, list[SourceFile]] = {}
    for file in find_speech(speech):
        if not contains_keyword(file.text, keyword):
            by_reader.setdefault(file.speaker, []).append(file)
    names = sorted(by_reader, key=lambda n: hashlib.sha256(n.encode()).hexdigest())
    names.sort(key=lambda n: speech_split(n) != "validation")
    return [by_reader[name] for name in names]


def _measure(word: Path, number: int, args: argparse.Namespace) -> list[float]:
    """Measure a word beside a programme, print the row, and return what is summed."""
    readers = _readers(args.speech, word.name)
    first = number * _READERS
    rng = np.random.default_rng((_SEED, number))
    room = draw_room(rng, _RT60_S, _DISTANCE_M)
    place = Place(impulse_response(rng, room), number, number % 2 == 0)
    halves = _halves(readers[first : first + _READERS], rng)
    seen, second = (place.play(_joined(half, rng)) for half in halves)
    training, test = _split(word, args)
    negatives = _negatives(readers[-_NEGATIVE_READERS:], args)

    before = _train(word.name, training, negatives, args.out / f"{word.name}.onnx")
    name = f"{word.name}-{number}"
    recording = args.out / f"{name}.wav"
    soundfile.write(recording, seen, SAMPLE_RATE_HZ)
    model = SpotterModel.load(before)
    peaks = np.sort(find_peaks(model.metadata, final_scores(model, read_audio(recording)), word.name)[1])
    threshold = float(peaks[-MISTAKES:][0])
    clips = args.out / f"{name}-clips"
    _review(before, recording, clips, word.name, threshold)
    wrong = [clip.fields["confidence"] for clip in read_clips(clips)]
    raised = raised_threshold(wrong)
    old = _score(before, second, test, place, word.name)
    sums = [len(second) / SAMPLE_RATE_HZ / 3600, len(wrong), old.alarms(threshold), old.alarms(raised)]
    recalls = [old.recall(threshold), old.recall(raised)]
    own = []
    if not args.review_only:
        after = _train(word.name, training, negatives, args.out / f"{name}.onnx", clips)
        new = _score(after, second, test, place, word.name)
        sums += [new.alarms(threshold), new.alarms(new.threshold_with(old.recall(threshold)))]
        recalls.append(new.recall(threshold))
        own = [_at_own_threshold(before, old, after, new)]
    hours, *counts = sums
    cells = [
        word.name, f"{number}, {'television' if place.has_television else 'room'}", f"{hours:.2f}",
        *map(str, counts), ", ".join(f"{recall:.1%}" for recall in recalls), *own,
    ]  # fmt: skip
    print(f"| {' | '.join(cells)} |", flush=True)
    return sums


def _at_own_threshold(before: Path, old: Measured, after: Path, new: Measured) -> str:
    """Return the false alarms and the recall of both models, each at the threshold chosen for it."""
    first, second = (
        next(iter(SpotterModel.load(path).metadata.keywords.values())).threshold for path in (before, after)
    )
    return f"{old.alarms(first)} → {new.alarms(second)}, {old.recall(first):.1%} → {new.recall(second):.1%}"


def _halves(
    readers: Sequence[list[SourceFile]], rng: np.random.Generator
) -> tuple[list[SourceFile], list[SourceFile]]:
    halves: tuple[list[SourceFile], list[SourceFile]] = ([], [])
    for files in readers:
        middle = len(files) // 2
        halves[0].extend(files[:middle])
        halves[1].extend(files[middle:])
    for half in halves:
        rng.shuffle(half)  # type: ignore[arg-type]
    return halves


def _joined(files: Sequence[SourceFile], rng: np.random.Generator) -> Samples:
    pieces: list[Samples] = []
    for file in files:
        pieces += [read_audio(file.path), np.zeros(int(rng.uniform(0.2, 1.0) * SAMPLE_RATE_HZ), np.float32)]
    return np.concatenate(pieces)


def _split(word: Path, args: argparse.Namespace) -> tuple[Path, list[Path]]:
    """Return a folder with the recordings to train on, and the files of the others."""
    files, _ = find_audio(word)
    files.sort(key=lambda p: hashlib.sha256(p.read_bytes()).hexdigest())
    folder = args.out / f"{word.name}-recordings"
    _link(files[: args.recordings], folder, word)
    return folder, files[args.recordings :][:_TEST_RECORDINGS]


def _negatives(readers: Sequence[list[SourceFile]], args: argparse.Namespace) -> Path:
    folder = args.out / "negatives"
    for files in readers:
        paths = [file.path for file in files]
        _link([*paths, *{t for p in paths for t in p.parent.glob("*.trans.txt")}], folder, args.speech)
    return folder


def _link(paths: Sequence[Path], folder: Path, root: Path) -> None:
    for path in paths:
        link = folder / path.relative_to(root)
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to(path.resolve())


def _train(word: str, recordings: Path, negatives: Path, out: Path, mistakes: Path | None = None) -> Path:
    if not out.exists():
        command = ["earmark_training", "keyword", word, "--recordings", str(recordings)]
        command += ["--negatives", str(negatives), "--quick", "--out", str(out)]
        _run(*command, *(["--mistakes", str(mistakes)] if mistakes else []))
    return out


def _review(model: Path, recording: Path, clips: Path, word: str, threshold: float) -> None:
    """Write the clips of the false alarms, and mark each of them as wrong, as `earmark review` does."""
    if not clips.exists():
        with running_server(model, None) as server:
            command = ["earmark_cli", "spot", str(recording), "--server", server.address]
            _run(*command, "--keyword", f"{word}={threshold:.6f}", "--clips", str(clips))
        for clip in read_clips(clips):
            clip.judge("wrong")


def _run(*command: str) -> None:
    subprocess.run([sys.executable, "-m", *command], stdout=sys.stderr, check=True)


def _score(path: Path, recording: Samples, test: Sequence[Path], place: Place, word: str) -> Measured:
    model = SpotterModel.load(path)
    keyword = model.metadata.keyword_indices[0]
    words = []
    rng = np.random.default_rng(_SEED)
    for file in test:
        samples = read_audio(file)
        start, end = locate_word(samples, SAMPLE_RATE_HZ) or (0, len(samples))
        spoken = place.speak(np.pad(samples, SAMPLE_RATE_HZ))
        power = np.square(samples[start:end]).mean() / 10 ** (_ABOVE_PROGRAMME_DB / 10)
        begin = int(rng.integers(len(recording) - len(spoken)))
        beside = recording[begin : begin + len(spoken)]
        mixed = spoken + beside * np.float32(np.sqrt(power / (np.square(beside).mean() + 1e-9)))
        words += [final_scores(model, np.clip(s, -1, 1))[:, keyword].max() for s in (spoken, mixed)]
    peaks = find_peaks(model.metadata, final_scores(model, recording), word)[1]
    return Measured(peaks.astype(np.float64), np.array(words, np.float64))


if __name__ == "__main__":
    sys.exit(main())
