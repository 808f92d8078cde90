"""`earmark-train keyword`: from recordings of a word and the shipped model to a model that knows the word."""

from __future__ import annotations

import logging
import re
import tempfile
import time
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earmark_spotter import SpotterModel
from earmark_spotter.metadata import (
    DetectorInfo,
    KeywordInfo,
    ModelMetadata,
    TrainingInfo,
    TrainingSource,
)
from tqdm import tqdm

from earmark_training.data.corpus import hours
from earmark_training.data.vocabulary import labels_for
from earmark_training.evaluation.operating_point import measure_offsets
from earmark_training.keyword.fine_tune import Tuning
from earmark_training.keyword.material import Material, folds, gather
from earmark_training.keyword.negatives import find_negatives
from earmark_training.keyword.outliers import (
    ONE_VOICE_DB,
    SAME_WORD,
    compare,
    doubtful_ones,
    odd_ones,
    usual_likeness,
    voice_spread_db,
)
from earmark_training.keyword.parallel_training import Job, run_jobs
from earmark_training.keyword.recordings import (
    FEW_RECORDINGS,
    RECOMMENDED_RECORDINGS,
    RecordingsError,
    Rejected,
    listed,
    read_takes,
)
from earmark_training.keyword.report import write_report
from earmark_training.keyword.results import Results
from earmark_training.model.onnx_file import check_streaming, load_network, pack, to_onnx
from earmark_training.model.train import code_commit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from earmark_training.keyword.recordings import Take
    from earmark_training.model.network import Network

log = logging.getLogger(__name__)

_MANY_ODD = 0.2
_BACKGROUND_PIECES = 60
_FEW_HELD_OUT_HOURS = 1.0
_CHECKED_TAKES = 10


@dataclass(frozen=True, slots=True)
class Request:
    """What to teach, from what, and where to write it."""

    keyword: str
    recordings: Path
    out: Path
    negatives: tuple[Path, ...] = ()
    synthesize: str | None = None
    """The language of the synthesizers, if they are to be used."""
    base: Path | None = None
    """The model to begin with; None: the one that comes with the package."""
    name: str | None = None
    version: str = "1.0.0"
    fa_per_hour: float = 0.5
    one_voice: bool = False
    checks: int = 3
    """Tunings that leave a part of the recordings out, to see how well those are heard."""
    tuning: Tuning = field(default_factory=Tuning)


def teach(request: Request, *, progress: Callable[..., Any] = tqdm) -> SpotterModel:
    """Write the model file, and beside it a report (`.report.html`) and its figures (`.metrics.json`).

    Raises RecordingsError, SynthesisError or CorpusError for what it is to learn from, and ExportError for
    a base model that cannot be tuned.
    """
    started = time.monotonic()
    keyword = request.keyword
    takes, rejected = read_takes(request.recordings)
    if rejected:
        log.warning("%d recordings are left out:\n%s", len(rejected), listed(rejected))
    _check_voices(takes, request)
    _tell_number(len(takes))
    base = SpotterModel.load(request.base)
    if keyword in base.metadata.keyword_names:
        log.info("%s knows %r already; this makes a model of its own for it", base.metadata.name, keyword)
    network = load_network(request.base or _bundled_model())
    found = find_negatives(request.negatives, keyword, seed=request.tuning.seed)
    if found.left_out:
        log.info("%d utterances with %r in their transcript are left out", found.left_out, keyword)
    with tempfile.TemporaryDirectory(prefix="earmark-keyword-") as scratch:
        material = gather(
            keyword, [t.path for t in takes], found.files, Path(scratch),
            synthesize=request.synthesize, seed=request.tuning.seed, progress=progress,
        )  # fmt: skip
        odd = _odd_ones(network, takes, material, request)
        material = material.without(odd)
        left_out = [*rejected, *odd.values()]
        takes = [t for i, t in enumerate(takes) if i not in odd]
        real_speech = bool(found.files)
        _tell(material, real_speech=real_speech)
        metadata = _provisional(request, base, network, real_speech=real_speech)
        jobs = [
            Job(network, material, part, request.tuning, metadata)
            for part in ((), *folds(len(takes), request.checks, request.tuning.seed))
        ]
        final, *checks = run_jobs(jobs, progress=progress)
        results = Results(
            keyword, request.fa_per_hour, takes, left_out, material, real_speech, final, checks
        )  # fmt: skip
        graph, state = to_onnx(final.network), final.network.silent_state().numpy()
        model = pack(graph, state, metadata)
        check_streaming(
            final.network, model, [material.corpus.samples(t) for t in material.takes[:_CHECKED_TAKES]]
        )
        metadata = measure_offsets(model, material.corpus)
        info = replace(metadata.keywords[keyword], threshold=results.threshold)
        metadata = replace(metadata, keywords={keyword: info}, metrics=results.metrics())
        model = pack(graph, state, metadata, request.out)
        document = results.document()
    document |= {
        "model": metadata.name,
        "version": metadata.version,
        "sha256": model.sha256,
        "seed": request.tuning.seed,
        "seconds": round(time.monotonic() - started),
    }
    write_report(document, request.out)
    return model


