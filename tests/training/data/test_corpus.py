from __future__ import annotations

import errno
import os
import resource
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
import soxr
from earmark_audio.progress import Phase, Progress
from earmark_training.__main__ import main
from earmark_training.data.corpus import (
    Corpus,
    SourceFile,
    decode,
    find_clips,
    prepare,
    read_audio,
    speaker_split,
)
from earmark_training.errors import CorpusError, OutputError
from earmark_training.evaluation.evaluation_set import from_corpus

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def test_the_list_file_decides_the_split(corpus: Corpus):
    assert len(corpus.select("clip", "training")) == 3 * 24
    assert len(corpus.select("clip", "validation")) == 3 * 6


def test_samples_are_those_of_the_file(corpus: Corpus, clips_dir: Path):
    clip = next(c for c in corpus.select("clip", "training") if c.text == "no")
    written, _ = soundfile.read(clips_dir / "no" / "00000000_nohash_0.wav", dtype="float32")
    np.testing.assert_allclose(corpus.samples(clip), written, atol=1 / 32768)


def test_noise_is_split_in_time_without_overlap(corpus: Corpus):
    (training,), (validation,) = corpus.select("noise", "training"), corpus.select("noise", "validation")
    assert training.start + training.length == validation.start
    assert validation.length == 16_000


def test_recordings_of_noise_and_music_are_split_by_recording(clips_dir: Path, tmp_path: Path):
    for kind in ("noise", "music"):
        (tmp_path / kind / "deep").mkdir(parents=True)
        for i in range(16):
            for piece in "AB":
                soundfile.write(tmp_path / kind / "deep" / f"{i}-{kind}-{piece}.wav", np.zeros(1_600), 16_000)
    soundfile.write(tmp_path / "music" / "long.wav", np.zeros(61 * 8_000), 8_000)
    corpus = prepare(
        clips_dir,
        [],
        tmp_path / "out",
        noise=[tmp_path / "noise"],
        music=[tmp_path / "music"],
    )
    for kind in ("noise", "music"):
        sounds = [r for r in corpus.recordings if r.kind == kind and r.speaker == kind]
        split_of = {r.text.removesuffix("-A").removesuffix("-B"): r.split for r in sounds}
        assert all(split_of[r.text.removesuffix("-A").removesuffix("-B")] == r.split for r in sounds)
        assert set(split_of.values()) == {"training", "validation"}
    assert next(r for r in corpus.recordings if r.text == "long").length == 60 * 16_000
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match="no sound files"):
        prepare(clips_dir, [], tmp_path / "out", noise=[tmp_path / "empty"])


def test_utterances_keep_their_transcripts_and_speakers_stay_in_one_split(corpus: Corpus):
    texts = [u.text for split in ("training", "validation") for u in corpus.select("speech", split)]
    assert sorted(set(texts)) == ["a long day", "well yes indeed"]
    assert len(texts) == 10
    assert len(corpus.select("speech", "validation")) % 2 == 0


def test_a_folder_without_a_corpus_is_rejected(tmp_path: Path):
    with pytest.raises(CorpusError, match="earmark-train prepare"):
        Corpus(tmp_path)


def test_other_sample_rates_are_resampled(tmp_path: Path):
    for word in ("yes", "_background_noise_"):
        (tmp_path / "in" / word).mkdir(parents=True)
        soundfile.write(tmp_path / "in" / word / "a_nohash_0.flac", np.zeros((44_100, 2)), 44_100)
    corpus = prepare(tmp_path / "in", [], tmp_path / "out")
    assert [r.length for r in corpus.recordings if r.kind == "clip"] == [16_000]


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_long_files_are_read_in_blocks_with_the_same_samples(rate: int, tmp_path: Path):
    samples = np.random.default_rng(0).normal(0, 0.1, 3 * rate + 77)
    soundfile.write(tmp_path / "a.wav", samples, rate)
    corpus = decode([SourceFile(tmp_path / "a.wav", "speech", "training", "", "s")], tmp_path / "corpus")
    whole = read_audio(tmp_path / "a.wav")
    np.testing.assert_array_equal(corpus.audio, np.rint(whole * 32768).astype(np.int16))


