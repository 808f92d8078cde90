"""Proposals: the peaks of the first network on mixed speech of one split, each with its window and its class.

The split's clips and read speech are put through the kinds of surroundings that the evaluation has, with
other sounds, rooms and parameters. Every peak above `_LOWEST_SCORE` is kept, with the keyword that was really
spoken there, or none. Random pieces of read speech and of sounds without speech are kept as well.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np
import torch
from earmark_audio.progress import SILENT, Progress
from earmark_spotter import score_recording

from earmark_training.data import augment, surroundings, tones
from earmark_training.data.corpus import SAMPLE_RATE_HZ
from earmark_training.data.transcripts import is_spoken_at, place_words
from earmark_training.data.vocabulary import accepted_words
from earmark_training.evaluation.conditions import (
    Scene,
    add_babble,
    add_noise,
    add_under,
    from_television,
    in_room,
    through_telephone,
)
from earmark_training.evaluation.detections import detect
from earmark_training.evaluation.streams import TOLERANCE_SAMPLES, SpokenWord
from earmark_training.model.encoded_verifier import FRAMES, WIDTH, encode
from earmark_training.verifier.network import SpeechMel, window_samples

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from earmark_spotter import Detection, SpotterModel
    from earmark_spotter.metadata import ModelMetadata
    from numpy.typing import NDArray

    from earmark_training.data.corpus import Corpus, Recording, Split

    Samples = NDArray[np.float32]

CONTEXT_FRAMES = 196
"""Mel frames that are kept: more than a window, so that training can move it."""

_LOWEST_SCORE = 0.05
# A peak at a keyword of the transcript is that keyword above the first score, and a peak of another keyword
# is none below the second one; the rest is left out.
_CERTAIN, _VERY_CERTAIN = 0.6, 0.9
_WORD_BEFORE_PEAK = 7_000  # samples from the middle of a word to the peak of its score
_CLIPS_PER_STREAM = 30
_CLIPS_PER_KEYWORD, _CLIPS_PER_WORD = 1400, 700
_PASSES_OF_SPEECH = 1.6
_PAUSE_S = (0.2, 1.5)
_IN_A_ROW, _ROW_PAUSE_S, _ROW_MARGIN = 0.3, (0.06, 0.3), 320  # streams without the clips' own pauses
_MAX_GAIN = 10 ** (30 / 20)
_VARIED_NOISE, _TWO_NOISES, _NOISE_IN_ROOM = 0.6, 0.3, 0.3  # the shares of the noises
_NOISE_MARGINS = (8_000, 16_000)
_BATCH = 64

_KINDS = ("clean", "noise", "babble", "room", "room and noise", "telephone", "television", "music")
WORD_SHARES = (0.14, 0.26, 0.24, 0.12, 0.1, 0.07, 0.04, 0.03)
SPEECH_SHARES = (0.2, 0.22, 0.24, 0.1, 0.06, 0.06, 0.09, 0.03)


class Source(IntEnum):
    """The kind of audio in which a proposal was found."""

    WORDS = 0
    SPEECH = 1
    RANDOM = 2
    """A random place in read speech or in sounds without speech, not a peak."""
    SOUNDS = 3


@dataclass(frozen=True, slots=True)
class Proposals:
    """N proposals, with [N] of what has no other shape."""

    mel: NDArray[np.float16]
    """Log-mel, [N, CONTEXT_FRAMES, 32]."""
    features: NDArray[np.float16]
    """The features of the speech encoder, [N, FRAMES, WIDTH]."""
    label: NDArray[np.int64]
    """The class among the model's labels that was spoken, or 0 for none."""
    proposed: NDArray[np.int64]
    """The class that the first network proposed."""
    score: NDArray[np.float32]
    """The first network's score."""
    verified: NDArray[np.float32]
    """The final score, which is the first network's for a model without a verifier."""
    source: NDArray[np.int64]


