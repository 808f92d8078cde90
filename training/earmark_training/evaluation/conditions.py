"""The conditions in which a model is measured: noise, babble, rooms, telephones, levels, a television.

Each condition changes clean audio [n] at 16 kHz. Noises, music and talkers are of the validation split, and
the rooms are drawn with a seed that training does not use.
"""

from __future__ import annotations

import functools
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import soxr
from earmark_spotter import final_scores

from earmark_training.data.corpus import SAMPLE_RATE_HZ
from earmark_training.data.rooms import draw_room, impulse_response, reverberate
from earmark_training.data.surroundings import loudspeaker_band
from earmark_training.data.transcripts import place_words
from earmark_training.errors import CorpusError
from earmark_training.evaluation.peaks import ScoredUtterance
from earmark_training.evaluation.streams import SyntheticStream, make_streams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from earmark_spotter import SpotterModel
    from earmark_spotter.model import Float32Array

    from earmark_training.data.corpus import Corpus, Recording, Split

_TALKERS = 6
_ROOMS, _ROOMS_SEED = 80, 977
_RT60_S, _DISTANCE_M = (0.3, 0.7), (0.5, 4.0)
_TELEPHONE_HZ, _TELEPHONE_LOW_HZ = 8_000, 300.0
_QUIET_DBFS, _LOUD_DBFS = -50.0, -10.0
_LOUDSPEAKER_HZ = (250.0, 5_500.0)
_TELEVISION_MUSIC_DB = 10.0


@dataclass(frozen=True, slots=True)
class Condition:
    """A named change of audio. `change(scene, rng, samples, power)`; power: mean square of what is spoken."""

    name: str
    change: Callable[[Scene, np.random.Generator, Float32Array, float], Float32Array]
    speech: bool = True
    """Whether false alarms are counted in read speech."""
    words: bool = True
    """Whether recall is measured in streams of words."""
    equal_levels: bool = False
    """Whether words are brought to one level, so that each has the condition's SNR."""


class Scene:
    """The sounds that conditions are made of: noises, music and readers of one split, and simulated rooms."""

    def __init__(self, corpus: Corpus, split: Split = "validation") -> None:
        noises = corpus.select("noise", split)
        # Those with a folder of their own are other recordings than training's, not the rest of the same.
        of_folders = [n for n in noises if n.speaker] if split == "validation" else []
        self._noises = of_folders or noises
        self._music = corpus.select("music", split)
        self._readers = corpus.select("speech", split)
        self.corpus = corpus

    @property
    def has_noise(self) -> bool:
        """Whether there is any noise."""
        return bool(self._noises)

    @property
    def music(self) -> Sequence[Recording]:
        """Return the pieces of music."""
        return self._music

    @property
    def noises(self) -> Sequence[Recording]:
        """Return the noises."""
        return self._noises

    def samples(self, recording: Recording) -> Float32Array:
        """Return a recording's samples."""
        return self.corpus.samples(recording)

    def noise(self, rng: np.random.Generator, length: int) -> Float32Array:
        """Return recorded noise of unit power, [length]."""
        return self._sequence(rng, self._noises, length)

    def music_of(self, rng: np.random.Generator, length: int) -> Float32Array:
        """Return music of unit power, [length]; noise, where the corpus has no music."""
        return self._sequence(rng, self._music or self._noises, length)

    def babble(self, rng: np.random.Generator, length: int, talkers: int = _TALKERS) -> Float32Array:
        """Return several readers who talk at once, equally loud, of unit power, [length]."""
        total = sum(self._sequence(rng, self._readers, length) for _ in range(talkers))
        return _unit(np.asarray(total, np.float32))

    def room(self, rng: np.random.Generator) -> Float32Array:
        """Return a room's impulse response."""
        rooms = _rooms()
        return rooms[rng.integers(len(rooms))]

    def _sequence(
        self, rng: np.random.Generator, recordings: Sequence[Recording], length: int
    ) -> Float32Array:
        """Return recordings one after another, of unit power, from a random place on, [length]."""
        if not recordings:
            raise CorpusError("this condition needs recordings that the corpus does not have")
        pieces: list[Float32Array] = []
        count = 0
        while count < length:
            piece = _unit(self.corpus.samples(recordings[int(rng.integers(len(recordings)))]))
            if not pieces:
                piece = piece[int(rng.integers(len(piece))) :]
            pieces.append(piece)
            count += len(piece)
        return np.concatenate(pieces)[:length]


