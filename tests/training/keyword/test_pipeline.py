from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
import pytest
from earmark_spotter import Spotter, SpotterModel
from earmark_training.__main__ import main
from earmark_training.keyword.fine_tune import FIRST_KEYWORD, score
from earmark_training.model.onnx_file import load_network
from support.synthetic_words import BANANA, COMPUTER, RATE, say, write_recordings

if TYPE_CHECKING:
    from pathlib import Path


def test_the_model_detects_its_keyword_from_other_people_and_no_other_word(keyword_model: Path):
    model = SpotterModel.load(keyword_model)
    meta = model.metadata
    assert (meta.name, meta.labels) == ("computer", ("_silence_", "_unknown_", "computer"))
    detections = {}
    for name, word in (("computer", COMPUTER), ("banana", BANANA)):
        pieces = [say(word, 50 + i, i) for i in range(10)]
        spotter = Spotter(model)
        pcm = (np.concatenate(pieces) * 32767).astype("<i2").tobytes()
        detections[name] = spotter.feed(pcm) + spotter.flush()
    assert len(detections["computer"]) >= 8
    assert len(detections["banana"]) <= 2
    for detection in detections["computer"]:
        length_s = (detection.end_sample - detection.start_sample) / RATE
        assert 0.35 < length_s < 0.7


def test_the_metadata_name_the_training_data(keyword_model: Path):
    meta = SpotterModel.load(keyword_model).metadata
    names = [s.name for s in meta.training.sources]
    assert names[0].startswith("Google Speech Commands")  # the data of the base model
    assert "recordings of 'computer'" in names
    assert {m.name for m in meta.metrics} == {"missed", "false_alarms_per_hour"}


def test_the_report_is_self_contained_and_has_the_metrics(keyword_model: Path):
    document = json.loads(keyword_model.with_suffix(".metrics.json").read_text())
    assert document["recordings"] == len(document["takes"]) == 24
    assert document["speech"]["recorded"] is True
    assert document["missed"] <= 0.2
    assert document["sha256"] == SpotterModel.load(keyword_model).sha256
    assert 0 < document["threshold"] < 1
    page = keyword_model.with_suffix(".report.html").read_text()
    assert "<svg" in page
    assert not re.search(r'(src|href)="(?!#|data:)', page)  # its own parts, and its own sounds
    assert document["sha256"] in page


def test_a_fine_tuned_model_can_be_fine_tuned_again(keyword_model: Path):
    network = load_network(keyword_model)
    samples = say(COMPUTER, 60, 1)
    assert network.shape.classes == 3
    assert score(network, samples)[:, FIRST_KEYWORD].max() > 0.3


def run_command(recordings: Path, *more: str) -> int:
    return main(["keyword", "computer", "--recordings", str(recordings), *more])


@pytest.mark.slow
def test_few_recordings_cause_a_warning(base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    folder = write_recordings(tmp_path / "few", COMPUTER, 8)
    # The command fails at the missing negatives, after it has checked the recordings.
    assert run_command(folder, "--base", str(base), "--negatives", str(tmp_path / "none")) == 1
    (warning,) = (r for r in caplog.records if "recordings are few" in r.getMessage())
    assert warning.levelname == "WARNING"
    assert warning.getMessage().startswith("8 recordings are few (with 10, 7% of one word were missed)")


def test_recordings_of_one_voice_are_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = write_recordings(tmp_path / "mine", COMPUTER, 12, one_person=True)
    assert run_command(folder) == 1
    assert "seem to be of one voice" in capsys.readouterr().err


@pytest.mark.slow
def test_a_command_that_is_killed_leaves_no_processes(
    base: Path, recordings: Path, speech: Path, tmp_path: Path
):
    command = [sys.executable, "-m", "earmark_training", "keyword", "computer", "--base", str(base)]
    command += ["--recordings", str(recordings), "--negatives", str(speech)]
    command += ["--out", str(tmp_path / "x.onnx")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, start_new_session=True, env=environment
    ) as process:
        assert process.stderr is not None
        output = b""
        while not re.search(rb"fine-tuning: [1-9]", output):  # the workers are busy
            more = os.read(process.stderr.fileno(), 1000)
            assert more, output
            output += more
        process.kill()
        try:
            # The workers share its standard error, which ends when the last of them ends.
            process.communicate(timeout=60)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