def test_of_a_long_file_only_the_seconds_that_are_needed_are_read(tmp_path: Path):
    samples = np.random.default_rng(0).normal(0, 0.1, 120 * 8_000)
    soundfile.write(tmp_path / "a.wav", samples, 8_000)
    for name in ("speech", "music"):
        shutil.copy(tmp_path / "a.wav", tmp_path / f"{name}.wav")
    with (tmp_path / "speech.wav").open("r+b") as file:  # after the part that is used, it is cut off
        file.truncate(110 * 16_000)
    speech = SourceFile(tmp_path / "speech.wav", "speech", "training", "", "s", max_s=50.5)
    music = SourceFile(tmp_path / "music.wav", "music", "training", "", "s")
    beginning, middle = decode([speech, music], tmp_path / "corpus").recordings
    assert (beginning.length, middle.length) == (50.5 * 16_000, 60 * 16_000)
    corpus = Corpus(tmp_path / "corpus")
    for recording, start in ((beginning, 0), (middle, 30)):
        expected = soxr.resample(samples[start * 8_000 :][: recording.length // 2], 8_000, 16_000)
        np.testing.assert_allclose(corpus.samples(recording), expected, atol=1e-3)
    with pytest.raises(CorpusError, match="truncated"):
        decode([replace(speech, max_s=None)], tmp_path / "whole")


def test_the_progress_of_decoding_is_a_share_of_the_audio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seconds = {"word": 1, "music": 98, "other": 1}
    for name, length_s in seconds.items():
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(length_s * 16_000), 16_000)
    shares: list[float | None] = []

    def update(phase: Phase, amount: float) -> None:
        phase.set(phase.n + amount)
        shares.append(phase.share)

    monkeypatch.setattr(Phase, "update", update)
    files = [SourceFile(tmp_path / f"{name}.wav", "music", "training", "", "s") for name in seconds]
    decode(files, tmp_path / "corpus", progress=Progress(shown=False))
    assert shares == pytest.approx([0.01, 0.99, 1], abs=1e-3)


def test_a_preparation_that_fails_leaves_no_older_index(tmp_path: Path):
    soundfile.write(tmp_path / "a.wav", np.zeros(16_000), 16_000)
    (tmp_path / "b.wav").write_text("no audio")
    good, bad = (SourceFile(tmp_path / f"{name}.wav", "clip", "training", "a") for name in "ab")
    assert len(decode([good], tmp_path / "corpus").recordings) == 1
    with pytest.raises(CorpusError, match=r"b\.wav cannot be read"):
        decode([good, bad], tmp_path / "corpus")
    with pytest.raises(CorpusError, match="contains no prepared corpus"):
        Corpus(tmp_path / "corpus")


def test_all_files_that_cannot_be_read_are_named_at_once(tmp_path: Path):
    files = [SourceFile(tmp_path / f"{i:02}.wav", "noise", "training", "a", "s") for i in range(30)]
    for number, file in enumerate(files):
        if number < 25:
            file.path.write_text("no audio")
        else:
            soundfile.write(file.path, np.zeros(16_000), 16_000)
    with pytest.raises(CorpusError) as caught:
        decode(files, tmp_path / "corpus")
    lines = str(caught.value).splitlines()
    assert [str(file.path) in line for file, line in zip(files[:20], lines, strict=False)] == [True] * 20
    assert lines[20:] == ["and 5 more"]
    with pytest.raises(CorpusError, match="contains no prepared corpus"):
        Corpus(tmp_path / "corpus")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("index.json", b""),
        ("index.json", b'{"recordings": [{"kind": "cl'),
        ("index.json", b"\xff"),
        ("index.json", b"[]"),
        ("index.json", b'{"recordings": []}'),
        ("index.json", b'{"recordings": [{"kind": "clip", "word": null}]}'),
        ("audio.i16", b""),
        ("audio.i16", bytes(31_999)),
        ("audio.i16", bytes(31_998)),
        ("audio.i16", None),
    ],
)
def test_a_corpus_that_is_not_complete_is_rejected(name: str, content: bytes | None, tmp_path: Path):
    soundfile.write(tmp_path / "a.wav", np.zeros(16_000), 16_000)
    decode([SourceFile(tmp_path / "a.wav", "clip", "training", "a")], tmp_path / "corpus")
    if content is None:
        (tmp_path / "corpus" / name).unlink()
    else:
        (tmp_path / "corpus" / name).write_bytes(content)
    with pytest.raises(CorpusError, match="corpus contains no complete corpus: run `earmark-train prepare`"):
        Corpus(tmp_path / "corpus")


def test_a_preparation_whose_index_cannot_be_written_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    soundfile.write(tmp_path / "a.wav", np.zeros(16_000), 16_000)
    with pytest.raises(OutputError, match=r"index\.json cannot be written: No space left on device"):
        decode([SourceFile(tmp_path / "a.wav", "clip", "training", "a")], tmp_path / "corpus")
    assert [path.name for path in (tmp_path / "corpus").iterdir()] == ["audio.i16"]


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Let this process and its workers write no file of more than 100 KB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("full_disk")
def test_audio_that_does_not_fit_on_the_disk_is_reported(tmp_path: Path):
    for length in (1_000, 40_000):  # the second is written in part
        soundfile.write(tmp_path / f"{length}.wav", np.zeros(length), 16_000)
    files = [SourceFile(path, "speech", "training", "", "s") for path in tmp_path.glob("*.wav")]
    with pytest.raises(OutputError, match=r"corpus/audio\.i16 cannot be written: File too large"):
        decode([*files, *files], tmp_path / "corpus")