@functools.cache
def _rooms() -> list[Float32Array]:
    rng = np.random.default_rng(_ROOMS_SEED)
    return [impulse_response(rng, draw_room(rng, _RT60_S, _DISTANCE_M)) for _ in range(_ROOMS)]


def _unit(samples: Float32Array) -> Float32Array:
    """Scale to unit power."""
    scaled: Float32Array = samples / np.float32(np.sqrt(np.square(samples).mean() + 1e-12))
    return scaled


def add_under(samples: Float32Array, power: float, other: Float32Array, snr_db: float) -> Float32Array:
    """Add a sound of unit power that is `snr_db` weaker than `power`."""
    mixed = samples + other * np.float32(np.sqrt(power / 10 ** (snr_db / 10)))
    return np.clip(mixed, -1, 1)


def _clean(_: Scene, __: np.random.Generator, samples: Float32Array, ___: float) -> Float32Array:
    return samples


def add_noise(
    snr_db: float, scene: Scene, rng: np.random.Generator, samples: Float32Array, power: float
) -> Float32Array:
    """Add recorded noise that is `snr_db` weaker than what is spoken."""
    return add_under(samples, power, scene.noise(rng, len(samples)), snr_db)


def add_babble(
    snr_db: float, scene: Scene, rng: np.random.Generator, samples: Float32Array, power: float
) -> Float32Array:
    """Add babble that is `snr_db` weaker than what is spoken."""
    return add_under(samples, power, scene.babble(rng, len(samples)), snr_db)


def in_room(scene: Scene, rng: np.random.Generator, samples: Float32Array, power: float) -> Float32Array:
    """Put audio into a simulated room, at its level."""
    wet = reverberate(samples, scene.room(rng))
    gain = np.sqrt(np.square(samples).mean() / (np.square(wet).mean() + 1e-12))
    louder: Float32Array = np.clip(wet * np.float32(gain), -1, 1)
    return louder


def _in_noisy_room(
    scene: Scene, rng: np.random.Generator, samples: Float32Array, power: float
) -> Float32Array:
    return add_noise(10.0, scene, rng, in_room(scene, rng, samples, power), power)


def through_telephone(_: Scene, __: np.random.Generator, samples: Float32Array, ___: float) -> Float32Array:
    """Pass through 300 to 3400 Hz at 8 kHz with 8-bit mu-law (G.711, its continuous formula)."""
    narrow = soxr.resample(samples, SAMPLE_RATE_HZ, _TELEPHONE_HZ)
    spectrum = np.fft.rfft(narrow)
    hz = np.fft.rfftfreq(len(narrow), 1 / _TELEPHONE_HZ)
    spectrum *= 1 / (1 + (_TELEPHONE_LOW_HZ / np.maximum(hz, 1)) ** 8) / (1 + (hz / 3_400) ** 40)
    narrow = np.clip(np.fft.irfft(spectrum, len(narrow)), -1, 1)
    levels = np.rint(np.log1p(255 * np.abs(narrow)) / np.log(256) * 127) / 127
    narrow = np.copysign(np.expm1(levels * np.log(256)) / 255, narrow)
    wide = soxr.resample(narrow.astype(np.float32), _TELEPHONE_HZ, SAMPLE_RATE_HZ)
    return np.pad(wide, (0, max(0, len(samples) - len(wide))))[: len(samples)]