def _bundled_model() -> Path:
    return Path(str(resources.files("earmark_spotter") / "models" / "default.onnx"))


def _tell_number(count: int) -> None:
    if count < FEW_RECORDINGS:
        log.warning(
            "%d recordings are few: expect misses (a third of one word that was taught from 10 recordings, "
            "one in forty of another). Better record %d or more",
            count,
            RECOMMENDED_RECORDINGS,
        )
    elif count < RECOMMENDED_RECORDINGS:
        log.info("%d recordings; with %d it hears better", count, RECOMMENDED_RECORDINGS)


def _check_voices(takes: Sequence[Take], request: Request) -> None:
    """Refuse recordings of one voice, unless that is wanted."""
    spread = voice_spread_db(takes)
    if spread < ONE_VOICE_DB and not request.one_voice:
        raise RecordingsError(
            f"all {len(takes)} recordings in {request.recordings} seem to be of one voice and microphone "
            f"(their spectra differ by {spread:.1f} dB; several people's by {ONE_VOICE_DB:g} dB or more): "
            "others would not be heard well. Add recordings of other people, or say --one-voice if it is "
            "for one person"
        )


def _odd_ones(
    network: Network, takes: Sequence[Take], material: Material, request: Request
) -> dict[int, Rejected]:
    """Return, by their numbers, the recordings that do not sound like the others; refuse many of them."""
    background = [material.corpus.samples(r) for r in material.speech[:_BACKGROUND_PIECES]]
    alike = compare(network, takes, background)
    usual, doubtful = usual_likeness(alike), doubtful_ones(alike)
    odd = {i: Rejected(takes[i].path, "it does not sound like the same word") for i in odd_ones(alike)}
    others = [Rejected(takes[i].path, "is it the same word?") for i in doubtful if i not in odd]
    if usual < SAME_WORD or len(doubtful) > _MANY_ODD * len(takes):
        raise RecordingsError(
            f"the recordings in {request.recordings} do not sound like one word (likeness {usual:.2f}, "
            f"{len(doubtful)} of {len(takes)} odd): put recordings of one keyword into a folder"
            + (", and listen to these:\n" + listed([*odd.values(), *others]) if doubtful else "")
        )
    if odd:
        log.warning(
            "%d recordings do not sound like the others and are left out:\n%s", len(odd), listed(odd.values())
        )
    if others:
        log.info("%d recordings sound less like the others; listen to them:\n%s", len(others), listed(others))
    return odd


def _tell(material: Material, *, real_speech: bool) -> None:
    log.info(
        "%d recordings, %d synthesized, %d synthesized words like it; %.1f h of speech, and %.1f h held out",
        len(material.takes),
        len(material.voices),
        len(material.lookalikes),
        hours(material.speech),
        material.held_out_hours,
    )
    if not real_speech:
        log.warning(
            "no recorded speech without the keyword was given: synthesizers read some instead. False alarms "
            "in people's speech are then not measured, and must be expected: better give --negatives"
        )
    elif material.held_out_hours < _FEW_HELD_OUT_HOURS:
        log.warning(
            "%.1f h of held-out speech is little: the threshold is an extrapolation; give more --negatives",
            material.held_out_hours,
        )


def _provisional(
    request: Request, base: SpotterModel, network: Network, *, real_speech: bool
) -> ModelMetadata:
    shape = network.shape
    sources = [
        *base.metadata.training.sources,
        TrainingSource(f"recordings of {request.keyword!r}", "the speakers' own", "whoever made this model"),
    ]
    if real_speech:
        sources.append(TrainingSource("speech without the keyword", "see there", "whoever made this model"))
    if request.synthesize or not real_speech:
        sources.append(
            TrainingSource("synthesized speech", "free", "eSpeak NG, Flite, Festival, as far as installed")
        )
    return ModelMetadata(
        name=request.name or _name_of(request.keyword),
        version=request.version,
        labels=labels_for((request.keyword,)),
        keywords={request.keyword: KeywordInfo(0.5, refractory_ms=500, end_lag_ms=0, duration_ms=600)},
        sample_rate_hz=shape.sample_rate_hz,
        step_samples=shape.frame_samples,
        frame_samples=shape.frame_samples,
        receptive_field_samples=shape.receptive_field_samples,
        detector=DetectorInfo(base.metadata.detector.hold_ms, base.metadata.detector.separation_ms),
        metrics=(),
        training=TrainingInfo(tuple(sources), code_commit()),
    )


def _name_of(keyword: str) -> str:
    """Return a model's name for a keyword: its letters and digits, the rest as dashes."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", keyword).strip("-._") or "keyword"
