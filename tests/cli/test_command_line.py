"""Usage, help and imports of the `earmark` command."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from support.earmark_command import earmark, json_lines, python_process
from support.output_schema import check_line

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["spot"],
        ["classify"],
        ["sing"],
        ["spot", "x.wav", "--keyword", "stop=1.5"],
        ["spot", "x.wav", "--keyword", "stop=loud"],
        ["spot", "x.wav", "--keyword", "=0.5"],
        ["spot", "x.wav", "--keyword", "stop=nan"],
        ["spot", "x.wav", "--threshold", "1"],
        ["listen", "--threshold", "loud"],
        ["plot"],
        ["tune"],
        ["tune", "own", "--fa-per-hour", "0"],
        ["plot", "x.wav", "--from", "-1"],
        ["plot", "x.wav", "--from", "1e308"],
        ["plot", "x.wav", "--from", "nan"],
        ["plot", "x.wav", "--to", "1e308"],
        ["plot", "x.wav", "--to", "inf"],
        ["plot", "x.wav", "--to", "0"],
        ["listen", "--duration", "1e308"],
        ["spot", "x.wav", "--exec-timeout", "1e308"],
        ["spot", "-", "--channels", "0"],
        ["spot", "-", "--channels", "9"],
        ["spot", "-", "--rate", "0"],
        ["spot", "-", "--rate", "99999999999"],
        ["spot", "-", "--rate", "16k"],
        ["spot", "-", "--encoding", "mp3"],
        ["spot", "x.wav", "--server", "http://localhost:1"],
        ["listen", "--duration", "0"],
        ["health", "--server", ":1"],
    ],
)
def test_wrong_usage_exits_with_2_and_one_line(args: list[str]) -> None:
    done = earmark(*args)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("earmark: ")
    assert line.endswith("--help`")
    done = earmark(*args, "--json")
    (error,) = json_lines(done.stdout)
    check_line(error)
    assert (done.returncode, error["type"], error["reason"]) == (2, "error", "WRONG_USAGE")


@pytest.mark.parametrize(
    "args",
    [
        ["spot", "-", "--jobs", "2"],
        ["spot", "-", "--channel", "each"],
        ["demo", "--tls"],
        ["spot", "x.wav", "--then-record", "long", "clips"],
        ["plot", "x.wav", "--out", "x.bmp"],
        ["tune", "own", "--out", "x.bmp"],
        ["spot", "x.wav", "--exec-timeout", "5"],
        ["spot", "x.wav", "--exec-at-once", "2", "--clips", "clips"],
        ["check", "x.wav", "--duration", "3"],
        ["check", "--device", "0"],
        ["plot", "x.wav", "--from", "5", "--to", "3"],
        ["plot", "x.wav", "--from", "3", "--to", "3"],
    ],
)
def test_options_that_contradict_each_other_are_wrong_usage(
    args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = earmark(*args, "--json")
    (error,) = json_lines(done.stdout)
    assert (done.returncode, error["reason"]) == (2, "WRONG_USAGE")
    assert done.stderr.splitlines()[-1] == f"earmark: {error['message']}"


@pytest.mark.parametrize(
    ("args", "suggestion"),
    [
        (["sopt", "x.wav"], "Did you mean spot?"),
        (["spot", "x.wav", "--treshold", "0.5"], "unknown option --treshold. Did you mean --threshold?"),
        (["plot", "--outt=x.html"], "Did you mean --out?"),
        (["--verison"], "Did you mean --version?"),
        (["spot", "-", "--encoding", "liner16"], "Did you mean linear16?"),
        (["completion", "bsh"], "Did you mean bash?"),
        (
            ["spot", "-lead.wav"],
            "unknown option -lead.wav: write ./-lead.wav if it is a file. See `earm",
        ),
        (["spot", "-1.wav"], "write ./-1.wav if it is a file"),
        (["plot", "x.wav", "-lead.wav"], "write ./-lead.wav if it is a file"),
        (["spot", "x.wav", "-v"], "unknown option -v. See `earmark spot"),
        (["spot", "x.wav", "--nothing-like-it"], "unknown option --nothing-like-it. See `earmark spot"),
    ],
)
def test_a_mistyped_name_is_corrected(args: list[str], suggestion: str) -> None:
    done = earmark(*args)
    assert (done.returncode, done.stdout) == (2, "")
    assert suggestion in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_every_failure_is_a_json_line_with_a_reason(address: str, recording: Path) -> None:
    for args, reason in {
        ("spot", recording, "--keyword", "hgih", "--server", address): "UNKNOWN_KEYWORD",
        ("spot", recording, "--model", "other", "--server", address): "UNKNOWN_MODEL",
        ("classify", recording, "--model", "other", "--server", address): "UNKNOWN_MODEL",
        ("plot", recording, "--model", "other", "--server", address): "UNKNOWN_MODEL",
        ("spot", recording, "--server", "127.0.0.1:1"): "SERVER_UNREACHABLE",
        ("models", "--server", "127.0.0.1:1"): "SERVER_UNREACHABLE",
        ("plot", "absent.wav", "--server", address): "BAD_RECORDING",
        ("health", "--server", "127.0.0.1:1"): "SERVER_UNREACHABLE",
        ("spot", recording, "--token-file", "absent", "--server", address): "INVALID_REQUEST",
    }.items():
        done = earmark(*args, "--json")
        (error,) = json_lines(done.stdout)
        check_line(error)
        assert (done.returncode, error["type"], error["reason"]) == (1, "error", reason)
        assert error["message"] in done.stderr
        (line,) = earmark(*args).stderr.splitlines()
        assert line.startswith("earmark: ")


def test_jobs_keep_the_reason_of_an_error(recording: Path) -> None:
    done = earmark("spot", recording, "--jobs", "2", "--server", "127.0.0.1:1", "--json")
    (error,) = json_lines(done.stdout)
    assert (error["reason"], error["status"]) == ("SERVER_UNREACHABLE", "UNAVAILABLE")


@pytest.mark.parametrize(
    "command", ["", "spot", "demo", "listen", "classify", "models", "health", "plot", "tune", "completion"]
)
def test_help_fits_a_terminal_and_lists_the_commands(command: str) -> None:
    done = earmark(*command.split(), "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: earmark")
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert "HOST:PORT" in done.stdout or command in {"", "completion"}
    for name in ["spot", "listen", "classify", "models", "health", "exit codes"]:
        assert name in done.stdout or command


def test_the_version_is_that_of_the_package() -> None:
    assert re.fullmatch(r"earmark \d+\.\d+\.\d+\n", earmark("--version").stdout)


def test_optional_and_slow_packages_are_not_imported_at_start() -> None:
    done = python_process(
        "import sys, earmark_client, earmark_cli.command_line as command_line\n"
        "command_line.build_parser()\n"
        "heavy = {'torch', 'onnxruntime', 'soxr', 'sounddevice', 'earmark_server', 'earmark_spotter'}\n"
        "heavy |= {'matplotlib', 'rich', 'shtab'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
