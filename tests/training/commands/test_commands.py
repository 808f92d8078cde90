from __future__ import annotations

import json
import logging
import os
import re
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
import pytest
import soundfile
from earmark_training.__main__ import main
from earmark_training.command_line import _StandardError, build_parser
from earmark_training.commands.keyword import _keywords, _recordings, _voices
from earmark_training.commands.options import serving_command
from earmark_training.keyword.recordings import RecordingsError
from earmark_training.keyword.voice_files import SynthesisError
from support.tiny_voices import TinyReader

if TYPE_CHECKING:
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
        (["keyword", "_silence_", "--recordings", "{tmp}"], "is the label of a class that every model has"),
        (["keyword", "a\x1b", "--recordings", "{tmp}"], r"because '\x1b' is not a letter"),
        (
            ["keyword", "a", "--recordings", "{tmp}", "--out", "{tmp}/no/a.onnx"],
            "a.onnx cannot be written",
        ),
        (["keyword", "a", "--recordings", "{tmp}", "--out", "{tmp}"], "it is a folder"),
        (
            ["keyword", "a", "--recordings", "{tmp}", "--out", "{tmp}/" + "a" * 246 + ".onnx"],
            "cannot be written: File name too long",
        ),
        (
            ["keyword", "a", "--recordings", "{tmp}", "--synthesize", "--language", "xx"],
            "no synthesizer that speaks 'xx' is installed",
        ),
        (["export", "{tmp}/none", "--out", "/proc/a.onnx"], "/proc/a.onnx cannot be written"),
        (["evaluate", "{tmp}/none.onnx", "--out", "/proc/report"], "/proc/report cannot be written"),
        (["thresholds", "a.onnx", "--out", "{tmp}/no/a"], "no/a cannot be written"),
        (["verifier", "a.onnx", "--out", "{tmp}/a", "--network", "{tmp}/no/n.pt"], "n.pt cannot be written"),
        (["train", "--corpus", "{tmp}", "--out", "/proc/run"], "/proc/run cannot be written"),
        (["negatives", "/proc/speech"], "/proc/speech cannot be written"),
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
    ("arguments", "message"),
    [
        ([], "required"),
        (["prepare"], "required"),
        (["train", "--epochs", "many"], "expected whole numbers"),
        (["train", "--seed", "-1"], "'-1' is not a whole number from 0"),
        (["train", "--keywords", "yes,no,yes"], "'yes' is a label twice"),
        (["train", "--keywords", "yes,_unknown_"], "'_unknown_' is a label twice"),
        (["train", "--keywords", "yes, no"], "the keyword ' no' must be 1 to 64 printable characters"),
        (["train", "--keywords", ""], "the keyword '' must be"),
        (["export", "run", "--name", "my model"], "'my model' must be 1 to 64 letters"),
        (["export", "run", "--version", "1 beta"], "'1 beta' must be 1 to 64 letters"),
        (["export", "run", "--fa-per-hour", "0"], "'0' is not a number above 0"),
        (["verifier", "m.onnx", "--version", "-"], "'-' must be 1 to 64 letters"),
        (["verifier", "m.onnx", "--passes", "0"], "'0' is not a whole number from 1"),
        (["verifier", "m.onnx", "--examples", "-5"], "'-5' is not a whole number from 1"),
        (["verifier", "m.onnx", "--encoded-steps", "1.5"], "'1.5' is not a whole number from 1"),
        (["verifier", "m.onnx", "--fa-per-hour", "nan"], "'nan' is not a number above 0"),
        (["evaluate", "m.onnx", "--seed", "-1"], "'-1' is not a whole number from 0"),
        (["evaluate", "m.onnx", "--fa-per-hour", "-1"], "'-1' is not a number above 0"),
        (["evaluate", "m.onnx", "--split", "testing"], "--split has no effect without --clips"),
        (
            ["evaluate", "m.onnx", "--clips", "c", "--fa-per-hour", "1"],
            "--fa-per-hour has no effect with --clips",
        ),
        (["evaluate", "m.onnx", "--speech", "s", "--fa-per-hour", "1"], "--fa-per-hour has no effect with"),
        (["keyword", "computer"], "use --recordings DIR, or --voices DIR"),
        (["keyword", "a", "--recordings", "r", "--seed", "-1"], "'-1' is not a whole number from 0"),
        (["keyword", "a", "--recordings", "r", "--fa-per-hour", "inf"], "'inf' is not a number above 0"),
        (["keyword", "a", "--recordings", "r", "--name", "Ä"], "'Ä' must be 1 to 64 letters"),
        (["keyword", "a", "--recordings", "r", "--version", ""], "'' must be 1 to 64 letters"),
        (["keyword", "a", "--recordings", "r", "--cache", "c"], "--cache has no effect without --voices"),
        (["keyword", "a", "--recordings", "r", "--pronunciation", "a"], "--pronunciation has no effect"),
        (["keyword", "a", "--voices", "v", "--language", ""], "'' is not the code of a language"),
        (["keyword", "a", "--recordings", "r", "--language", "de"], "without --voices DIR or --synthesize"),
        (["keyword", "a", "--voices", "v", "--one-voice"], "--one-voice has no effect without --recordings"),
        (
            ["keyword", "a", "--voices", "v", "--recordings", "r", "--one-voice"],
            "--one-voice has no effect with --voices",
        ),
    ],
)
def test_wrong_usage_has_exit_code_2(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    assert exit_info.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "run", "--out", "{fifo}"],
        ["keyword", "a", "--recordings", "r", "--out", "{fifo}"],
        ["verifier", "a.onnx", "--out", "{fifo}"],
        ["verifier", "a.onnx", "--out", "{tmp}/a.onnx", "--network", "{fifo}"],
    ],
)
def test_a_path_that_is_no_regular_file_is_not_replaced(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    assert main([a.format(tmp=tmp_path, fifo=fifo) for a in arguments]) == 1
    assert "fifo cannot be written: it is not a regular file" in capsys.readouterr().err
    assert fifo.is_fifo()


@pytest.mark.parametrize(
    ("arguments", "suffix"),
    [
        (["keyword", "a", "--recordings", "r"], ".report.html"),
        (["keyword", "a", "--recordings", "r"], ".metrics.json"),
        (["export", "run"], ".metrics.json"),
        (["verifier", "a.onnx"], ".metrics.json"),
    ],
)
def test_the_files_beside_a_model_are_checked_before_the_work(
    arguments: list[str], suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / f"a{suffix}").mkdir()
    assert main([*arguments, "--out", str(tmp_path / "a.onnx")]) == 1
    assert f"a{suffix} cannot be written: it is a folder" in capsys.readouterr().err


def test_a_full_disk_is_found_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def on_full_disk(**_: object) -> IO[bytes]:
        return open("/dev/full", "wb")

    monkeypatch.setattr("tempfile.TemporaryFile", on_full_disk)
    assert main(["keyword", "a", "--recordings", "r", "--out", str(tmp_path / "a.onnx")]) == 1
    assert f"a.onnx cannot be written: {tmp_path}: No space left on device" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["-computer", "...computer"])
