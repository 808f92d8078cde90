"""A wake word that people say: taught in little time from some recordings, heard in others."""

from __future__ import annotations

import shutil
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from earmark_spotter import SpotterModel, score_recording
from earmark_training.data.corpus import read_audio
from earmark_training.keyword.command import Request, teach
from earmark_training.keyword.fine_tune import Tuning
from earmark_training.keyword.outliers import SAME_WORD, compare, doubtful_ones, usual_likeness
from earmark_training.keyword.recordings import find_audio, read_takes
from earmark_training.model.onnx_file import load_network

# They fine-tune the bundled model for minutes; test_fine_tune.py fine-tunes a small one on synthetic words.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def recordings(data_dir: Path) -> dict[str, list[Path]]:
    """Files of two words, in an order of chance that is always the same (their names are random)."""
    words = {w: sorted((data_dir / "wake_words" / w).glob("*.opus")) for w in ("jarvis", "computer")}
    if not all(words.values()):
        pytest.skip("no wake_words folder among the real speech")
    return words


@pytest.fixture(scope="module")
def negatives(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half an hour of read speech: a chapter of each of 12 speakers."""
    folder = tmp_path_factory.mktemp("negatives")
    speakers = sorted((data_dir / "librispeech" / "LibriSpeech" / "dev-clean").glob("*"))[:12]
    for speaker in speakers:
        chapter = sorted(speaker.iterdir())[0]
        shutil.copytree(chapter, folder / speaker.name / chapter.name)
    return folder


def _copy(files: list[Path], folder: Path) -> Path:
    folder.mkdir()
    for file in files:
        shutil.copy(file, folder)
    return folder


def test_fifty_recordings_teach_a_word(recordings: dict[str, list[Path]], negatives: Path, tmp_path: Path):
    folder = _copy(recordings["jarvis"][:50], tmp_path / "jarvis")
    request = Request(
        "jarvis", folder, tmp_path / "jarvis.onnx", (negatives,), fa_per_hour=5, checks=0,
        tuning=Tuning(steps=120, rounds=1),
    )  # fmt: skip
    teach(request)
    model = SpotterModel.load(request.out)
    threshold = model.metadata.keywords["jarvis"].threshold

    def heard(files: list[Path]) -> float:
        best = [score_recording(model, np.pad(read_audio(f), 8000))[:, 2].max() for f in files]
        return float(np.mean(np.array(best) >= threshold))

    assert heard(recordings["jarvis"][50:150]) >= 0.9
    assert heard(recordings["computer"][:50]) <= 0.1


@pytest.mark.parametrize("word", ["jarvis", "computer"])
def test_recordings_of_one_word_are_known_as_such_and_those_of_another_found(
    recordings: dict[str, list[Path]], negatives: Path, tmp_path: Path, word: str
):
    network = load_network(Path(str(files("earmark_spotter") / "models" / "default.onnx")))
    background = [read_audio(f) for f in find_audio(negatives)[0][:60]]
    other = "computer" if word == "jarvis" else "jarvis"
    for i in range(3):
        own, strangers = recordings[word][30 * i : 30 * (i + 1)], recordings[other][3 * i : 3 * (i + 1)]
        takes, _ = read_takes(_copy(own + strangers, tmp_path / str(i)))
        alike = compare(network, takes, background)
        assert usual_likeness(alike) > SAME_WORD
        doubtful = {takes[k].path.name for k in doubtful_ones(alike)}
        assert len(doubtful & {f.name for f in own}) <= 3
        assert len(doubtful & {f.name for f in strangers}) >= 2
