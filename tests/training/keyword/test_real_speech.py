"""A wake word that people spoke: fine-tuned with some recordings, detected in others."""

from __future__ import annotations

import shutil
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from earmark_spotter import SpotterModel, final_scores
from earmark_training.data.corpus import read_audio
from earmark_training.keyword.fine_tune import FineTuneRecipe
from earmark_training.keyword.outliers import (
    MIN_TYPICAL_SIMILARITY,
    find_suspects,
    similarities,
    typical_similarity,
)
from earmark_training.keyword.pipeline import KeywordRequest, create_model
from earmark_training.keyword.recordings import find_audio, read_recordings
from earmark_training.model.onnx_file import load_network


@pytest.fixture(scope="module")
def wake_words(data_dir: Path) -> dict[str, list[Path]]:
    """Return the recordings of two words, in the order of their names, which are random."""
    words = {w: sorted((data_dir / "wake_words" / w).glob("*.opus")) for w in ("jarvis", "computer")}
    if not all(words.values()):
        pytest.skip("no folder wake_words in the real speech")
    return words


@pytest.fixture(scope="module")
def negatives(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of half an hour of read speech: a chapter of each of 12 speakers."""
    folder = tmp_path_factory.mktemp("negatives")
    speakers = sorted((data_dir / "librispeech" / "LibriSpeech" / "dev-clean").glob("*"))[:12]
    for speaker in speakers:
        chapter = sorted(speaker.iterdir())[0]
        shutil.copytree(chapter, folder / speaker.name / chapter.name)
    return folder


def copy(paths: list[Path], folder: Path) -> Path:
    folder.mkdir()
    for path in paths:
        shutil.copy(path, folder)
    return folder


@pytest.mark.slow
def test_a_keyword_is_learned_from_fifty_recordings(
    wake_words: dict[str, list[Path]], negatives: Path, tmp_path: Path
):
    folder = copy(wake_words["jarvis"][:50], tmp_path / "jarvis")
    request = KeywordRequest(
        {"jarvis": folder},
        tmp_path / "jarvis.onnx",
        (negatives,),
        base=Path(str(files("earmark_spotter") / "models" / "default.onnx")),
        fa_per_hour=5,
        folds=0,
        recipe=FineTuneRecipe(steps=120, rounds=1, mined_hours=0.1, verifier_batches=40, verifier_steps=400),
    )
    create_model(request)
    model = SpotterModel.load(request.out)
    threshold = model.metadata.keywords["jarvis"].threshold

    def detected(paths: list[Path]) -> float:
        """Return the share of recordings whose score reaches the threshold."""
        highest = [final_scores(model, np.pad(read_audio(p), 16_000))[:, 2].max() for p in paths]
        return float(np.mean(np.array(highest) >= threshold))

    assert detected(wake_words["jarvis"][50:150]) >= 0.9
    assert detected(wake_words["computer"][:50]) <= 0.1


@pytest.mark.slow
@pytest.mark.parametrize("word", ["jarvis", "computer"])
def test_recordings_of_another_word_are_suspects(
    wake_words: dict[str, list[Path]], negatives: Path, tmp_path: Path, word: str
):
    network = load_network(Path(str(files("earmark_spotter") / "models" / "default.onnx")))
    background = [read_audio(f) for f in find_audio(negatives)[0][:60]]
    other = "computer" if word == "jarvis" else "jarvis"
    for i in range(3):
        own, others = wake_words[word][30 * i : 30 * (i + 1)], wake_words[other][3 * i : 3 * (i + 1)]
        recordings, _ = read_recordings(copy(own + others, tmp_path / str(i)))
        similarity = similarities(network, recordings, background)
        assert typical_similarity(similarity) > MIN_TYPICAL_SIMILARITY
        suspects = {recordings[k].path.name for k in find_suspects(similarity)}
        assert len(suspects & {f.name for f in own}) <= 3
        assert len(suspects & {f.name for f in others}) >= 2
