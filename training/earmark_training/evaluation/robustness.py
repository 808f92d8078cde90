"""Recall and false alarms in every condition: streams of words, read speech, and sounds without speech."""

from __future__ import annotations

import re
import zlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from earmark_spotter import final_scores
from earmark_spotter.metadata import Metric

from earmark_training.data.corpus import SAMPLE_RATE_HZ
from earmark_training.data.tones import SIGNALS, signal_tones
from earmark_training.data.transcripts import is_spoken_at, place_words
from earmark_training.evaluation.conditions import (
    CALIBRATED,
    Scene,
    changed_streams,
    changed_utterances,
    conditions_for,
)
from earmark_training.evaluation.detections import detect, false_alarms
from earmark_training.evaluation.intervals import poisson_interval, rate_text, wilson_interval
from earmark_training.evaluation.streams import SpokenWord, SyntheticStream, match_detections

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from earmark_spotter import SpotterModel
    from earmark_spotter.model import Float32Array

    from earmark_training.data.corpus import Corpus, Recording
    from earmark_training.evaluation.peaks import ScoredUtterance

TONES_SECONDS, _TONES_PIECE_S = 1800, 20
_SOUND_GAINS_DB = (0.0, -15.0)
_ROW_CLIPS, _ROW_GAP_S, _ROW_MARGIN_S = 20, (0.1, 0.25), 0.02


def measure_conditions(
    model: SpotterModel, corpus: Corpus, clips: Sequence[Recording], speech: Sequence[Recording], seed: int
) -> dict[str, Any]:
    """Measure a model in every condition for which the corpus has the sounds; return a document.

    clips, speech: of words and of readers that the model has not learnt from.
    """
    scene = Scene(corpus)
    rows = []
    for condition in conditions_for(corpus):
        row: dict[str, Any] = {"condition": condition.name}
        if condition.words and clips:
            streams = list(changed_streams(scene, clips, condition, seed))
            row |= _recall(model, streams)
        if condition.speech and speech:
            utterances = list(changed_utterances(model, scene, speech, condition, seed))
            row |= _false_alarms(model, utterances)
        if len(row) > 1:  # something was measured
            rows.append(row)
    if clips:
        rows.append({"condition": "words in a row", **_recall(model, words_in_a_row(corpus, clips, seed))})
    if speech:
        rows.append({"condition": "keyword inside a sentence", **_recall_in_sentences(model, corpus, speech)})
    rows += [_sounds(model, name, pieces) for name, pieces in _without_speech(scene, seed)]
    rates = [r["per_hour"] for r in rows if r["condition"] in CALIBRATED and "per_hour" in r]
    return {
        "rows": rows,
        "operating_point": {
            "conditions": [c for c in CALIBRATED if c in {r["condition"] for r in rows}],
            "mean_false_alarms_per_hour": round(float(np.mean(rates)), 3) if rates else None,
        },
    }


def condition_metrics(document: dict[str, Any]) -> list[Metric]:
    """Return the metrics of a document of `measure_conditions`."""
    metrics = []
    for row in document["rows"]:
        name = re.sub(r"[^a-z0-9]+", "_", row["condition"].removesuffix(" dB").removesuffix(" dBFS"))
        if "recall" in row:
            low, high = row["recall_interval"]
            text = (
                f"recall, {row['condition']}: {row['detected']} of {row['spoken']}, "
                f"95% interval {low:.1%} to {high:.1%}"
            )
            metrics.append(Metric(f"recall_{name}", row["recall"], text))
        if "per_hour" in row:
            text = f"false alarms per hour, {row['condition']}: {rate_text(row['alarms'], row['hours'])}"
            metrics.append(Metric(f"false_alarms_{name}", row["per_hour"], text))
    mean = document["operating_point"]["mean_false_alarms_per_hour"]
    if mean is not None:
        where = "; ".join(document["operating_point"]["conditions"])
        metrics.append(Metric("mean_false_alarms_per_hour", mean, f"mean over read speech in: {where}"))
    return metrics


def _recall(model: SpotterModel, streams: Sequence[SyntheticStream]) -> dict[str, Any]:
    meta = model.metadata
    matched = match_detections(
        streams, [detect(meta, final_scores(model, s.samples)) for s in streams], meta.keyword_names
    )
    spoken, detected = matched.spoken.total(), matched.detected.total()
    return {**_share(detected, spoken), "wrong": matched.wrong.total(), "repeated": matched.repeated.total()}