def test_the_default_name_of_a_model_file_is_neither_hidden_nor_an_option(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "computer.onnx").mkdir()
    assert main(["keyword", "--recordings", "absent", "--", word]) == 1
    assert "computer.onnx cannot be written: it is a folder" in capsys.readouterr().err


def test_the_printed_command_has_the_file_in_quotes():
    assert serving_command(Path("my models/a.onnx")) == "earmark-server --model 'my models/a.onnx'"


def test_keywords_that_differ_only_in_case_are_the_same():
    with pytest.raises(RecordingsError, match="a keyword is named twice"):
        _keywords(["STRASSE", "straße"], read=False)


def test_the_default_name_of_a_model_file_is_limited_in_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    words = ["कंप्यूटर " * 6, "नमस्ते " * 8]
    assert main(["keyword", *words, "--recordings", "absent"]) == 1
    assert "absent is not a folder" in capsys.readouterr().err


def test_a_folder_whose_name_no_model_can_have_needs_another_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "my run").mkdir()
    assert main(["export", str(tmp_path / "my run"), "--out", str(tmp_path / "a.onnx")]) == 1
    assert "the model cannot have the name of the folder, 'my run': use --name" in capsys.readouterr().err


@pytest.mark.parametrize("folder", ["typo", "words"])
def test_recordings_of_none_of_several_keywords_are_missed(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "words").mkdir()
    command = ["keyword", "computer", "jarvis", "--voices", str(tmp_path), "--out", str(tmp_path / "a.onnx")]
    assert main([*command, "--recordings", str(tmp_path / folder)]) == 1
    message = "typo is not a folder" if folder == "typo" else "words/computer is missing"
    assert message in capsys.readouterr().err


