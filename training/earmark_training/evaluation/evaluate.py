"""Evaluation of a model file, through `earmark_spotter`: exactly what is served.

`evaluate` measures everything and returns a document, which `tables` shows, and `report` draws.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from earmark_spotter import Detector, classify, resolve_settings, score_recording
from earmark_spotter.metadata import Metric

from earmark_training.data.corpus import hours
from earmark_training.data.vocabulary import SILENCE, UNKNOWN
from earmark_training.errors import CorpusError
from earmark_training.evaluation.clip_protocols import Answered, count
from earmark_training.evaluation.cross_validation import cross_validate
from earmark_training.evaluation.det_curve import curve
from earmark_training.evaluation.non_speech import silent_sounds
from earmark_training.evaluation.operating_point import detect, false_alarms
from earmark_training.evaluation.peaks import Peaks, Utterance, collect_peaks, hear_utterances
from earmark_training.evaluation.slices import measure_speakers, measure_subsets
from earmark_training.evaluation.streams import judge, make_streams
from earmark_training.model.validation import validation_clips

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from earmark_spotter import Detection, SpotterModel
    from earmark_spotter.metadata import ModelMetadata
    from earmark_spotter.model import Float32Array

    from earmark_training.data.corpus import Corpus, Recording
    from earmark_training.evaluation.test_material import Material

log = logging.getLogger(__name__)

STREAM_SNRS_DB = (None, 20.0, 10.0, 5.0, 0.0)
CURVE_SNRS_DB = (None, 10.0)
STATED_ALARMS_PER_HOUR = (0.5, 1.0, 2.0, 5.0, 10.0)
SEED = 7
"""Not calibration's: other pauses, other neighbours, other noise."""

NOISY_SPEECH_SNR_DB = 10.0
_NOISE_GAINS_DB = (0.0, -10.0, -20.0)


def evaluate(
    model: SpotterModel,
    material: Material,
    *,
    seed: int = SEED,
    fa_per_hour: float = 2.0,
) -> tuple[list[Metric], dict[str, Any]]:
    """Measure all that the material has; return the figures and a document with them and their details.

    fa_per_hour: the operating point that is cross-validated, where speakers are known.
    Raises CorpusError where there is nothing to measure: no clip of a word that the model knows, no speech.
    """
    corpus, meta = material.corpus, model.metadata
    clips, speech = corpus.select("clip", "validation"), corpus.select("speech", "validation")
    check_known(meta, clips, speech)
    figures: list[Metric] = []
    document: dict[str, Any] = {
        "model": meta.name,
        "version": meta.version,
        "sha256": model.sha256,
        "data": {"what": material.description, "noise": material.noise, "seed": seed},
        "thresholds": {k: info.threshold for k, info in meta.keywords.items()},
        "figures": {},
    }
    if clips:
        log.info("clips")
        found, document["clips"], document["subsets"] = evaluate_clips(model, corpus)
        figures += found
    words: dict[str, Peaks] = {}
    # Nobody says what word an unknown one of a test archive is: it may be a keyword.
    streamed = [c for c in clips if c.text not in (SILENCE, UNKNOWN)]
    if streamed:
        log.info("streams")
        found, document["streams"], words = evaluate_streams(model, corpus, streamed, seed)
        figures += found
    if speech:
        log.info("speech")
        utterances = hear_utterances(model, corpus, speech)
        found, document["speech"] = evaluate_speech(meta, utterances, calibrated_on=material.calibrated_on)
        figures += found
        if corpus.select("noise", "validation"):
            noisy = hear_utterances(model, corpus, speech, snr_db=NOISY_SPEECH_SNR_DB, seed=seed)
            found, document["speech"]["noisy"] = evaluate_noisy_speech(meta, noisy)
            figures += found
        if words:
            document["tradeoff"] = evaluate_tradeoff(meta, words, collect_peaks(meta, [], utterances))
    log.info("sounds that nobody speaks in")
    document["sounds"] = evaluate_sounds(model, corpus, seed)
    if material.calibrated_on and words and speech:
        log.info("cross-validation")
        found, document["cross_validation"] = cross_validate(model, corpus, seed, fa_per_hour)
        figures += found
    document["figures"] = {f.name: round(f.value, 4) for f in figures}
    return figures, document


