"""Names that are not UTF-8: files of old disks and archives, keywords, models and outputs."""

from __future__ import annotations

import base64
import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from earmark_cli.review.reviewed_clips import read_clips
from earmark_client import InvalidRequestError, SyncClient
from support.earmark_command import earmark, earmark_process, json_lines
from support.output_schema import check_line

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.earmark_command import Done

NAME = os.fsdecode(b"caf\xe9")


@pytest.fixture(scope="module")
def named(recording: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a recording whose name is in Latin-1, in a folder of such a name, as `tune` expects it."""
    path = tmp_path_factory.mktemp("names") / NAME / "low" / f"{NAME}.wav"
    path.parent.mkdir(parents=True)
    path.write_bytes(recording.read_bytes())
    return path


def exact(line: dict[str, Any], key: str) -> bytes:
    """Return the bytes of a name in a line, which must be valid JSON for strict parsers too."""
    assert "caf\\udce9" in line[key]
    json.dumps(line, ensure_ascii=False).encode()  # fails for an unpaired surrogate
    return base64.b64decode(line[f"{key}_base64"])


def test_json_has_the_exact_names(address: str, named: Path, tmp_path: Path) -> None:
    out = tmp_path / f"{NAME}.html"
    plotted, *_ = json_lines(earmark("plot", named, "-o", out, "--server", address, "--json").stdout)
    check_line(plotted)
    assert exact(plotted, "source") == os.fsencode(named)
    assert exact(plotted, "out") == os.fsencode(out)
    missing = named.with_name("absent.wav")
    (error,) = json_lines(earmark("spot", missing, "--server", address, "--json").stdout)
    check_line(error)
    assert exact(error, "source") == os.fsencode(missing)
    assert str(missing).encode(errors="backslashreplace").decode() in error["message"]


def test_clips_and_their_review_have_the_exact_name(address: str, named: Path, tmp_path: Path) -> None:
    done = earmark("spot", named, "--keyword", "low", "--server", address, "--clips", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    (clip,) = read_clips(tmp_path)
    clip.judge("right")
    (written,) = read_clips(tmp_path)
    assert exact(written.fields, "source") == os.fsencode(named)


@pytest.mark.slow
@pytest.mark.parametrize("option", [[], ["--json"]])
@pytest.mark.parametrize("command", ["spot", "classify", "check"])
def test_a_recording_is_read(address: str, named: Path, command: str, option: list[str]) -> None:
    server = [] if command == "check" else ["--server", address]
    done = earmark_process(command, named, *server, *option)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\udce9" in done.stdout
    for line in json_lines(done.stdout) if option else ():
        check_line(line)
        assert "source" not in line or exact(line, "source") == os.fsencode(named)


def test_a_command_can_open_the_recording(address: str, named: Path, tmp_path: Path) -> None:
    action, copy = tmp_path / "action", tmp_path / "copy"
    action.write_text(f'#!/bin/sh\ncp "$EARMARK_SOURCE" {copy}\n')
    action.chmod(0o755)
    done = earmark("spot", named, "--keyword", "low", "--server", address, "--exec", action)
    assert (done.returncode, done.stderr) == (0, "")
    assert copy.read_bytes() == named.read_bytes()


@pytest.mark.parametrize("suffix", ["html", "png"])
def test_a_recording_is_plotted(address: str, named: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"{NAME}.{suffix}"
    done = earmark("plot", named, "-o", out, "--server", address)
    assert done.returncode == 0
    assert out.stat().st_size > 1000
    if suffix == "html":
        assert "caf\\udce9.wav" in out.read_text()


@pytest.mark.parametrize("suffix", ["html", "png", "svg"])
def test_a_folder_is_tuned(address: str, named: Path, tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / f"{NAME}.{suffix}"
    done = earmark("tune", named.parents[1], "-o", out, "--server", address)
    assert done.returncode == 0
    assert out.stat().st_size > 1000


def test_a_recording_that_cannot_be_read_is_named(address: str, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.wav").write_text("no sound")
    for command in ("spot", "classify", "plot", "check"):
        server = [] if command == "check" else ["--server", address]
        done = earmark(command, tmp_path / f"{NAME}.wav", *server)
        assert done.returncode == 1
        assert "caf\\udce9.wav: this is a text file" in done.stderr.lower()


@pytest.mark.parametrize(
    "arguments",
    [
        ["spot", "--keyword", NAME],
        ["spot", "--keyword", f"{NAME}=0.5"],
        ["spot", "--model", NAME],
        ["spot", "--model", NAME, "--threshold", "0.5"],
        ["classify", "--model", NAME],
        ["plot", "--keyword", NAME],
        ["plot", "--model", NAME],
    ],
)
def test_a_keyword_or_a_model_is_rejected_in_one_sentence(
    address: str, recording: Path, tmp_path: Path, arguments: list[str]
) -> None:
    out = ["-o", str(tmp_path / "page.html")] if arguments[0] == "plot" else []
    done = earmark(*arguments, *out, recording, "--server", address)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert "'caf\\udce9' is not valid UTF-8" in line


def test_other_arguments_are_rejected_in_one_sentence(address: str, named: Path, recording: Path) -> None:
    def last(done: Done) -> str:
        assert done.returncode in {1, 2}
        return done.stderr.splitlines()[-1]

    tune = ["tune", named.parents[1], "--model", NAME]
    assert "is not valid UTF-8" in last(earmark(*tune, "--server", address))
    assert "is not valid UTF-8" in last(earmark("health", "--server", f"{NAME}:1"))
    assert "is not valid UTF-8" in last(earmark("health", EARMARK_SERVER=f"{NAME}:1"))
    for option in ("--token-file", "--ca"):
        done = earmark("spot", recording, option, NAME, "--server", address)
        assert "caf\\udce9 cannot be read" in last(done)


@pytest.mark.parametrize(
    "call",
    [
        lambda client: list(client.stream([], sample_rate_hz=16_000, request_id=NAME)),
        lambda client: list(client.stream([], sample_rate_hz=16_000, keywords=[NAME])),
        lambda client: client.spot(b"\0\0", sample_rate_hz=16_000, keywords=[NAME]),
        lambda client: client.classify(b"\0\0", sample_rate_hz=16_000, request_id=NAME),
        lambda client: client.get_model(NAME),
        lambda client: client.health(NAME),
        lambda client: next(client.watch_health(NAME)),
    ],
)
def test_the_client_rejects_text_that_is_not_unicode(
    address: str, call: Callable[[SyncClient], object]
) -> None:
    with SyncClient(address) as client, pytest.raises(InvalidRequestError, match="is not valid UTF-8"):
        call(client)
