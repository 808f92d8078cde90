"""Mel features of a corpus, computed once: every recording as it is, and in several augmented variants.

Training mixes sounds as mel power spectra, which is about a hundred times cheaper than mixing waveforms and
computing features for every example. Augmentations that need a waveform (rooms, telephones, speed, clipping)
are applied here, in a few variants of every recording. Those that work on spectra (level, noise, tempo, vocal
tract) are drawn for every example: see `examples`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from earmark_audio.progress import SILENT, Progress

from earmark_training.data import augment, surroundings, tones
from earmark_training.data.corpus import SAMPLE_RATE_HZ, Corpus, Recording, hours
from earmark_training.data.front_end import LOG_FLOOR, LogMel
from earmark_training.data.transcripts import place_words
from earmark_training.errors import CorpusError
from earmark_training.output_files import replace_file, writing
from earmark_training.processes import worker_pool

if TYPE_CHECKING:
    from pathlib import Path

    from earmark_audio.progress import Phase
    from numpy.typing import NDArray

    from earmark_training.data.front_end import FrontEnd

_FLOOR = 2e-9
"""Added to mel energies: far below the network's own floor, so that examples can change their level."""


@dataclass(frozen=True, slots=True)
class Variety:
    """The number of variants of each recording of a kind in one cycle, and how they are made."""

    clip: int = 4
    speech: int = 8
    noise: int = 24
    music: int = 0
    tones: int = 0
    """Number of synthetic pieces of signal tones."""
    rooms: bool = False
    """Whether voices are placed in simulated rooms: see `surroundings`."""


_VARIETIES = (Variety(speech=3), Variety(), Variety(), Variety(2, 2, 4, 1, 180, rooms=True))
"""By training cycle; the last entry is for all later cycles too.

With three variants of the read speech in every cycle, the network had four times as many false alarms on
unknown readers. In the last cycle the examples add rooms of their own.
"""
_SYNTHETIC_SECONDS, _SYNTHETIC_PIECES = 20, 270
_CHUNK = 32


@dataclass(frozen=True, slots=True)
class Item:
    """One variant of a recording in the cache."""

    kind: str
    text: str
    """As in the corpus: the word of a clip, the transcript of speech; empty for a synthetic sound."""
    start: int = 0
    """Its first frame in the cache."""
    frames: int = 0
    words: tuple[tuple[str, int, int], ...] = ()
    """Every word with its first frame and its end: located in a clip, estimated in read speech."""
    plain: bool = False
    """Whether the recording is unchanged."""


