"""Usage, help and imports of the `earmark` command."""

from __future__ import annotations

import re

import pytest
from support.earmark_command import (
    earmark,
    python_process,
)


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
def test_wrong_usage_is_reported_with_the_usage(args: list[str]) -> None:
    done = earmark(*args)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: earmark")
    assert "error: " in done.stderr


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
