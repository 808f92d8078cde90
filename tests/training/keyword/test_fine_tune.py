"""From made-up recordings of a made-up word to a model file, by the command."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from earmark_spotter import Spotter, SpotterModel
from earmark_training.__main__ import main
from earmark_training.data.corpus import SourceFile, decode
from earmark_training.keyword.command import Request, teach
from earmark_training.keyword.examples import ExampleMaker, Mix
from earmark_training.keyword.fine_tune import KEYWORD, Tuning, scores, tune
from earmark_training.keyword.material import Material
from earmark_training.model.network import Network, Shape
from earmark_training.model.onnx_file import load_network, pack, to_onnx
from support.synthetic_words import BANANA, COMPUTER, RATE, say, write_recordings, write_speech

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

SHAPE = Shape(4, channels=32, kernels=(5, 5, 5, 5), strides=(1, 2, 1, 1))
# The body knows nothing yet: it learns as fast as the head.
TUNING = Tuning(
    steps=90, learning_rate=1e-2, body_rate=1.0, warmup_steps=5, ema_decay=0.8, rounds=1,
    mix=Mix(size=16, snr_db=(10, 30), gain_db=(-10, 5)),
)  # fmt: skip


class Quiet:
    """A progress bar that shows nothing."""

    n = 0

    def __init__(self, iterable: Iterable[Any] = (), **_: object) -> None:
        self._iterable = iterable

    def __iter__(self) -> Any:
        return iter(self._iterable)

    def __enter__(self) -> Quiet:
        return self

    def __exit__(self, *_: object) -> None: ...

    def update(self, count: int) -> None:
        self.n += count


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file that can be tuned: a network that has learnt nothing, with the shipped one's metadata."""
    torch.manual_seed(0)
    network = Network(SHAPE)
    for name, parameter in network.named_parameters():
        if "norm" in name:  # as if trained: in a fresh one they are all alike, and blocks pass their input on
            torch.nn.init.normal_(parameter, 0.5, 0.1)
    network = network.folded()
    network.mel_mean += -8.0
    network.mel_scale *= 0.3
    graph = to_onnx(network)
    shipped = SpotterModel.load().metadata
    metadata = replace(
        shipped,
        labels=("_silence_", "_unknown_", "yes", "no"),
        keywords={k: shipped.keywords[k] for k in ("yes", "no")},
        step_samples=SHAPE.frame_samples,
        frame_samples=SHAPE.frame_samples,
        receptive_field_samples=SHAPE.receptive_field_samples,
    )
    path = tmp_path_factory.mktemp("base") / "base.onnx"
    pack(graph, network.silent_state().numpy(), metadata, path)
    return path


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recordings(tmp_path_factory.mktemp("computer"), COMPUTER, 24)


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_speech(tmp_path_factory.mktemp("speech"), 8, 5)