def _level(
    dbfs: float, _: Scene, __: np.random.Generator, samples: Float32Array, power: float
) -> Float32Array:
    """Bring what is spoken to a level; round to 16 bits and clip, as PCM does."""
    scaled = samples * np.float32(10 ** (dbfs / 20) / np.sqrt(power + 1e-12))
    rounded: Float32Array = np.clip(np.rint(scaled * 32768), -32768, 32767).astype(np.float32) / np.float32(
        32768
    )
    return rounded


def from_television(
    scene: Scene, rng: np.random.Generator, samples: Float32Array, power: float
) -> Float32Array:
    """Play speech over music through a small loudspeaker in a room."""
    mixed = add_under(samples, power, scene.music_of(rng, len(samples)), _TELEVISION_MUSIC_DB)
    return in_room(scene, rng, loudspeaker_band(mixed, *_LOUDSPEAKER_HZ), power)


CONDITIONS: tuple[Condition, ...] = (
    Condition("clean", _clean),
    *(
        Condition(f"{name}, {snr:g} dB", functools.partial(change, snr), equal_levels=True)
        for name, change, levels in (
            ("noise", add_noise, (20.0, 10.0, 5.0, 0.0)),
            ("babble", add_babble, (20.0, 10.0, 5.0)),
        )
        for snr in levels
    ),
    Condition("room", in_room, equal_levels=True),
    Condition("room and noise, 10 dB", _in_noisy_room, equal_levels=True),
    Condition("telephone", through_telephone),
    Condition("quiet, -50 dBFS", functools.partial(_level, _QUIET_DBFS), equal_levels=True),
    Condition("loud, -10 dBFS", functools.partial(_level, _LOUD_DBFS), equal_levels=True),
    Condition("television", from_television, words=False),
)
"""Those with speech in them."""

CALIBRATED_RECALL = ("clean", "noise, 20 dB", "noise, 10 dB", "babble, 10 dB", "room", "telephone")
"""The conditions whose recall the thresholds are chosen by."""

CALIBRATED = ("clean", "noise, 10 dB", "babble, 10 dB", "room", "telephone", "television")
"""The conditions whose mean of false alarms per hour is a model's operating point."""


def conditions_for(corpus: Corpus) -> list[Condition]:
    """Return the conditions for which the corpus has the sounds."""
    scene = Scene(corpus)
    return [
        c
        for c in CONDITIONS
        if not ("noise" in c.name and not scene.has_noise)
        and not (c.name == "television" and not (scene.music or scene.has_noise))
        and not ("babble" in c.name and not corpus.select("speech", "validation"))
    ]


def _generator(seed: int, condition: Condition, what: str) -> np.random.Generator:
    return np.random.default_rng((seed, zlib.crc32(f"{condition.name} {what}".encode())))


def changed_streams(
    scene: Scene, clips: Sequence[Recording], condition: Condition, seed: int
) -> Iterator[SyntheticStream]:
    """Yield streams of the clips in a condition: the same words and pauses in all conditions."""
    rng = _generator(seed, condition, "words")
    streams = make_streams(scene.corpus, clips, snr_db=None, seed=seed, equal_levels=condition.equal_levels)
    for stream in streams:
        powers = [float(np.square(stream.samples[w.start : w.end]).mean()) for w in stream.words]
        changed = condition.change(scene, rng, stream.samples, float(np.median(powers)))
        yield SyntheticStream(changed, stream.words)


def changed_utterances(
    model: SpotterModel, scene: Scene, speech: Sequence[Recording], condition: Condition, seed: int
) -> Iterator[ScoredUtterance]:
    """Yield read speech in a condition, with the model's scores."""
    rng = _generator(seed, condition, "speech")
    for recording in speech:
        samples = scene.corpus.samples(recording)
        words = place_words(samples, recording.text)
        changed = condition.change(scene, rng, samples, float(np.square(samples).mean()))
        yield ScoredUtterance(recording.text, words, recording.length, final_scores(model, changed))