@pytest.mark.usefixtures("full_disk")
def test_synthetic_noise_that_does_not_fit_on_the_disk_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "clips" / "yes").mkdir(parents=True)
    soundfile.write(tmp_path / "clips" / "yes" / "a_nohash_0.wav", np.zeros(16_000), 16_000)
    assert main(["prepare", "--clips", f"{tmp_path}/clips", "--corpus", f"{tmp_path}/corpus"]) == 1
    assert "corpus/white.wav cannot be written: File too large" in capsys.readouterr().err
    assert list((tmp_path / "corpus").iterdir()) == []


def test_folders_that_cannot_be_used_are_named(clips_dir: Path, tmp_path: Path):
    with pytest.raises(CorpusError, match="contains no clips"):
        prepare(tmp_path, [], tmp_path / "out")
    (tmp_path / "yes").mkdir()
    soundfile.write(tmp_path / "yes" / "a_nohash_0.wav", np.zeros(100), 16_000)
    with pytest.raises(CorpusError, match="transcripts"):
        prepare(clips_dir, [tmp_path], tmp_path / "out")


def test_hidden_files_and_pipes_are_ignored_and_transcripts_that_are_no_text_are_named(
    clips_dir: Path, speech_dir: Path, tmp_path: Path
):
    for folder in (clips_dir, speech_dir):
        shutil.copytree(folder, tmp_path / folder.name)
    clips, speech = tmp_path / clips_dir.name, tmp_path / speech_dir.name
    (tmp_path / "sounds").mkdir()
    soundfile.write(tmp_path / "sounds" / "rain.wav", np.zeros(1_600), 16_000)
    expected = prepare(clips, [speech], tmp_path / "out", noise=[tmp_path / "sounds"]).recordings
    # What macOS writes beside every file of an archive or a memory stick.
    for folder in (clips, speech, tmp_path / "sounds"):
        for path in [p for p in folder.rglob("*") if p.is_file()]:
            path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7\xb0")
    # Opening a named pipe waits for a writer.
    for path in (clips / "yes" / "live.wav", speech / "live.trans.txt", tmp_path / "sounds" / "live.wav"):
        os.mkfifo(path)
    found = prepare(clips, [speech], tmp_path / "again", noise=[tmp_path / "sounds"]).recordings
    assert found == expected
    (speech / "b.trans.txt").write_bytes(b"b-1 \xb0")
    with pytest.raises(CorpusError, match=r"b\.trans\.txt is not a list of transcripts in UTF-8"):
        prepare(clips, [speech], tmp_path / "out")


def test_clips_without_noise_get_synthetic_noise(
    clips_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "in").mkdir()
    for word in ("yes", "validation_list.txt"):
        (tmp_path / "in" / word).symlink_to(clips_dir / word)
    corpus = prepare(tmp_path / "in", [], tmp_path / "out")
    assert "no _background_noise_ folder" in caplog.text
    for split, seconds in (("training", 45), ("validation", 15)):
        noises = corpus.clip_noises(split)
        assert {noise.text: noise.length / 16_000 for noise in noises} == dict.fromkeys(
            ("white", "pink", "brown"), seconds
        )
    assert from_corpus(corpus).noise.startswith("synthetic (white, pink, brown)")


def test_a_list_file_may_have_phrases_and_must_be_text(tmp_path: Path):
    for name in ("a_nohash_0", "b_nohash_0"):
        (tmp_path / "hey computer").mkdir(exist_ok=True)
        (tmp_path / "hey computer" / f"{name}.wav").touch()
    listing = tmp_path / "testing_list.txt"
    listing.write_text("\ufeffhey computer/b_nohash_0.wav\n\n.\n")
    assert [clip.split for clip in find_clips(tmp_path)] == ["training", "testing"]
    listing.write_bytes(b"caf\xe9/b_nohash_0.wav\n")
    with pytest.raises(CorpusError, match=r"testing_list\.txt is not a list of names of clips in UTF-8"):
        list(find_clips(tmp_path))


def test_the_hash_rule_is_that_of_the_data_set():
    # Speakers and splits from the data set's published list files.
    assert speaker_split("067f61e2_nohash_3.wav") == "validation"
    assert speaker_split("067f61e2_nohash_0.opus") == "validation"
    assert speaker_split("004ae714_nohash_0.wav") == "training"


def test_the_hash_rule_agrees_with_the_list_files_of_the_real_data(data_dir: Path):
    folder = data_dir / "speech_commands"
    listed = set((folder / "validation_list.txt").read_text().split())
    wrong = [
        path
        for path in folder.glob("[a-z]*/*_nohash_*")
        if (speaker_split(path.name) == "validation") != (f"{path.parent.name}/{path.name}" in listed)
    ]
    assert wrong == []


def test_the_noises_of_the_clips_are_not_those_of_other_folders(clips_dir: Path, tmp_path: Path):
    (tmp_path / "noise").mkdir()
    for i in range(16):
        soundfile.write(tmp_path / "noise" / f"{i}.wav", np.zeros(1_600), 16_000)
    corpus = prepare(clips_dir, [], tmp_path / "out", noise=[tmp_path / "noise"])
    assert len(corpus.select("noise", "validation")) > 1
    assert [n.text for n in corpus.clip_noises("validation")] == ["hiss"]
