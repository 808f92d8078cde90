from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
from earmark_training.__main__ import main

if TYPE_CHECKING:
    from pathlib import Path

    from earmark_spotter import SpotterModel
    from earmark_training.data.corpus import Corpus

TABLES = (
    "Classification of clips",
    "Recall in synthetic streams",
    "False alarms in read speech",
    "False alarms without speech",
)


def test_evaluate_measures_on_the_prepared_corpus(
    model_path: Path,
    model: SpotterModel,
    corpus: Corpus,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    arguments = ["evaluate", str(model_path), "--corpus", str(corpus.folder), "--out", str(tmp_path)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    for title in TABLES:
        assert f"\n{title}\n" in printed
    document = json.loads((tmp_path / "metrics.json").read_text())
    assert document["sha256"] == model.sha256
    assert np.sum(document["clips"]["own"]["confusion"]) == 18 + 4  # the clips, and noise in proportion
    assert document["figures"]["clip_accuracy"] > 0.7
    assert document["figures"]["false_alarms_per_hour_10db"] == document["speech"]["noisy"]["per_hour"]
    assert "at 10 dB SNR" in printed
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") == page.count("</svg>") == 3  # curves, curves by keyword, confusion
    assert not re.search(r"https?:|src=|@import|<link|url\((?!#)", page)
    assert document["sha256"] in page
    card = (tmp_path / "model_card.md").read_text()
    assert all(f"| {keyword} |" in card for keyword in model.metadata.keywords)
    assert document["sha256"] in card


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--corpus", "{tmp}"], "run `earmark-train prepare` first"),
        (["prepare", "--clips", "{tmp}", "--corpus", "{tmp}/c"], "contains no clips laid out"),
        (["evaluate", "{tmp}/none.onnx"], "none.onnx cannot be read"),
        (["export", "{tmp}/none"], "No such file"),
        (["keyword", "computer", "--recordings", "{tmp}/none"], "none is not a folder"),
        (["keyword", "computer", "--recordings", "{tmp}"], "contains no recordings"),
        (["keyword", "", "--recordings", "{tmp}"], "is not a word"),
        (["keyword", "123", "--recordings", "{tmp}"], "is not a word"),
        (
            ["keyword", "a", "--recordings", "{tmp}", "--out", "{tmp}/no/a.onnx"],
            "a.onnx cannot be written",
        ),
        (["keyword", "a", "--recordings", "{tmp}", "--out", "{tmp}"], "it is a folder"),
        (["export", "{tmp}/none", "--out", "/proc/a.onnx"], "/proc/a.onnx cannot be written"),
        (["evaluate", "{tmp}/none.onnx", "--out", "/proc/report"], "/proc/report cannot be written"),
        (["train", "--corpus", "{tmp}", "--out", "/proc/run"], "/proc/run cannot be written"),
    ],
)
def test_a_failure_is_one_message_and_exit_code_1(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main([a.format(tmp=tmp_path) for a in arguments]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--clips", "{tmp}/missing"], "missing is not a folder"),
        (["--speech", "{tmp}/missing"], "missing is not a folder"),
        (["--clips", "{tmp}"], "contains no clips laid out"),
        (["--speech", "{tmp}"], "contains no utterances"),
        (["--clips", "{other}"], "none of the clips is of a word that the model knows (low, mid, high)"),
        (["--clips", "{other}", "--split", "validation"], "has no clips for validation"),
        (["--clips", "{damaged}"], "a_nohash_0.wav cannot be read"),
        (["--corpus", "{tmp}/missing"], "run `earmark-train prepare` first"),
    ],
)
def test_evaluate_names_recordings_that_cannot_be_used(
    arguments: list[str],
    message: str,
    tiny_model_path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    for name in ("other", "damaged"):
        (tmp_path / name / "cat").mkdir(parents=True)
        soundfile.write(tmp_path / name / "cat" / "a_nohash_0.wav", np.zeros(16_000), 16_000)
        (tmp_path / name / "testing_list.txt").write_text("cat/a_nohash_0.wav")
    (tmp_path / "damaged" / "cat" / "a_nohash_0.wav").write_bytes(b"RIFF, but no more")
    (tmp_path / "empty").mkdir()
    folders = {"tmp": tmp_path / "empty", "other": tmp_path / "other", "damaged": tmp_path / "damaged"}
    assert main(["evaluate", str(tiny_model_path), *(a.format(**folders) for a in arguments)]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    "arguments", [[], ["prepare"], ["train", "--epochs", "many"], ["keyword", "computer"]]
)
def test_wrong_usage_has_exit_code_2(arguments: list[str]):
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    assert exit_info.value.code == 2
