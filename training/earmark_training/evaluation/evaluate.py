"""Evaluation of a model file through `earmark_spotter`, exactly as it is served.

`evaluate` measures everything and returns a document, which `tables` formats and `report` plots.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from earmark_audio.progress import SILENT, Progress
from earmark_spotter import classify, final_scores
from earmark_spotter.metadata import Metric

from earmark_training.data.corpus import hours
from earmark_training.data.vocabulary import SILENCE, UNKNOWN
from earmark_training.errors import CorpusError
from earmark_training.evaluation.clip_protocols import ClassifiedClips, results_by_protocol
from earmark_training.evaluation.cross_validation import cross_validate
from earmark_training.evaluation.det_curve import det_curve
from earmark_training.evaluation.detections import detect, detect_in_steps, false_alarms
from earmark_training.evaluation.non_speech import non_speech_sounds
from earmark_training.evaluation.peaks import Peaks, ScoredUtterance, collect_peaks, score_utterances
from earmark_training.evaluation.robustness import condition_metrics, measure_conditions
from earmark_training.evaluation.scoring_progress import ScoringProgress, hours_to_evaluate
from earmark_training.evaluation.slices import measure_speakers, measure_subsets
from earmark_training.evaluation.streams import make_streams, match_detections
from earmark_training.model.validation import validation_clips

if TYPE_CHECKING:
    from collections.abc import Sequence

    from earmark_spotter import SpotterModel
    from earmark_spotter.metadata import ModelMetadata
    from earmark_spotter.model import Float32Array

    from earmark_training.data.corpus import Corpus, Recording
    from earmark_training.evaluation.evaluation_set import EvaluationSet

STREAM_SNRS_DB = (None, 20.0, 10.0, 5.0, 0.0)
CURVE_SNRS_DB = (None, 10.0)
STATED_FA_PER_HOUR = (0.5, 1.0, 2.0, 5.0, 10.0)
SEED = 7
"""Other than the seed with which thresholds are chosen: other pauses, other order, other noise."""

NOISY_SPEECH_SNR_DB = 10.0
_NOISE_GAINS_DB = (0.0, -10.0, -20.0)


def evaluate(
    model: SpotterModel,
    evaluation_set: EvaluationSet,
    *,
    seed: int = SEED,
    fa_per_hour: float = 2.0,
    progress: Progress = SILENT,
) -> tuple[list[Metric], dict[str, Any]]:
    """Measure all that the evaluation set allows; return the metrics, and a document with all details.

    `fa_per_hour` is the operating point that is cross-validated if the thresholds were chosen on the set.
    Raises CorpusError if there is nothing to measure: no clip of a word that the model knows, and no speech.
    """
    corpus, meta = evaluation_set.corpus, model.metadata
    clips, speech = corpus.select("clip", "validation"), corpus.select("speech", "validation")
    check_recordings(meta, clips, speech)
    cross_validated = evaluation_set.thresholds_chosen_on_it and bool(clips and speech)
    expected = hours_to_evaluate(corpus, len(STREAM_SNRS_DB), cross_validated=cross_validated)
    scoring = ScoringProgress(model, progress, {phase: h for phase, h in expected.items() if h})
    model = scoring.model
    metrics: list[Metric] = []
    document: dict[str, Any] = {
        "model": meta.name,
        "version": meta.version,
        "sha256": model.sha256,
        "data": {"what": evaluation_set.description, "noise": evaluation_set.noise, "seed": seed},
        "thresholds": {k: info.threshold for k, info in meta.keywords.items()},
        "figures": {},
    }
    if clips:
        with scoring.phase("clips"):
            new, document["clips"], document["subsets"] = evaluate_clips(model, corpus)
        metrics += new
    words: dict[str, Peaks] = {}
    # The words of unknown clips in a test archive are not stated, so they may be keywords.
    stream_clips = [c for c in clips if c.text not in (SILENCE, UNKNOWN)]
    if stream_clips:
        with scoring.phase("streams"):
            new, document["streams"], words = evaluate_streams(model, corpus, stream_clips, seed)
        metrics += new
    if speech:
        with scoring.phase("read speech"):
            utterances = score_utterances(model, corpus, speech)
            new, document["speech"] = evaluate_speech(
                meta, utterances, thresholds_chosen_on_it=evaluation_set.thresholds_chosen_on_it
            )
            metrics += new
            if corpus.clip_noises("validation"):
                noisy = score_utterances(model, corpus, speech, snr_db=NOISY_SPEECH_SNR_DB, seed=seed)
                new, document["speech"]["noisy"] = evaluate_noisy_speech(meta, noisy)
                metrics += new
            if words:
                document["det_curve"] = compute_det_curves(meta, words, collect_peaks(meta, [], utterances))
    with scoring.phase("conditions"):
        document["conditions"] = measure_conditions(model, corpus, stream_clips, speech, seed)
    metrics += condition_metrics(document["conditions"])
    with scoring.phase("sounds without speech"):
        document["sounds"] = evaluate_sounds(model, corpus, seed)
    if evaluation_set.thresholds_chosen_on_it and words and speech:
        with scoring.phase("cross-validation"):
            new, document["cross_validation"] = cross_validate(model, corpus, seed, fa_per_hour)
        metrics += new
    document["figures"] = {m.name: round(m.value, 4) for m in metrics}
    return metrics, document


def check_recordings(meta: ModelMetadata, clips: Sequence[Recording], speech: Sequence[Recording]) -> None:
    """Raise CorpusError if there are no recordings, or no clip is of a word that the model knows."""
    if not clips and not speech:
        raise CorpusError("there is nothing to measure: no clips and no speech")
    words = {c.text for c in clips}
    if clips and words.isdisjoint(meta.keywords):
        raise CorpusError(
            f"none of the clips is of a word that the model knows ({', '.join(meta.keyword_names)}): "
            f"they are of {', '.join(sorted(words)[:12])}"
        )


def evaluate_clips(
    model: SpotterModel, corpus: Corpus
) -> tuple[list[Metric], dict[str, Any], dict[str, Any]]:
    """Classify the validation clips; return metrics, details by protocol, and accuracy on subsets."""
    labels = model.metadata.labels
    recordings = corpus.select("clip", "validation")
    clips, _ = validation_clips(corpus, labels)
    predicted = [labels[int(classify(model, clip).argmax())] for clip in clips]
    spoken, silences = len(recordings), len(clips) - len(recordings)
    results = results_by_protocol(
        ClassifiedClips(tuple(r.text for r in recordings), tuple(predicted[:spoken])),
        ClassifiedClips((SILENCE,) * silences, tuple(predicted[spoken:])),
        labels,
    )
    metrics, details = [], {}
    for r in results:
        name = "clip_accuracy" if r.protocol == "own" else f"clip_accuracy_{r.protocol}"
        note = f"; {r.note}" if r.note else ""
        description = f"classification accuracy on {r.clips} clips, {len(r.classes)} classes{note}"
        metrics.append(Metric(name, r.accuracy, description))
        details[r.protocol] = r.document()
    known = [
        (r, r.text == p)
        for r, p in zip(recordings, predicted, strict=False)
        if r.text in model.metadata.keywords
    ]
    keyword_clips, correct = [r for r, _ in known], [c for _, c in known]
    subsets = {
        "subsets": measure_subsets(corpus, keyword_clips, correct),
        "speakers": measure_speakers(keyword_clips, correct),
    }
    return metrics, details, subsets


def evaluate_streams(
    model: SpotterModel, corpus: Corpus, clips: Sequence[Recording], seed: int
) -> tuple[list[Metric], dict[str, Any], dict[str, Peaks]]:
    """Measure recall and delay in streams of the clips at each SNR, at the model's thresholds.

    Return metrics, details by SNR, and the peaks at the SNRs for which DET curves are drawn.
    """
    meta = model.metadata
    metrics: list[Metric] = []
    details: dict[str, dict[str, Any]] = {}
    peaks: dict[str, Peaks] = {}
    for snr_db in STREAM_SNRS_DB:
        streams = make_streams(corpus, clips, snr_db=snr_db, seed=seed)
        scores = [final_scores(model, s.samples) for s in streams]
        detections = [list(detect_in_steps(meta, s)) for s in scores]
        matched = match_detections(streams, [[d for d, _ in ds] for ds in detections], meta.keyword_names)
        decided = [{d.id: sample for d, sample in ds} for ds in detections]
        delays_ms = [
            (decided[i][d.id] - word.end) * 1000 / meta.sample_rate_hz
            for i, word, d in matched.matches
            if word.located
        ]
        level = "clean" if snr_db is None else f"{snr_db:g}db"
        if snr_db in CURVE_SNRS_DB:
            words_and_scores = [(s.words, x) for s, x in zip(streams, scores, strict=True)]
            peaks[level] = collect_peaks(meta, words_and_scores, [])
        condition = "without added noise" if snr_db is None else f"at an SNR of {snr_db:g} dB"
        spoken = matched.spoken.total()
        metrics.append(
            Metric(
                f"stream_found_{level}",
                matched.recall,
                f"recall of {spoken} keywords in synthetic streams {condition}",
            )
        )
        details[level] = {
            "hours": round(hours(streams), 3),
            "spoken": spoken,
            "detected": matched.detected.total(),
            "wrong": matched.wrong.total(),
            "repeated": matched.repeated.total(),
            "delay_ms": _delay_statistics(delays_ms),
            "recall_by_keyword": {
                k: round(matched.detected[k] / matched.spoken[k], 4)
                for k in meta.keyword_names
                if matched.spoken[k]
            },
            "wrong_by_keyword": dict(matched.wrong),
        }
    if delay := details["clean"]["delay_ms"]:
        metrics.append(
            Metric(
                "delay_ms",
                delay["median"],
                "median delay in ms of audio, from the end of a word to the step that decides its detection",
            )
        )
    return metrics, details, peaks


def _delay_statistics(delays_ms: Sequence[float]) -> dict[str, float]:
    if not delays_ms:
        return {}
    median, high = np.percentile(delays_ms, (50, 95)).tolist()
    return {"median": round(median), "95th": round(high), "words": len(delays_ms)}


def evaluate_speech(
    meta: ModelMetadata, utterances: Sequence[ScoredUtterance], *, thresholds_chosen_on_it: bool
) -> tuple[list[Metric], dict[str, Any]]:
    """Count the false alarms in read speech; return the metric and details."""
    length = hours(utterances)
    alarms = false_alarms(meta, utterances)
    lenient = false_alarms(meta, utterances, anywhere=True)
    metric = Metric(
        "false_alarms_per_hour",
        alarms.total() / length,
        f"false alarms per hour in {length:.1f} h of read speech, all keywords together: detections without "
        "the keyword at that place in the transcript"
        + ("; the thresholds were chosen on the same speech" if thresholds_chosen_on_it else ""),
    )
    return [metric], {
        "hours": round(length, 3),
        "utterances": len(utterances),
        "alarms": alarms.total(),
        "per_hour": round(alarms.total() / length, 3),
        "alarms_if_excused_anywhere": lenient.total(),
        "per_hour_if_excused_anywhere": round(lenient.total() / length, 3),
        "by_keyword": dict(alarms),
    }


def evaluate_noisy_speech(
    meta: ModelMetadata, utterances: Sequence[ScoredUtterance]
) -> tuple[list[Metric], dict[str, Any]]:
    """Count the false alarms in read speech with added noise; return the metric and details."""
    length = hours(utterances)
    alarms = false_alarms(meta, utterances).total()
    metric = Metric(
        f"false_alarms_per_hour_{NOISY_SPEECH_SNR_DB:g}db",
        alarms / length,
        f"false alarms per hour in the same read speech at an SNR of {NOISY_SPEECH_SNR_DB:g} dB",
    )
    details = {"snr_db": NOISY_SPEECH_SNR_DB, "alarms": alarms, "per_hour": round(alarms / length, 3)}
    return [metric], details


def compute_det_curves(meta: ModelMetadata, words: dict[str, Peaks], speech: Peaks) -> dict[str, Any]:
    """Return the DET curves, overall and by keyword, and the recall at stated false alarms per hour."""
    overall = {level: det_curve(meta, peaks, speech, meta.keyword_names) for level, peaks in words.items()}
    return {
        "overall": {level: c.points() for level, c in overall.items()},
        "by_keyword": {
            k: {level: det_curve(meta, peaks, speech, [k]).points(25) for level, peaks in words.items()}
            for k in meta.keyword_names
        },
        "recall_at": {
            f"{rate:g}": {level: round(1 - c.miss_rate_at(rate), 4) for level, c in overall.items()}
            for rate in STATED_FA_PER_HOUR
            if rate * speech.hours >= 1  # less than one false alarm cannot be distinguished from none
        },
    }


def evaluate_sounds(model: SpotterModel, corpus: Corpus, seed: int) -> list[dict[str, Any]]:
    """Count the detections in sounds without speech: the corpus's noise at three levels, synthetic ones."""
    meta = model.metadata
    rows = []

    def add(name: str, pieces: Sequence[Float32Array]) -> None:
        detections: Counter[str] = Counter()
        for piece in pieces:
            detections.update(d.keyword for d in detect(meta, final_scores(model, piece)))
        minutes = sum(map(len, pieces)) / meta.sample_rate_hz / 60
        rows.append(
            {
                "sound": name,
                "minutes": round(minutes, 2),
                "detections": detections.total(),
                "per_hour": round(detections.total() / minutes * 60, 2),
                "by_keyword": dict(detections),
            }
        )

    noises = [corpus.samples(n) for n in corpus.clip_noises("validation")]
    for gain_db in _NOISE_GAINS_DB if noises else ():
        name = "noise of the streams" if not gain_db else f"the same noise, {-gain_db:g} dB quieter"
        add(name, [n * np.float32(10 ** (gain_db / 20)) for n in noises])
    for name, samples in non_speech_sounds(seed):
        add(name, [samples])
    return rows