def test_a_folder_of_recordings_may_have_another_unicode_form(tmp_path: Path):
    (tmp_path / "cafe\u0301").mkdir()
    found = _recordings(["caf\u00e9", "tea"], tmp_path, needed=False)
    assert found == {"caf\u00e9": tmp_path / "cafe\u0301", "tea": None}


@pytest.mark.parametrize(
    ("words", "pronunciations", "message"),
    [
        (["flour", "flower"], [], "'flour' and 'flower' are pronounced alike"),
        (["tea", "cafe\u0301"], ["caf\u00e9=kæfˈeɪ", "cafe\u0301=kæfˈe"], "has another one already"),
        (["да"], [], "has letters that are not those of the language 'en'"),
        (["да"], ["dˈɑ"], ""),
    ],
)
def test_pronunciations_of_keywords_are_checked(
    words: list[str], pronunciations: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("phonemizer", reason="the extra `voices` is not installed")
    monkeypatch.setattr("earmark_training.keyword.kokoro.Kokoro", lambda folder, _: TinyReader(folder))
    given = [option for ipa in pronunciations for option in ("--pronunciation", ipa)]
    args = build_parser().parse_args(["keyword", *words, "--voices", str(tmp_path), *given])
    keywords = _keywords(args.keyword, read=True)
    if message:
        with pytest.raises(SynthesisError, match=message):
            _voices(keywords, args)
    else:
        assert _voices(keywords, args).pronunciations == {"да": [("d", "ˈɑ")]}


def test_the_folder_of_a_keyword_with_a_slash_is_that_of_record_keyword(tmp_path: Path):
    (tmp_path / "AC-DC").mkdir()
    assert _recordings(["AC/DC", "tea"], tmp_path, needed=False) == {"AC/DC": tmp_path / "AC-DC", "tea": None}


def test_the_code_of_a_language_may_have_capital_letters():
    assert (
        build_parser().parse_args(["keyword", "a", "--voices", "v", "--language", "en-GB"]).language
        == "en-gb"
    )


def test_control_characters_in_names_do_not_reach_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "words").mkdir()
    for i in range(2):
        (tmp_path / "words" / f"\x1b[31m{i}.wav").touch()
    out = str(tmp_path / "a.onnx")
    assert main(["keyword", "a", "--recordings", str(tmp_path / "words"), "--out", out]) == 1
    message = "left out:\n  \x1b[31m0.wav: silent"
    _StandardError().emit(logging.LogRecord("", logging.WARNING, "", 0, message, None, None))
    printed = capsys.readouterr().err
    assert "\\x1b[31m0.wav: the recording is empty" in printed
    assert printed.endswith("left out:\n  \\x1b[31m0.wav: silent\n")
    assert "\x1b" not in printed
