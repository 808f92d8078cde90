"""A verifier on the features of the speech encoder, which all models of a process share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from earmark_spotter import AudioFormat, Encoding, ModelError, Spotter, SpotterModel, final_scores
from earmark_spotter.speech_encoder import bundled_speech_encoder
from support import tiny_model

if TYPE_CHECKING:
    from pathlib import Path

    from earmark_spotter import Detection

FORMAT = AudioFormat(Encoding.FLOAT32, 16_000)
WORDS = [(0.3, "low"), (0.62, "mid"), (2.0, "high"), (2.9, "low"), (3.25, "high"), (4.6, "mid")]
AUDIO = tiny_model.recording(WORDS, 6, noise=0.001)


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> SpotterModel:
    return build(tmp_path_factory.mktemp("encoded") / "encoded.onnx")


def build(path: Path, *, both: bool = False, **verifier: Any) -> SpotterModel:
    tiny_model.build(
        path,
        document=tiny_model.encoded_metadata(**verifier),
        verifier=tiny_model.verifier(samples=24_000) if both else None,
        encoded_verifier=tiny_model.encoded_verifier(),
    )
    return SpotterModel.load(path)


def spot(model: SpotterModel) -> list[Detection]:
    spotter = Spotter(model, audio_format=FORMAT)
    return spotter.feed(AUDIO) + spotter.flush()


def test_features_do_not_depend_on_the_level() -> None:
    encoder = bundled_speech_encoder()
    pcm = AUDIO[: encoder.window_samples]
    features = encoder.features(pcm)
    assert features.shape == (30, 288)
    assert np.isfinite(features).all()
    assert np.allclose(encoder.features(pcm * np.float32(1 / 64)), features, atol=1e-3)
    assert np.abs(encoder.features(AUDIO[-encoder.window_samples :]) - features).mean() > 0.01
    assert np.isfinite(encoder.features(np.zeros_like(pcm))).all()


def test_a_detection_has_the_score_of_the_features_up_to_the_end_of_its_peak_hold(
    encoded: SpotterModel, tiny: SpotterModel
) -> None:
    encoder, first = bundled_speech_encoder(), {d.id: d.confidence for d in spot(tiny)}
    found = spot(encoded)
    assert found
    for detection in found:
        end = (int(detection.id.rsplit("-", 1)[1]) + 1 + 5) * tiny_model.FRAME_SAMPLES  # 100 ms of hold
        window = np.pad(AUDIO, (encoder.window_samples, 0))[end : end + encoder.window_samples]
        power = float(np.square(encoder.features(window)).mean())
        index = encoded.metadata.labels.index(detection.keyword)
        expected = first[detection.id] * np.exp(-0.1 * (power + index))
        assert detection.confidence == pytest.approx(expected, abs=1e-5)


def test_the_encoder_is_used_if_the_score_of_the_first_graph_reaches_the_threshold(tmp_path: Path) -> None:
    every, none = (build(tmp_path / f"{t}.onnx", both=True, encoder_threshold=t) for t in (0.0, 1.0))
    some = build(tmp_path / "some.onnx", both=True, encoder_threshold=0.6)
    scores = [final_scores(model, AUDIO) for model in (every, some, none)]
    before = scores[2]
    assert (before[before > 0] < 0.6).any()
    assert (before >= 0.6).any()
    assert np.array_equal(scores[1], np.where(before >= 0.6, scores[0], before))
    assert (scores[0][before > 0] < before[before > 0]).all()


def test_the_graph_before_has_its_own_certain_score(tmp_path: Path) -> None:
    verifier = build(
        tmp_path / "both.onnx", both=True, certain_score=0.95, encoder_certain_score=0.6
    ).verifier
    before = build(tmp_path / "before.onnx", both=True, certain_score=0.95, encoder_threshold=1).verifier
    assert verifier is not None
    assert before is not None
    pcm, scores = AUDIO[:24_000] * np.float32(0.3), {2: 0.96, 3: 0.95, 4: 0.6}
    first, final = before.final_scores(pcm, scores), verifier.final_scores(pcm, scores)
    assert final[2] == first[2] == 0.96
    assert 0.6 < final[3] == first[3] < 0.95
    assert final[4] < first[4] < 0.6


def test_the_encoder_is_not_used_for_a_certain_score(tmp_path: Path) -> None:
    verifier = build(tmp_path / "certain.onnx", certain_score=0.9).verifier
    assert verifier is not None
    pcm = AUDIO[:24_000]
    assert verifier.final_scores(pcm, {2: 0.91}) == {2: 0.91}
    assert verifier.final_scores(pcm, {2: 0.89})[2] < 0.89


def test_the_encoder_runs_once_for_all_keywords_of_a_peak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verifier = build(tmp_path / "both.onnx", both=True).verifier
    assert verifier is not None
    pcm, scores = AUDIO[:24_000], {2: 0.7, 3: 0.6, 4: 0.9}
    alone = {index: verifier.final_scores(pcm, {index: score})[index] for index, score in scores.items()}
    encoder = bundled_speech_encoder()
    run, runs = encoder.features, []
    monkeypatch.setattr(encoder, "features", lambda pcm: runs.append(1) or run(pcm))
    monkeypatch.setattr(verifier, "_encoder", encoder)
    assert verifier.final_scores(pcm, scores) == alone
    assert len(runs) == 1


def test_all_models_share_one_encoder(encoded: SpotterModel, tmp_path: Path) -> None:
    other = build(tmp_path / "other.onnx")
    assert encoded.verifier is not None
    assert other.verifier is not None
    assert other.verifier._encoder is encoded.verifier._encoder


@pytest.mark.parametrize(
    ("verifier", "message"),
    [
        ({"encoder_sha256": "0" * 64}, "needs the speech encoder 000000000000, but this version"),
        ({"encoder_sha256": None}, "both `verifier.encoder_sha256` and `earmark_encoded_verifier`"),
        ({"encoder_sha256": 1}, "`verifier.encoder_sha256` must be a string"),
        ({"window_samples": 12_000}, "`verifier.window_samples` is 12000"),
        ({"encoder_threshold": 2}, "`verifier.encoder_threshold` is 2, but must be at most 1"),
        (
            {"encoder_certain_score": 0.5},
            "`verifier.encoder_certain_score` is 0.5, but must be at least 0.51",
        ),
    ],
)
def test_metadata_that_does_not_fit_the_encoder_is_rejected(
    verifier: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=message):
        build(tmp_path / "invalid.onnx", **verifier)


def test_a_graph_for_other_features_is_rejected(tmp_path: Path) -> None:
    path = tiny_model.build(
        tmp_path / "invalid.onnx",
        document=tiny_model.encoded_metadata(),
        encoded_verifier=tiny_model.encoded_verifier(width=96),
    )
    with pytest.raises(ModelError, match="does not run on a window"):
        SpotterModel.load(path)
    path = tiny_model.build(
        tmp_path / "invalid.onnx",
        document=tiny_model.encoded_metadata(),
        verifier=tiny_model.encoded_verifier(),
        encoded_verifier=tiny_model.encoded_verifier(),
    )
    with pytest.raises(ModelError, match=r"must have the inputs pcm \[1, samples\]"):
        SpotterModel.load(path)