class SplitScene(Scene):
    """The sounds of a split. The rooms of the training split are those of training."""

    def __init__(self, corpus: Corpus, split: Split) -> None:
        super().__init__(corpus, split)
        self._is_training = split == "training"

    def babble(self, rng: np.random.Generator, length: int, talkers: int = 0) -> Samples:
        """Return the speech of `talkers` people at once, or of two to eight if it is 0."""
        return super().babble(rng, length, talkers or int(rng.integers(2, 9)))

    def room(self, rng: np.random.Generator) -> Samples:
        """Return the impulse response of a room."""
        if not self._is_training:
            return super().room(rng)
        rooms = surroundings.training_rooms()
        return rooms[rng.integers(len(rooms))]


class _Collector:
    """Puts audio into random surroundings and collects the proposals in it."""

    def __init__(
        self, model: SpotterModel, corpus: Corpus, split: Split, seed: tuple[int, int], *, with_features: bool
    ) -> None:
        self._encode = encode if with_features else lambda _: np.zeros((0, WIDTH), np.float16)
        self._feature_frames = FRAMES if with_features else 0
        self._model, self._meta, self._corpus = model, model.metadata, corpus
        self._scene, self.rng = SplitScene(corpus, split), np.random.default_rng((99, *seed))
        hold_samples = self._meta.samples_from_ms(self._meta.detector.hold_ms)
        self._hold_frames = -(-hold_samples // self._meta.frame_samples)
        self._log_mel = SpeechMel()
        self._windows: list[Samples] = []
        self._mels: list[NDArray[np.float16]] = []
        self._features: list[NDArray[np.float16]] = []
        self._rows: list[tuple[int, int, float, Source]] = []
        self._verified: list[float] = []

    def add_words(self, clips: Sequence[Recording]) -> None:
        """Add the proposals in a stream of clips."""
        rng = self.rng
        samples, words, power = stream_of(rng, self._corpus, clips)
        samples = changed(self._scene, rng, samples, power, WORD_SHARES)
        for detection, frame, proposed in self._peaks(score_recording(self._model, samples)):
            label = _label_of(self._meta, words, detection)
            if label is not None:
                moved = int(rng.integers(-2, 3)) * 320 if rng.random() < 0.5 else 0
                self._add(samples, frame, (label, proposed, detection.confidence, Source.WORDS), moved)

    def add_speech(self, recording: Recording) -> None:
        """Add the proposals in read speech, and random places without keywords."""
        meta, rng, samples = self._meta, self.rng, self._corpus.samples(recording)
        if rng.random() < 0.4:
            samples, _ = augment.vary_voice(rng, samples)
        words, length = place_words(samples, recording.text), len(samples)
        samples = changed(self._scene, rng, samples, float(np.square(samples).mean()), SPEECH_SHARES)
        scores = score_recording(self._model, samples)
        for detection, frame, proposed in self._peaks(scores):
            middle = (detection.start_sample + detection.end_sample) / 2
            spoken = [k for k in meta.keyword_names if is_spoken_at(words, k, middle, length)]
            if detection.keyword in spoken:
                label = proposed if detection.confidence > _CERTAIN else None
            else:
                label = None if spoken and detection.confidence > _VERY_CERTAIN else 0
            if label is not None:
                self._add(samples, frame, (label, proposed, detection.confidence, Source.SPEECH))
        places = rng.integers(5, max(6, len(scores) - 5), max(1, length // (5 * SAMPLE_RATE_HZ)))
        for frame in places.tolist():
            middle = frame * meta.frame_samples - _WORD_BEFORE_PEAK
            if not any(is_spoken_at(words, k, middle, length) for k in meta.keyword_names):
                self._add_random(samples, scores, frame)

    def add_sounds(self) -> None:
        """Add the proposals in a piece of noise, music, babble or signal tones, and random places."""
        rng, scene, length = self.rng, self._scene, 20 * SAMPLE_RATE_HZ
        kinds = (scene.noise, scene.music_of, scene.babble, tones.signal_tones)
        kind = kinds[int(rng.choice(len(kinds)))]
        samples = _at_level(kind(rng, length), rng.uniform(-40, 0))
        scores = self._add_sound(samples)
        for frame in rng.integers(5, len(scores) - 5, 3).tolist():
            self._add_random(samples, scores, frame)

    def add_noises(self) -> None:
        """Add the peaks in each noise of the split: at other speeds, over another noise, or in a room."""
        rng, noises = self.rng, self._scene.noises
        for i in rng.permutation(len(noises)).tolist():
            samples = self._corpus.samples(noises[i])
            if rng.random() < _VARIED_NOISE:
                samples, _ = augment.vary_voice(rng, samples)
            if rng.random() < _TWO_NOISES:
                other = self._corpus.samples(noises[int(rng.integers(len(noises)))])
                length = max(len(samples), len(other))
                gain = np.float32(10 ** (rng.uniform(-15, 0) / 20))
                samples = _padded(samples, length) + gain * _padded(other, length)
            samples = np.pad(samples, _NOISE_MARGINS).astype(np.float32)
            if rng.random() < _NOISE_IN_ROOM:
                samples = in_room(self._scene, rng, samples, float(np.square(samples).mean()))
            self._add_sound(_at_level(samples, rng.uniform(-30, 0)))

    def result(self) -> Proposals:
        """Return all proposals."""
        self._compute_mels()
        count, rows = len(self._rows), np.array(self._rows, np.float64).reshape(-1, 4)
        label, proposed, score, source = rows.T
        return Proposals(
            np.concatenate([np.zeros((0, CONTEXT_FRAMES, 32), np.float16), *self._mels]),
            np.array(self._features, np.float16).reshape(count, self._feature_frames, WIDTH),
            label.astype(np.int64),
            proposed.astype(np.int64),
            score.astype(np.float32),
            np.array(self._verified, np.float32),
            source.astype(np.int64),
        )

    def _add_sound(self, samples: Samples) -> Samples:
        """Add the peaks in audio without speech; return its scores."""
        scores = score_recording(self._model, samples)
        for detection, frame, proposed in self._peaks(scores):
            self._add(samples, frame, (0, proposed, detection.confidence, Source.SOUNDS))
        return scores

    def _peaks(self, scores: Samples) -> Iterator[tuple[Detection, int, int]]:
        """Yield each peak as (detection, frame, class)."""
        meta = self._meta
        for detection in detect(meta, scores, dict.fromkeys(meta.keyword_names, _LOWEST_SCORE)):
            yield detection, int(detection.id.rsplit("-", 1)[1]), meta.labels.index(detection.keyword)

    def _add_random(self, samples: Samples, scores: Samples, frame: int) -> None:
        proposed = 2 + int(scores[frame, 2:].argmax())  # after silence and unknown: see labels_for
        self._add(samples, frame, (0, proposed, float(scores[frame, proposed]), Source.RANDOM))

    def _add(self, samples: Samples, frame: int, row: tuple[int, int, float, Source], moved: int = 0) -> None:
        """Add a proposal (label, proposed class, score, source) that peaks in a frame."""
        length = window_samples(CONTEXT_FRAMES)
        end = (frame + 1 + self._hold_frames) * self._meta.frame_samples + moved
        window = samples[max(0, end - length) : max(0, end)]
        before = max(0, length - end)
        window = np.pad(window, (before, length - before - len(window)))
        self._windows.append(window)
        self._features.append(self._encode(window))
        self._rows.append(row)
        _, proposed, score, _ = row
        self._verified.append(self._final_score(window, proposed, score))
        if len(self._windows) == _BATCH:
            self._compute_mels()

    def _final_score(self, window: Samples, proposed: int, score: float) -> float:
        info, verifier = self._meta.verifier, self._model.verifier
        if info is None or verifier is None:
            return score
        return verifier.final_scores(window[-info.window_samples :], {proposed: score})[proposed]

    @torch.no_grad()
    def _compute_mels(self) -> None:
        if self._windows:
            mel = self._log_mel(torch.from_numpy(np.stack(self._windows)))
            self._mels.append(mel.numpy().astype(np.float16))
            self._windows = []


def collect(
    model: SpotterModel,
    corpus: Corpus,
    split: Split,
    seed: int,
    *,
    passes: int = 1,
    streams: Sequence[Sequence[Recording]] | None = None,
    passes_of_speech: float = _PASSES_OF_SPEECH,
    with_features: bool = True,
    progress: Progress = SILENT,
) -> Proposals:
    """Return the proposals in some passes over the clips and the read speech of a split.

    streams: the clips of each stream, instead of those of the split. passes_of_speech: how often the read
    speech is used in each pass. with_features: False leaves out the speech encoder, which takes three
    quarters of the time: the features are [N, 0, WIDTH]. The surroundings of each pass are others.
    """
    found = []
    for number in range(passes):
        collector = _Collector(model, corpus, split, (seed, number), with_features=with_features)
        drawn = streams or list(_choose_clips(collector.rng, model.metadata, corpus.select("clip", split)))
        counted = progress(drawn, desc=f"finding proposals, {split}", total=len(drawn), unit="streams")
        speech = corpus.select("speech", split)
        found.append(_collect_once(collector, counted, len(drawn), speech, passes_of_speech))
    return together(found)


def collect_in_noise(
    model: SpotterModel,
    corpus: Corpus,
    split: Split,
    seed: int,
    *,
    passes: int,
    with_features: bool = True,
    progress: Progress = SILENT,
) -> Proposals:
    """Return the proposals in some passes over the noises of a split, of which `collect` has few."""
    collector = _Collector(model, corpus, split, (seed, 0), with_features=with_features)
    desc = f"finding proposals in noise, {split}"
    for _ in progress(range(passes), desc=desc, total=passes, unit="passes"):
        collector.add_noises()
    return collector.result()


def together(found: Sequence[Proposals]) -> Proposals:
    """Return all proposals as one."""
    return Proposals(*(np.concatenate([getattr(p, f.name) for p in found]) for f in fields(Proposals)))


def _collect_once(
    collector: _Collector,
    streams: Iterable[Sequence[Recording]],
    count: int,
    speech: Sequence[Recording],
    passes_of_speech: float,
) -> Proposals:
    """Return the proposals in `count` streams of clips, and in the speech, which is spread among them."""
    speech = [speech[i] for i in collector.rng.permutation(len(speech))]
    read = 0
    for number, clips in enumerate(streams):
        collector.add_words(clips)
        while read < len(speech) * passes_of_speech * (number + 1) / count:
            collector.add_speech(speech[read % len(speech)])
            read += 1
        if number % 12 == 0:
            collector.add_sounds()
    return collector.result()


def _choose_clips(
    rng: np.random.Generator, meta: ModelMetadata, clips: Sequence[Recording]
) -> Iterator[list[Recording]]:
    """Yield the clips of each stream, with limits on how many there are of a word."""
    by_word: dict[str, list[Recording]] = {}
    for clip in clips:
        by_word.setdefault(clip.text, []).append(clip)
    chosen: list[Recording] = []
    for word, of_word in by_word.items():
        order = rng.permutation(len(of_word))
        limit = _CLIPS_PER_KEYWORD if word in meta.keywords else _CLIPS_PER_WORD
        chosen += [of_word[i] for i in order[:limit]]
    chosen = [chosen[i] for i in rng.permutation(len(chosen))]
    for i in range(0, len(chosen), _CLIPS_PER_STREAM):
        yield chosen[i : i + _CLIPS_PER_STREAM]


def stream_of(
    rng: np.random.Generator, corpus: Corpus, clips: Sequence[Recording]
) -> tuple[Samples, list[SpokenWord], float]:
    """Return a stream of clips, half of them with their voice changed; its words; their median power.

    In some streams the words follow each other closely.
    """
    sounds: list[tuple[Samples, int, int]] = []
    in_a_row = rng.random() < _IN_A_ROW
    for clip in clips:
        samples = corpus.samples(clip)
        start, end = clip.word or (0, clip.length)
        if rng.random() < 0.55:
            vary = surroundings.place_voice if rng.random() < 0.25 else augment.vary_voice
            samples, speed = vary(rng, samples)
            start, end = int(start / speed), min(len(samples), int(end / speed))
        if in_a_row:
            first = max(0, start - _ROW_MARGIN)
            samples, start, end = samples[first : end + _ROW_MARGIN], start - first, end - first
        sounds.append((samples, start, end))
    powers = [float(np.square(samples[start:end]).mean()) for samples, start, end in sounds]
    median, equal_levels = float(np.median(powers)), rng.random() < 0.7
    pieces: list[Samples] = []
    words: list[SpokenWord] = []
    position = 0
    for clip, (samples, start, end), power in zip(clips, sounds, powers, strict=True):
        position += int(rng.uniform(*(_ROW_PAUSE_S if in_a_row else _PAUSE_S)) * SAMPLE_RATE_HZ)
        gain = min(_MAX_GAIN, np.sqrt(median / max(power, 1e-12))) if equal_levels else 1.0
        words.append(SpokenWord(clip.text, position + start, position + end))
        pieces += [np.zeros(position - sum(map(len, pieces)), np.float32), samples * np.float32(gain)]
        position += len(samples)
    return np.concatenate([*pieces, np.zeros(SAMPLE_RATE_HZ, np.float32)]), words, median


def changed(
    scene: Scene, rng: np.random.Generator, samples: Samples, power: float, shares: Sequence[float]
) -> Samples:
    """Put audio into surroundings that are drawn at random, at a random level."""
    kind = str(rng.choice(_KINDS, p=shares))
    if kind in ("room", "room and noise"):
        samples = in_room(scene, rng, samples, power)
    if kind in ("noise", "room and noise"):
        samples = add_noise(rng.uniform(-1, 24), scene, rng, samples, power)
    if kind == "babble":
        samples = add_babble(rng.uniform(2, 22), scene, rng, samples, power)
    if kind == "music":
        samples = add_under(samples, power, scene.music_of(rng, len(samples)), rng.uniform(0, 20))
    if kind == "telephone":
        samples = through_telephone(scene, rng, samples, power)
        if rng.random() < 0.3:
            samples = add_noise(rng.uniform(10, 30), scene, rng, samples, power)
    if kind == "television":
        samples = from_television(scene, rng, samples, power)
    result: Samples = np.clip(samples * np.float32(10 ** (rng.uniform(-25, 8) / 20)), -1, 1)
    return result


def _padded(samples: Samples, length: int) -> Samples:
    return np.pad(samples, (0, length - len(samples)))


def _at_level(samples: Samples, peak_dbfs: float) -> Samples:
    """Return audio whose highest sample has a level."""
    gain = np.float32(10 ** (peak_dbfs / 20)) / (np.abs(samples).max() + np.float32(1e-9))
    result: Samples = np.clip(samples * gain, -1, 1).astype(np.float32)
    return result


def _label_of(meta: ModelMetadata, words: Sequence[SpokenWord], detection: Detection) -> int | None:
    """Return the class of the word at a detection, 0 if it is no keyword; None for a homophone of one."""
    middle = (detection.start_sample + detection.end_sample) / 2
    near = [w for w in words if w.start - TOLERANCE_SAMPLES <= middle < w.end + TOLERANCE_SAMPLES]
    if not near:
        return 0
    word = min(near, key=lambda w: abs((w.start + w.end) / 2 - middle)).text
    if word in meta.keywords:
        return meta.labels.index(word)
    return None if any(word in accepted_words(k) for k in meta.keyword_names) else 0