def _share(detected: int, spoken: int) -> dict[str, Any]:
    if not spoken:
        return {}
    return {
        "spoken": spoken,
        "detected": detected,
        "recall": round(detected / spoken, 4),
        "recall_interval": [round(x, 4) for x in wilson_interval(detected, spoken)],
    }


def _rate(alarms: Counter[str], hours: float) -> dict[str, Any]:
    return {
        "hours": round(hours, 3),
        "alarms": alarms.total(),
        "per_hour": round(alarms.total() / hours, 3),
        "per_hour_interval": [round(x, 2) for x in poisson_interval(alarms.total(), hours)],
        "by_keyword": dict(alarms.most_common()),
    }


def _false_alarms(model: SpotterModel, utterances: Sequence[ScoredUtterance]) -> dict[str, Any]:
    hours = sum(u.length for u in utterances) / SAMPLE_RATE_HZ / 3600
    return _rate(false_alarms(model.metadata, utterances), hours)


def words_in_a_row(corpus: Corpus, clips: Sequence[Recording], seed: int) -> list[SyntheticStream]:
    """Return streams of words that follow one another after 0.1 to 0.25 s, by voices at one level.

    Only of clips in which energy tells where the word is.
    """
    rng = np.random.default_rng(seed)
    located = [c for c in clips if c.word is not None]
    order = [located[i] for i in rng.permutation(len(located))]
    margin = int(_ROW_MARGIN_S * SAMPLE_RATE_HZ)
    streams = []
    for first in range(0, len(order), _ROW_CLIPS):
        pieces, words, position = [np.zeros(SAMPLE_RATE_HZ, np.float32)], [], SAMPLE_RATE_HZ
        for clip in order[first : first + _ROW_CLIPS]:
            assert clip.word is not None
            start, end = max(0, clip.word[0] - margin), min(clip.length, clip.word[1] + margin)
            word = corpus.samples(clip)[start:end]
            level = np.sqrt(np.square(word).mean() + 1e-9)
            gap = np.zeros(int(rng.uniform(*_ROW_GAP_S) * SAMPLE_RATE_HZ), np.float32)
            words.append(SpokenWord(clip.text, position, position + len(word)))
            pieces += [np.clip(word * np.float32(0.05 / level), -1, 1), gap]
            position += len(word) + len(gap)
        pieces.append(np.zeros(SAMPLE_RATE_HZ, np.float32))
        streams.append(SyntheticStream(np.concatenate(pieces), tuple(words)))
    return streams


def _recall_in_sentences(model: SpotterModel, corpus: Corpus, speech: Sequence[Recording]) -> dict[str, Any]:
    """Count the keywords of the transcripts that are detected about where they are expected."""
    meta = model.metadata
    spoken = detected = 0
    for recording in speech:
        said = Counter(w for w in recording.text.split() if w in meta.keywords)
        if not said:
            continue
        samples = corpus.samples(recording)
        words = place_words(samples, recording.text)
        detections = detect(meta, final_scores(model, samples))
        for keyword, times in said.items():
            right = sum(
                d.keyword == keyword
                and is_spoken_at(words, keyword, (d.start_sample + d.end_sample) / 2, recording.length)
                for d in detections
            )
            spoken += times
            detected += min(times, right)
    return _share(detected, spoken)


def _without_speech(scene: Scene, seed: int) -> Iterator[tuple[str, Iterator[Float32Array]]]:
    """Yield names of sounds without speech, and pieces of them."""
    for name, recordings in (("noise alone", scene.noises), ("music", scene.music)):
        if recordings:
            yield (
                name,
                (
                    scene.samples(r) * np.float32(10 ** (gain / 20))
                    for r in recordings
                    for gain in _SOUND_GAINS_DB
                ),
            )
    for name in SIGNALS:
        rng = np.random.default_rng((seed, zlib.crc32(name.encode())))
        length, count = _TONES_PIECE_S * SAMPLE_RATE_HZ, TONES_SECONDS // _TONES_PIECE_S
        yield name, (signal_tones(rng, length, name) * np.float32(0.3) for _ in range(count))


def _sounds(model: SpotterModel, name: str, pieces: Iterator[Float32Array]) -> dict[str, Any]:
    alarms: Counter[str] = Counter()
    samples = 0
    for piece in pieces:
        alarms.update(d.keyword for d in detect(model.metadata, final_scores(model, piece)))
        samples += len(piece)
    return {"condition": name, **_rate(alarms, samples / SAMPLE_RATE_HZ / 3600)}
