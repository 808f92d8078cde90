"""Evaluation of a model file, through `earmark_spotter`: exactly what is served."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from earmark_spotter import classify, score_recording
from earmark_spotter.metadata import Metric

from earmark_training.calibrate import detect, false_alarms
from earmark_training.peaks import hear_utterances, hours
from earmark_training.streams import judge, make_streams
from earmark_training.train import validation_clips

if TYPE_CHECKING:
    from collections.abc import Sequence

    from earmark_spotter import SpotterModel

    from earmark_training.corpus import Corpus

STREAM_SNRS_DB = (None, 20.0, 10.0, 5.0, 0.0)
_SEED = 7  # not calibration's: other pauses, other neighbours, other noise


def evaluate_clips(model: SpotterModel, corpus: Corpus) -> tuple[list[Metric], dict[str, Any]]:
    """Classify the validation clips; return the figures, and details by class with the confusion matrix."""
    labels = model.metadata.labels
    clips, classes = validation_clips(corpus, labels)
    answers = np.array([classify(model, clip).argmax() for clip in clips])
    confusion = np.zeros((len(labels), len(labels)), int)
    np.add.at(confusion, (classes, answers), 1)
    right = confusion.diagonal() / np.maximum(1, confusion.sum(1))
    figures = [
        Metric(
            "clip_accuracy",
            float((answers == classes).mean()),
            f"share of {len(clips)} one-second clips of validation speakers (and noise) put into the right "
            f"one of {len(labels)} classes",
        )
    ]
    return figures, {
        "accuracy_by_class": {label: round(float(r), 4) for label, r in zip(labels, right, strict=True)},
        "confusion": confusion.tolist(),
    }


def evaluate_streams(
    model: SpotterModel, corpus: Corpus, snrs_db: Sequence[float | None] = STREAM_SNRS_DB
) -> tuple[list[Metric], dict[str, Any]]:
    """Listen to streams of the validation clips at each noise level, at the model's own thresholds."""
    meta = model.metadata
    figures, details = [], {}
    clips = corpus.select("clip", "validation")
    for snr in snrs_db:
        streams = make_streams(corpus, clips, snr_db=snr, seed=_SEED)
        verdict = judge(
            streams, [detect(meta, score_recording(model, s.samples)) for s in streams], meta.keyword_names
        )
        level = "clean" if snr is None else f"{snr:g}db"
        where = "without added noise" if snr is None else f"with noise at {snr:g} dB"
        spoken = verdict.spoken.total()
        figures.append(
            Metric(
                f"stream_found_{level}",
                verdict.found_fraction,
                f"share of {spoken} keywords of validation speakers found in streams {where}",
            )
        )
        details[level] = {
            "hours": round(sum(s.hours for s in streams), 3),
            "spoken": spoken,
            "found": verdict.found.total(),
            "wrong": verdict.wrong.total(),
            "repeated": verdict.repeated.total(),
            "found_by_keyword": {
                k: round(verdict.found[k] / max(1, verdict.spoken[k]), 4) for k in meta.keyword_names
            },
        }
    return figures, details


def evaluate_speech(model: SpotterModel, corpus: Corpus) -> tuple[list[Metric], dict[str, Any]]:
    """Count false alarms in the validation speakers' read speech."""
    speech = hear_utterances(model, corpus, corpus.select("speech", "validation"))
    if not speech:
        return [], {}
    length = hours(speech, model.metadata.sample_rate_hz)
    alarms = false_alarms(model.metadata, speech)
    figure = Metric(
        "false_alarms_per_hour",
        alarms.total() / length,
        f"detections of keywords that the transcript does not have there, per hour, in {length:.1f} h of "
        "read speech, all keywords together; thresholds were chosen on the same speech",
    )
    lenient = false_alarms(model.metadata, speech, anywhere=True)
    return [figure], {
        "hours": round(length, 3),
        "by_keyword": dict(alarms),
        "by_keyword_if_excused_anywhere": dict(lenient),
    }


def evaluate(model: SpotterModel, corpus: Corpus) -> tuple[list[Metric], dict[str, Any]]:
    """Measure everything; return the figures and a document with them and their details."""
    figures: list[Metric] = []
    details: dict[str, Any] = {}
    for name, measure in (
        ("clips", evaluate_clips),
        ("streams", evaluate_streams),
        ("speech", evaluate_speech),
    ):
        found, details[name] = measure(model, corpus)
        figures += found
    document = {
        "model": model.metadata.name,
        "version": model.metadata.version,
        "sha256": model.sha256,
        "figures": {f.name: round(f.value, 4) for f in figures},
        **details,
    }
    return figures, document