@pytest.fixture(scope="module")
def material(recordings: Path, speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Material:
    takes = [SourceFile(p, "clip", "training", "computer") for p in sorted(recordings.glob("*.wav"))]
    others = [SourceFile(p, "speech", "training", "") for p in sorted(speech.rglob("*.flac"))]
    corpus = decode(takes + others, tmp_path_factory.mktemp("corpus"), progress=Quiet)
    clips, said = corpus.select("clip", "training"), corpus.select("speech", "training")
    return Material(corpus, tuple(clips), (), (), tuple(said), ())


def test_a_batch_is_the_same_whenever_it_is_made(material: Material):
    maker = ExampleMaker(material, SHAPE, TUNING.mix, seed=1)
    first, again, other = maker.batch(3), maker.batch(3), maker.batch(4)
    assert torch.equal(first.pcm, again.pcm)
    assert not torch.equal(first.pcm, other.pcm)


def test_a_batch_asks_for_the_keyword_after_its_end_and_nowhere_else(material: Material):
    mix = Mix(size=40, keyword=0.5, part=0.25, noise=0.05, add_noise=0.0, before=0.0, after=0.0)
    batch = ExampleMaker(material, SHAPE, mix, seed=1).batch(0)
    answer_frames = batch.answer.sum(1)
    most = int(0.3 * RATE / SHAPE.frame_samples) + 1
    assert (answer_frames[:20] >= 1).all()
    assert (answer_frames[:20] <= most).all()
    assert not (batch.answer & batch.background).any()
    assert not batch.answer[20:].any()  # parts of it, noise, speech
    assert batch.background[20:].all()


def test_a_network_gives_a_score_for_every_mark(material: Material):
    batch = ExampleMaker(material, SHAPE, TUNING.mix, seed=1).batch(0)
    network = Network(SHAPE).eval()
    assert network.logits(network.log_mel(batch.pcm)).shape[1] == batch.answer.shape[1]


def test_tuning_begins_with_the_base_and_repeats_itself(material: Material, base: Path):
    network = load_network(base)
    before = [p.clone() for p in network.parameters()]
    short = replace(TUNING, steps=3, rounds=0)
    first, again = (tune(network, material, short, progress=Quiet) for _ in range(2))
    assert all(torch.equal(p, q) for p, q in zip(network.parameters(), before, strict=True))
    assert all(torch.equal(p, q) for p, q in zip(first.parameters(), again.parameters(), strict=True))
    changed = [
        (p - q).abs().max()
        for p, q in zip(first.blocks.parameters(), network.blocks.parameters(), strict=True)
    ]
    assert 0 < max(changed) < 0.1


@pytest.fixture(scope="module")
def taught(base: Path, recordings: Path, speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("taught") / "computer.onnx"
    request = Request(
        "computer", recordings, out, (speech,), base=base, fa_per_hour=120, checks=2, tuning=TUNING
    )
    teach(request, progress=Quiet)
    return out


def test_a_taught_model_hears_its_word_from_new_people_and_no_other(taught: Path):
    model = SpotterModel.load(taught)
    meta = model.metadata
    assert (meta.name, meta.labels) == ("computer", ("_silence_", "_unknown_", "computer"))
    heard = {}
    for name, word in (("computer", COMPUTER), ("banana", BANANA)):
        pieces = [say(word, 50 + i, i) for i in range(10)]
        spotter = Spotter(model)
        pcm = (np.concatenate(pieces) * 32767).astype("<i2").tobytes()
        heard[name] = spotter.feed(pcm) + spotter.flush()
    assert len(heard["computer"]) >= 8
    assert len(heard["banana"]) <= 2
    for one in heard["computer"]:
        length_s = (one.end_sample - one.start_sample) / RATE
        assert 0.35 < length_s < 0.7


def test_a_taught_model_says_where_it_comes_from(taught: Path):
    meta = SpotterModel.load(taught).metadata
    names = [s.name for s in meta.training.sources]
    assert names[0].startswith("Google Speech Commands")  # the base model's data
    assert "recordings of 'computer'" in names
    assert {m.name for m in meta.metrics} == {"missed", "false_alarms_per_hour"}


def test_the_report_stands_alone_and_has_the_figures(taught: Path):
    document = json.loads(taught.with_suffix(".metrics.json").read_text())
    assert document["recordings"] == len(document["takes"]) == 24
    assert document["speech"]["recorded"] is True
    assert document["missed"] <= 0.2
    assert document["sha256"] == SpotterModel.load(taught).sha256
    assert 0 < document["threshold"] < 1
    page = taught.with_suffix(".report.html").read_text()
    assert "<svg" in page
    assert not re.search(r'(src|href)="[^#]', page)  # within itself a plot may point
    assert document["sha256"] in page


def test_a_taught_model_can_be_a_base_again(taught: Path):
    network = load_network(taught)
    samples = say(COMPUTER, 60, 1)
    assert network.shape.classes == 3
    assert scores(network, samples)[:, KEYWORD].max() > 0.3


def run_command(recordings: Path, *more: str) -> int:
    return main(["keyword", "computer", "--recordings", str(recordings), *more])


def test_few_recordings_are_warned_of(base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    folder = write_recordings(tmp_path / "few", COMPUTER, 8)
    # Ends at the negatives that are not there: what comes before has been said by then.
    assert run_command(folder, "--base", str(base), "--negatives", str(tmp_path / "none")) == 1
    (warning,) = (r for r in caplog.records if "recordings are few" in r.getMessage())
    assert warning.levelname == "WARNING"
    assert warning.getMessage().startswith("8 recordings are few: expect misses")


def test_one_voice_is_refused_unless_it_is_wanted(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = write_recordings(tmp_path / "mine", COMPUTER, 12, one_person=True)
    assert run_command(folder) == 1
    assert "seem to be of one voice" in capsys.readouterr().err


def test_a_killed_command_leaves_no_process_behind(
    base: Path, recordings: Path, speech: Path, tmp_path: Path
):
    command = [sys.executable, "-m", "earmark_training", "keyword", "computer", "--base", str(base)]
    command += [
        "--recordings",
        str(recordings),
        "--negatives",
        str(speech),
        "--out",
        str(tmp_path / "x.onnx"),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True) as process:
        assert process.stderr is not None
        said = b""
        while not re.search(rb"tuning: +[1-9]", said):  # its workers are busy
            more = os.read(process.stderr.fileno(), 1000)
            assert more, said
            said += more
        process.kill()
        try:
            process.communicate(timeout=60)  # the workers have the same standard error: it ends with the last
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--recordings", "nowhere"], "nowhere is no folder"),
        (["--recordings", "."], "holds no recordings"),
    ],
)
def test_what_is_wrong_ends_the_command_with_1_and_a_sentence(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["keyword", "computer", *arguments]) == 1
    assert said in capsys.readouterr().err


def test_without_recordings_it_is_wrong_usage(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["keyword", "computer"])
    assert ended.value.code == 2
    assert "--recordings" in capsys.readouterr().err
