"""The verifier, a second network: its final score decides, whatever the chunks and the resumes are."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import pytest
from earmark_spotter import (
    AudioFormat,
    Detector,
    Encoding,
    KeywordSetting,
    ModelError,
    ResumePoint,
    Spotter,
    SpotterModel,
    final_scores,
    resolve_settings,
    score_recording,
)
from hypothesis import given
from hypothesis import strategies as st
from support import tiny_model

if TYPE_CHECKING:
    from pathlib import Path

    from earmark_spotter import Detection

FORMAT = AudioFormat(Encoding.FLOAT32, 16_000)
KINDS = ("verified", "gated", "encoded")
GATE = {"margins_db": [4, 5, 6], "hold_ms": 400}
# Pairs of words within a window, and words alone in it.
WORDS = [(0.3, "low"), (0.62, "mid"), (2.0, "high"), (2.9, "low"), (3.25, "high"), (4.6, "mid"), (5.5, "low")]
WORDS += [(5.85, "mid"), (7.0, "high"), (7.95, "low")]
AUDIO = tiny_model.recording(WORDS, 8, noise=0.001)
AUDIO[int(4.0 * 16_000) : int(4.4 * 16_000)] = 0


@pytest.fixture(scope="module")
def verified_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("verified") / "verified.onnx"
    return tiny_model.build(path, document=tiny_model.VERIFIED_METADATA, verifier=tiny_model.verifier())


@pytest.fixture(scope="module")
def verified(verified_path: Path) -> SpotterModel:
    return SpotterModel.load(verified_path)


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> SpotterModel:
    document = {**tiny_model.VERIFIED_METADATA, "gate": GATE}
    path = tmp_path_factory.mktemp("gated") / "gated.onnx"
    return SpotterModel.load(tiny_model.build(path, document=document, verifier=tiny_model.verifier()))


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> SpotterModel:
    path = tmp_path_factory.mktemp("encoded") / "encoded.onnx"
    document = copy.deepcopy(tiny_model.encoded_metadata())
    document["keywords"]["high"]["threshold"] = 0.7  # its final scores are 0.65
    encoded_verifier = tiny_model.encoded_verifier()
    return SpotterModel.load(tiny_model.build(path, document=document, encoded_verifier=encoded_verifier))


def spot(model: SpotterModel, threshold: float | None = None) -> list[Detection]:
    keywords = [KeywordSetting(name, threshold) for name in model.metadata.keyword_names]
    spotter = Spotter(model, audio_format=FORMAT, keywords=keywords)
    return spotter.feed(AUDIO) + spotter.flush()


def test_a_detection_has_the_final_score_of_the_audio_up_to_the_end_of_its_peak_hold(
    verified: SpotterModel, tiny: SpotterModel
) -> None:
    assert verified.verifier is not None
    found = {detection.id: detection for detection in spot(verified, 0.01)}
    first = spot(tiny)
    assert len(first) == len(WORDS)
    for detection in first:
        frame = int(detection.id.rsplit("-", 1)[1])
        end = (frame + 1 + 5) * tiny_model.FRAME_SAMPLES  # a peak hold of 100 ms
        start = max(0, end - tiny_model.VERIFIED_SAMPLES)
        window = AUDIO[start:end]
        pcm = np.zeros(tiny_model.VERIFIED_SAMPLES, np.float32)
        before = max(0, tiny_model.VERIFIED_SAMPLES - end)
        pcm[before : before + len(window)] = window
        index = verified.metadata.labels.index(detection.keyword)
        score = verified.verifier.final_scores(pcm, {index: detection.confidence})[index]
        assert found[detection.id].confidence == pytest.approx(score, abs=1e-6)


def test_the_threshold_applies_to_the_final_score(verified: SpotterModel, tiny: SpotterModel) -> None:
    everything = spot(verified, 0.01)
    scores = sorted(detection.confidence for detection in everything)
    middle = (scores[4] + scores[5]) / 2
    assert [d for d in everything if d.confidence >= middle] == spot(verified, middle)
    assert len(spot(tiny, middle)) == len(WORDS)


@pytest.mark.slow
@given(
    chunks=st.lists(st.integers(501, 40_000), min_size=1, max_size=30),
    kind=st.sampled_from(KINDS),
)
def test_chunks_change_nothing(chunks: list[int], kind: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(kind)
    expected = spot(model)
    assert 3 <= len(expected) < len(WORDS)
    spotter, found, data, position = Spotter(model, audio_format=FORMAT), [], AUDIO.tobytes(), 0
    while position < len(data):
        for size in chunks:
            found += spotter.feed(data[position : position + size])
            position += size
    assert found + spotter.flush() == expected


@pytest.mark.slow
@given(cut=st.integers(0, len(AUDIO)), kind=st.sampled_from(KINDS))
def test_a_resumed_stream_has_the_same_final_scores(
    cut: int, kind: str, request: pytest.FixtureRequest
) -> None:
    model = request.getfixturevalue(kind)
    spotter = Spotter(model, audio_format=FORMAT)
    found = spotter.feed(AUDIO[:cut])
    progress = spotter.progress()
    point = ResumePoint(progress.replay_offset_ns, progress.resume_token)
    spotter = Spotter(model, audio_format=FORMAT, resume=point)
    replayed = AUDIO[progress.replay_offset_ns * 16_000 // 10**9 :]
    assert found + spotter.feed(replayed) + spotter.flush() == spot(model)


def test_a_certain_score_is_final(verified: SpotterModel, tiny: SpotterModel, tmp_path: Path) -> None:
    document = copy.deepcopy(tiny_model.VERIFIED_METADATA)
    document["verifier"]["certain_score"] = 0.9
    path = tiny_model.build(tmp_path / "certain.onnx", document=document, verifier=tiny_model.verifier())
    certain = SpotterModel.load(path)
    assert [(d.id, d.confidence) for d in spot(certain)] == [(d.id, d.confidence) for d in spot(tiny)]
    assert len(spot(verified)) < len(spot(certain))

    assert certain.verifier is not None
    assert verified.verifier is not None
    pcm = np.full(tiny_model.VERIFIED_SAMPLES, 0.1, np.float32)
    for score in (0.3, 0.9):
        assert certain.verifier.final_scores(pcm, {2: score}) == verified.verifier.final_scores(
            pcm, {2: score}
        )
    assert certain.verifier.final_scores(pcm, {2: 0.91}) == {2: 0.91}
    assert verified.verifier.final_scores(pcm, {2: 1.0})[2] < 0.9


@pytest.mark.parametrize("threshold", [0.35, 0.5, 0.7])
def test_final_scores_decide_the_detections_at_every_threshold(
    verified: SpotterModel, threshold: float
) -> None:
    meta = verified.metadata
    active = resolve_settings(meta, [KeywordSetting(name, threshold) for name in meta.keyword_names])
    detector = Detector(meta, active)
    found = detector.push(final_scores(verified, AUDIO)) + detector.flush()
    assert [(d.id, pytest.approx(d.confidence)) for d in found] == [
        (d.id, d.confidence) for d in spot(verified, threshold)
    ]


def test_without_a_verifier_the_scores_are_final(tiny: SpotterModel) -> None:
    assert tiny.verifier is None
    assert np.array_equal(final_scores(tiny, AUDIO), score_recording(tiny, AUDIO))


@pytest.mark.parametrize(
    ("document", "verifier", "message"),
    [
        (tiny_model.METADATA, tiny_model.verifier(), "both `verifier` and `earmark_verifier`"),
        (tiny_model.VERIFIED_METADATA, None, "both `verifier` and `earmark_verifier`"),
        (tiny_model.VERIFIED_METADATA, "%", "`earmark_verifier` is not base64"),
        (tiny_model.VERIFIED_METADATA, "AAAA", "not an ONNX model"),
        (tiny_model.VERIFIED_METADATA, tiny_model.verifier(output="other"), "output final_score"),
        (
            {**tiny_model.METADATA, "verifier": {"window_samples": 100, "proposal_threshold": 0.3}},
            tiny_model.verifier(),
            "does not run on a window of 100 samples",
        ),
        (
            {**tiny_model.METADATA, "verifier": {"window_samples": 12_000, "proposal_threshold": 1}},
            tiny_model.verifier(),
            "verifier.proposal_threshold` must be between 0 and 1",
        ),
    ],
)
def test_an_invalid_verifier_is_rejected(
    document: dict[str, object], verifier: object, message: str, tmp_path: Path
) -> None:
    path = tiny_model.build(tmp_path / "invalid.onnx", document=document, verifier=verifier)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=message):
        SpotterModel.load(path)


def test_a_stream_keeps_only_the_audio_that_a_proposal_can_need(verified: SpotterModel) -> None:
    spotter = Spotter(verified, audio_format=FORMAT)
    for start in range(0, len(AUDIO), 1600):
        spotter.feed(AUDIO[start : start + 1600])
        recent = spotter._stream._reader.recent
        assert recent is not None
        kept = sum(piece if isinstance(piece, int) else len(piece) for piece in recent._pieces)
        assert kept <= tiny_model.VERIFIED_SAMPLES + 3 * 1600
