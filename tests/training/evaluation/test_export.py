from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from earmark_spotter import Spotter, SpotterModel, classify
from earmark_training.errors import ExportError
from earmark_training.evaluation import export
from earmark_training.evaluation.export import calibrate, export_model, read_sources
from earmark_training.evaluation.streams import make_streams, match_detections
from earmark_training.model.checkpoint import load_trained
from support.tiny_training import RECIPE

if TYPE_CHECKING:
    from earmark_training.data.corpus import Corpus


def test_the_metadata_describe_the_model(model: SpotterModel):
    meta = model.metadata
    assert meta.labels == ("_silence_", "_unknown_", "yes", "no")
    assert meta.receptive_field_samples == RECIPE.shape.receptive_field_samples
    assert {m.name for m in meta.metrics} >= {"clip_accuracy", "stream_found_20db", "false_alarms_per_hour"}
    assert all(300 <= info.duration_ms <= 500 for info in meta.keywords.values())


def test_the_model_knows_its_words(model: SpotterModel, corpus: Corpus):
    labels = model.metadata.labels
    clips = [c for c in corpus.select("clip", "validation") if c.text != "cat"]
    correct = [labels[classify(model, corpus.samples(c)).argmax()] == c.text for c in clips]
    assert np.mean(correct) >= 0.9
    streams = make_streams(corpus, clips, snr_db=None, seed=1)
    detections = []
    for stream in streams:
        spotter = Spotter(model)
        detections.append(spotter.feed((stream.samples * 32767).astype("<i2").tobytes()) + spotter.flush())
    assert match_detections(streams, detections, ("yes", "no")).recall >= 0.8


def test_a_graph_whose_streamed_scores_differ_is_rejected(
    run: Path, model_path: Path, corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    trained, out = load_trained(run), tmp_path / "model.onnx"
    trained.network.log_mel.mel *= 1.1  # other scores for speech, the same for silence
    monkeypatch.setattr(export, "to_onnx", lambda _: onnx.load(model_path))
    with pytest.raises(ExportError, match="differ from torch's"):
        export_model(trained, corpus, out, name="synthetic", version="1", fa_per_hour=10)
    assert not out.exists()


def test_thresholds_need_clips_of_every_keyword(tiny_model_path: Path, corpus: Corpus, tmp_path: Path):
    with pytest.raises(ExportError, match="has no clips for validation of: low, mid, high"):
        calibrate(tiny_model_path, corpus, tmp_path / "new.onnx", version=None, fa_per_hour=1)


def test_the_sources_are_those_of_a_file(tmp_path: Path):
    bundled = read_sources(Path(__file__).parents[3] / "training" / "sources.json")
    assert "LibriSpeech" in " ".join(source.name for source in bundled)
    wrong = tmp_path / "sources.json"
    for text in ('{"name": "x"}', '[{"title": "x"}]', "[1]", "no json"):
        wrong.write_text(text)
        with pytest.raises(ExportError, match=r"sources\.json: .* must be a list of data sets"):
            read_sources(wrong)