def check_known(meta: ModelMetadata, clips: Sequence[Recording], speech: Sequence[Recording]) -> None:
    """Raise CorpusError where the clips hold no word that the model knows, or nothing is there at all."""
    if not clips and not speech:
        raise CorpusError("there is nothing to measure on: no clips and no speech")
    said = {c.text for c in clips}
    if clips and said.isdisjoint(meta.keywords):
        raise CorpusError(
            f"none of the clips says a word that the model knows ({', '.join(meta.keyword_names)}): "
            f"they are of {', '.join(sorted(said)[:12])}"
        )


def evaluate_clips(
    model: SpotterModel, corpus: Corpus
) -> tuple[list[Metric], dict[str, Any], dict[str, Any]]:
    """Classify the validation clips; return figures, details by protocol, and accuracy in subsets."""
    labels = model.metadata.labels
    recordings = corpus.select("clip", "validation")
    clips, _ = validation_clips(corpus, labels)
    answers = [labels[int(classify(model, clip).argmax())] for clip in clips]
    said, silences = len(recordings), len(clips) - len(recordings)
    results = count(
        Answered(tuple(r.text for r in recordings), tuple(answers[:said])),
        Answered((SILENCE,) * silences, tuple(answers[said:])),
        labels,
    )
    figures, details = [], {}
    for r in results:
        name = "clip_accuracy" if r.protocol == "own" else f"clip_accuracy_{r.protocol}"
        how = f"; {r.note}" if r.note else ""
        description = f"share of {r.clips} clips put into the right one of {len(r.classes)} classes{how}"
        figures.append(Metric(name, r.accuracy, description))
        details[r.protocol] = r.document()
    known = [
        (r, r.text == a)
        for r, a in zip(recordings, answers, strict=False)
        if r.text in model.metadata.keywords
    ]
    keyword_clips, right = [r for r, _ in known], [hit for _, hit in known]
    subsets = {
        "subsets": measure_subsets(corpus, keyword_clips, right),
        "speakers": measure_speakers(keyword_clips, right),
    }
    return figures, details, subsets


def evaluate_streams(
    model: SpotterModel, corpus: Corpus, clips: Sequence[Recording], seed: int
) -> tuple[list[Metric], dict[str, Any], dict[str, Peaks]]:
    """Listen to streams of the clips at each noise level, at the model's own thresholds.

    Returns figures, details by level, and the peaks of the levels that curves are drawn of.
    """
    meta = model.metadata
    figures: list[Metric] = []
    details: dict[str, dict[str, Any]] = {}
    peaks: dict[str, Peaks] = {}
    for snr in STREAM_SNRS_DB:
        streams = make_streams(corpus, clips, snr_db=snr, seed=seed)
        scores = [score_recording(model, s.samples) for s in streams]
        heard = [list(listen(meta, s)) for s in scores]
        verdict = judge(streams, [[d for d, _ in h] for h in heard], meta.keyword_names)
        decided = [{d.id: at for d, at in h} for h in heard]
        delays_ms = [
            (decided[i][d.id] - word.end) * 1000 / meta.sample_rate_hz
            for i, word, d in verdict.matches
            if word.located
        ]
        level = "clean" if snr is None else f"{snr:g}db"
        if snr in CURVE_SNRS_DB:
            peaks[level] = collect_peaks(
                meta, [(s.words, x) for s, x in zip(streams, scores, strict=True)], []
            )
        where = "without added noise" if snr is None else f"with noise at {snr:g} dB"
        spoken = verdict.spoken.total()
        figures.append(
            Metric(
                f"stream_found_{level}",
                verdict.found_fraction,
                f"share of {spoken} keywords found in streams {where}",
            )
        )
        details[level] = {
            "hours": round(sum(s.hours for s in streams), 3),
            "spoken": spoken,
            "found": verdict.found.total(),
            "wrong": verdict.wrong.total(),
            "repeated": verdict.repeated.total(),
            "delay_ms": _delays(delays_ms),
            "found_by_keyword": {
                k: round(verdict.found[k] / verdict.spoken[k], 4)
                for k in meta.keyword_names
                if verdict.spoken[k]
            },
            "wrong_by_keyword": dict(verdict.wrong),
        }
    if delay := details["clean"]["delay_ms"]:
        figures.append(
            Metric(
                "delay_ms",
                delay["median"],
                "median of the audio, in ms, from a word's end to the step in which its detection is decided",
            )
        )
    return figures, details, peaks