class FeatureCache:
    """Log-mel features of a corpus's training split, float16 [frames, mels], and the list of their items.

    Raises CorpusError if the folder contains no complete features.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            document = json.loads((folder / "index.json").read_bytes())
            self.mels: int = document["mels"]
            self.items = [Item(**{**i, "words": tuple(map(tuple, i["words"]))}) for i in document["items"]]
            self._frames: NDArray[np.float16] = np.memmap(folder / "mel.f16", np.float16, "r").reshape(
                -1, self.mels
            )
            is_complete = len(self._frames) == max(i.start + i.frames for i in self.items)
        except (FileNotFoundError, LookupError, TypeError, ValueError):
            is_complete = False
        if not is_complete:
            raise CorpusError(
                f"{folder} contains no complete features: delete this folder and repeat the command, which "
                "computes them again"
            )

    def __reduce__(self) -> tuple[type[FeatureCache], tuple[Path]]:
        # Another process maps the files itself: the features are too large to be pickled.
        return FeatureCache, (self.folder,)

    def power(self, item: Item, start: int = 0, frames: int | None = None) -> NDArray[np.float32]:
        """Return the mel power of an item, [frames, mels]; of `frames` frames from `start` on, if given."""
        end = item.frames if frames is None else min(item.frames, start + frames)
        log_power = self._frames[item.start + start : item.start + end].astype(np.float32)
        power: NDArray[np.float32] = np.exp(log_power)
        return power

    def statistics(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return mean and standard deviation of log-mel over the unchanged clips, [mels] each."""
        plain = [i for i in self.items if i.kind == "clip" and i.plain]
        rows = np.concatenate(
            [self._frames[i.start : i.start + i.frames : 4] for i in plain[:: max(1, len(plain) // 4000)]]
        ).astype(np.float32)
        rows = np.log(np.exp(rows) + LOG_FLOOR)
        return rows.mean(0), rows.std(0)


def feature_cache(
    corpus: Corpus, front_end: FrontEnd, cycle: int = 0, *, progress: Progress = SILENT
) -> FeatureCache:
    """Return the features of a corpus for one training cycle, computed at the first call.

    Each cycle has other variants of the recordings. The features are stored in the corpus's folder, and
    computed again after `earmark-train prepare` has replaced the corpus. Raises OutputError if they cannot be
    written.
    """
    folder, variety = _folder(corpus, front_end, cycle), _variety(cycle)
    if not _is_computed(corpus, folder):
        folder.mkdir(exist_ok=True)
        phase = progress.phase(phase_of(cycle), total=_hours(_work(corpus, variety)), unit="h")
        _compute(corpus, front_end, folder, cycle, phase)
    return FeatureCache(folder)


def phase_of(cycle: int) -> str:
    """Return the name of the phase that computes the features of a training cycle."""
    return f"features of cycle {cycle + 1}"


def hours_to_compute(corpus: Corpus, front_end: FrontEnd, cycle: int) -> float:
    """Return the hours of audio whose features are computed for a cycle: 0 if it has been done."""
    if _is_computed(corpus, _folder(corpus, front_end, cycle)):
        return 0.0
    return _hours(_work(corpus, _variety(cycle)))


def _variety(cycle: int) -> Variety:
    return _VARIETIES[min(cycle, len(_VARIETIES) - 1)]


def _folder(corpus: Corpus, front_end: FrontEnd, cycle: int) -> Path:
    content = [asdict(front_end), asdict(_variety(cycle)), _SYNTHETIC_PIECES, 1 + cycle]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return corpus.folder / f"mel-{digest[:12]}"


def _is_computed(corpus: Corpus, folder: Path) -> bool:
    computed, prepared = folder / "index.json", corpus.folder / "index.json"
    return computed.is_file() and computed.stat().st_mtime_ns >= prepared.stat().st_mtime_ns


_Work: TypeAlias = "list[tuple[Recording | None, int]]"
"""Recordings and the number of their variant; recording None is a synthetic sound."""


def _work(corpus: Corpus, variety: Variety) -> _Work:
    work: _Work = [
        (recording, variant)
        for recording in corpus.recordings
        if recording.split == "training"
        for variant in range(getattr(variety, recording.kind))
    ]
    return work + [(None, i) for i in range(_SYNTHETIC_PIECES + variety.tones)]


def _hours(work: _Work) -> float:
    recordings = [recording for recording, _ in work if recording is not None]
    return hours(recordings) + (len(work) - len(recordings)) * _SYNTHETIC_SECONDS / 3600


def _compute(corpus: Corpus, front_end: FrontEnd, folder: Path, cycle: int, phase: Phase) -> None:
    variety = _variety(cycle)
    work = _work(corpus, variety)
    parts = [work[i : i + _CHUNK] for i in range(0, len(work), _CHUNK)]
    jobs = [(corpus, front_end, 1 + cycle, variety.rooms, part) for part in parts]
    items: list[Item] = []
    position = 0
    path = folder / "mel.f16"
    with worker_pool(None) as pool, writing(path), path.open("wb") as file:
        computed = pool.map(_features, jobs)  # before there is a display, whose thread must not be forked
        with phase:
            for part, chunk in zip(parts, computed, strict=True):
                for item, mel in chunk:
                    file.write(np.ascontiguousarray(mel).data)
                    items.append(replace(item, start=position))
                    position += len(mel)
                phase.update(_hours(part))
    document = {"mels": front_end.mels, "items": [asdict(i) for i in items]}
    replace_file(folder / "index.json", json.dumps(document).encode())


@torch.no_grad()
def _features(
    job: tuple[Corpus, FrontEnd, int, bool, _Work],
) -> list[tuple[Item, NDArray[np.float16]]]:
    """Compute the features of a list of (recording, variant); recording None is a synthetic sound."""
    torch.set_num_threads(1)
    corpus, front_end, seed, rooms, work = job
    log_mel = LogMel(front_end, floor=_FLOOR)
    hop = front_end.hop_samples
    features = []
    for recording, variant in work:
        rng = np.random.default_rng((seed, variant, recording.start if recording else 2**40))
        item, samples = _render(rng, corpus, recording, variant, rooms=rooms)
        # As in a stream, frame n ends with hop n, so the first window begins in the silence before.
        padded = np.pad(samples, (front_end.window_samples - hop, -len(samples) % hop))
        mel = log_mel(torch.from_numpy(padded[None]))[0].numpy().astype(np.float16)
        places = tuple((text, start // hop, -(-end // hop)) for text, start, end in item.words)
        features.append((replace(item, frames=len(mel), words=places), mel))
    return features


def _render(
    rng: np.random.Generator, corpus: Corpus, recording: Recording | None, variant: int, *, rooms: bool
) -> tuple[Item, NDArray[np.float32]]:
    """Return a variant of a recording, or a synthetic sound, as samples; word places are in samples too."""
    if recording is None and variant >= _SYNTHETIC_PIECES:
        return Item("tones", ""), tones.signal_tones(rng, _SYNTHETIC_SECONDS * SAMPLE_RATE_HZ)
    if recording is None:
        return Item("synthetic", ""), augment.synthetic_sound(rng, _SYNTHETIC_SECONDS * SAMPLE_RATE_HZ)
    samples = corpus.samples(recording)
    words: tuple[tuple[str, int, int], ...] = ()
    if recording.kind == "clip":
        words = ((recording.text, *(recording.word or (0, int(0.8 * recording.length)))),)
    elif recording.kind == "speech":
        words = tuple((w.text, w.start, w.end) for w in place_words(samples, recording.text))
    if variant > 0 and recording.kind in ("noise", "music"):
        samples = augment.vary_noise(rng, samples)
    elif variant > 0:
        vary = surroundings.place_voice if rooms else augment.vary_voice
        samples, speed = vary(rng, samples)
        words = tuple((text, int(start / speed), int(end / speed)) for text, start, end in words)
    return Item(recording.kind, recording.text, words=words, plain=variant == 0), samples
