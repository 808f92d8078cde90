from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from earmark_training.__main__ import main
from earmark_training.keyword import voice_files
from earmark_training.keyword.voice_files import MODEL_FILE, RELEASE, VOICES_FILE, SynthesisError, check_files

if TYPE_CHECKING:
    from pathlib import Path


def test_missing_and_wrong_files_are_named_with_the_place_to_get_them(tmp_path: Path):
    with pytest.raises(SynthesisError, match="none is not a folder") as missing:
        check_files(tmp_path / "none")
    assert RELEASE in str(missing.value)
    with pytest.raises(SynthesisError, match=f"{MODEL_FILE} is missing"):
        check_files(tmp_path)
    (tmp_path / MODEL_FILE).write_bytes(b"<html>404 Not Found</html>")
    with pytest.raises(SynthesisError, match="is not the file of the release: its SHA-256 is"):
        check_files(tmp_path)


def test_the_voices_are_known_by_their_content_however_they_were_packed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / MODEL_FILE).write_bytes(b"a model")
    monkeypatch.setattr(voice_files, "MODEL_SHA256", hashlib.sha256(b"a model").hexdigest())
    voices = {"af_bella": np.ones((3, 1, 4), np.float32), "zm_yunxi": np.zeros((3, 1, 4), np.float32)}
    content = hashlib.sha256()
    for name, array in voices.items():
        content.update(f"{name} <f4 (3, 1, 4)\n".encode() + array.tobytes())
    monkeypatch.setattr(voice_files, "_VOICES_CONTENT_SHA256", content.hexdigest())
    for save in (np.savez, np.savez_compressed):
        with (tmp_path / VOICES_FILE).open("wb") as file:
            save(file, **dict(reversed(voices.items())))
        check_files(tmp_path)
    with (tmp_path / VOICES_FILE).open("wb") as file:
        np.savez(file, **{**voices, "zm_yunxi": np.ones((3, 1, 4), np.float32)})
    with pytest.raises(SynthesisError, match="is not the file of the release"):
        check_files(tmp_path)
    for other in (
        b"",
        b"<html>404 Not Found</html>",
        b"PK\x03\x04" * 9,
        b"\x93NUMPY\x01\x00",
    ):
        (tmp_path / VOICES_FILE).write_bytes(other)
        with pytest.raises(SynthesisError, match="is not the file of the release"):
            check_files(tmp_path)


def test_a_folder_in_the_place_of_a_file_is_reported(tmp_path: Path):
    (tmp_path / MODEL_FILE).mkdir()
    (tmp_path / VOICES_FILE).mkdir()
    with pytest.raises(SynthesisError, match="is missing"):
        check_files(tmp_path)


@pytest.mark.parametrize(
    ("keyword", "message"),
    [
        ("", "is not a word"),
        ("  ", "is not a word"),
        ("123", "is not a word, because '1', '2' and '3' are not letters: give the keyword"),
        ("r2d2!", "is not a word, because '!' and '2' are not letters"),
        ("a\u200bb", r"'a\u200bb' is not a word, because '\u200b' is not a letter"),
        ("route 66", "route sixty six"),
        ("🦊", "is not a letter"),
        ("fox 🦊", "is not a letter"),
        ("शुरू", "has letters that are not those of the language 'en'"),
        ("a" * 200, "has 200 letters: a keyword has at most 64"),
        ("computer", f"{MODEL_FILE} is missing"),
    ],
)
def test_bad_keywords_and_voices_are_refused_before_any_work(
    keyword: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = ["--out", str(tmp_path / "a.onnx")]
    assert main(["keyword", keyword, "--voices", str(tmp_path), *out]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize("keyword", ["शुरू", "क्‍ष"], ids=["vowel signs", "joiner"])
def test_a_keyword_may_have_all_letters_of_its_language(
    keyword: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = ["--out", str(tmp_path / "a.onnx")]
    assert main(["keyword", keyword, "--language", "hi", "--voices", str(tmp_path), *out]) == 1
    assert f"{MODEL_FILE} is missing" in capsys.readouterr().err


def test_the_output_is_checked_before_the_voices_are_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["keyword", "fox", "--voices", str(tmp_path), "--out", "/proc/a.onnx"]) == 1
    assert "/proc/a.onnx cannot be written" in capsys.readouterr().err


def test_a_keyword_that_is_named_twice_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = ["--out", str(tmp_path / "a.onnx")]
    assert main(["keyword", "fox", "Fox", "--voices", str(tmp_path), *out]) == 1
    assert "a keyword is named twice" in capsys.readouterr().err


def test_languages_without_a_voice_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    command = ["keyword", "Rechner", "--voices", str(tmp_path), "--language", "de"]
    assert main([*command, "--out", str(tmp_path / "a.onnx")]) == 1
    assert "no neural voice reads 'de'" in capsys.readouterr().err