def listen(metadata: ModelMetadata, scores: Float32Array) -> Iterator[tuple[Detection, int]]:
    """Yield the detections in a recording's scores, and how many samples had to be heard for each.

    Step by step as a server does it, at the model's own thresholds.
    """
    detector = Detector(metadata, resolve_settings(metadata))
    frames = metadata.frames_per_step
    for start in range(0, len(scores), frames):
        for detection in detector.push(scores[start : start + frames]):
            yield detection, (start + frames) * metadata.frame_samples
    for detection in detector.flush():
        yield detection, len(scores) * metadata.frame_samples


def _delays(delays_ms: Sequence[float]) -> dict[str, float]:
    if not delays_ms:
        return {}
    median, high = np.percentile(delays_ms, (50, 95)).tolist()
    return {"median": round(median), "95th": round(high), "words": len(delays_ms)}


def evaluate_speech(
    meta: ModelMetadata, utterances: Sequence[Utterance], *, calibrated_on: bool
) -> tuple[list[Metric], dict[str, Any]]:
    """Count false alarms in read speech."""
    length = hours(utterances)
    alarms = false_alarms(meta, utterances)
    lenient = false_alarms(meta, utterances, anywhere=True)
    figure = Metric(
        "false_alarms_per_hour",
        alarms.total() / length,
        f"detections of keywords that the transcript does not have there, per hour, in {length:.1f} h of "
        "read speech, all keywords together"
        + ("; thresholds were chosen on the same speech" if calibrated_on else ""),
    )
    return [figure], {
        "hours": round(length, 3),
        "utterances": len(utterances),
        "alarms": alarms.total(),
        "per_hour": round(alarms.total() / length, 3),
        "alarms_if_excused_anywhere": lenient.total(),
        "per_hour_if_excused_anywhere": round(lenient.total() / length, 3),
        "by_keyword": dict(alarms),
    }


def evaluate_noisy_speech(
    meta: ModelMetadata, utterances: Sequence[Utterance]
) -> tuple[list[Metric], dict[str, Any]]:
    """Count false alarms in read speech that was heard under noise."""
    length = hours(utterances)
    alarms = false_alarms(meta, utterances).total()
    figure = Metric(
        f"false_alarms_per_hour_{NOISY_SPEECH_SNR_DB:g}db",
        alarms / length,
        f"the same, with noise at {NOISY_SPEECH_SNR_DB:g} dB",
    )
    details = {"snr_db": NOISY_SPEECH_SNR_DB, "alarms": alarms, "per_hour": round(alarms / length, 3)}
    return [figure], details


def evaluate_tradeoff(meta: ModelMetadata, words: dict[str, Peaks], speech: Peaks) -> dict[str, Any]:
    """Return the DET curves, per keyword and of all together, and what is found at stated alarm rates."""
    overall = {level: curve(meta, peaks, speech, meta.keyword_names) for level, peaks in words.items()}
    return {
        "overall": {level: c.points() for level, c in overall.items()},
        "by_keyword": {
            k: {level: curve(meta, peaks, speech, [k]).points(25) for level, peaks in words.items()}
            for k in meta.keyword_names
        },
        "found_at": {
            f"{rate:g}": {level: round(1 - c.missed_at(rate), 4) for level, c in overall.items()}
            for rate in STATED_ALARMS_PER_HOUR
            if rate * speech.hours >= 1  # less than one alarm cannot be told from none
        },
    }


def evaluate_sounds(model: SpotterModel, corpus: Corpus, seed: int) -> list[dict[str, Any]]:
    """Count what is heard where nobody speaks: the corpus's noise at three levels, and sounds made up."""
    meta = model.metadata
    rows = []

    def add(name: str, pieces: Sequence[Float32Array]) -> None:
        heard: Counter[str] = Counter()
        for piece in pieces:
            heard.update(d.keyword for d in detect(meta, score_recording(model, piece)))
        minutes = sum(map(len, pieces)) / meta.sample_rate_hz / 60
        rows.append(
            {
                "sound": name,
                "minutes": round(minutes, 2),
                "detections": heard.total(),
                "per_hour": round(heard.total() / minutes * 60, 2),
                "by_keyword": dict(heard),
            }
        )

    noises = [corpus.samples(n) for n in corpus.select("noise", "validation")]
    for gain_db in _NOISE_GAINS_DB if noises else ():
        name = "noise of the streams" if not gain_db else f"the same, {-gain_db:g} dB weaker"
        add(name, [n * np.float32(10 ** (gain_db / 20)) for n in noises])
    for name, samples in silent_sounds(seed):
        add(name, [samples])
    return rows
