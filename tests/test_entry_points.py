"""What the three commands have in common: Ctrl-C while they start, and output that cannot be written."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from importlib import import_module
from pathlib import Path

import pytest
from support.deadlines import DEADLINE_S

# The commands import these packages, and one module of many that each of them imports.
_PACKAGES = {
    "earmark_cli": "earmark_cli.command_line",
    "earmark_server": "earmark_server.settings",
    "earmark_training": "earmark_training.commands",
}

_INTERRUPTED = """\
import os, signal, sys

signal.signal(signal.SIGINT, signal.{handler})


class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGINT)


sys.meta_path.insert(0, Interrupt())
from {package}.__main__ import main

sys.exit(main(["--version"]))
"""


def run(package: str, handler: str) -> subprocess.CompletedProcess[str]:
    """Run `--version` of a command, which is interrupted while it imports."""
    code = _INTERRUPTED.format(package=package, module=_PACKAGES[package], handler=handler)
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )


@pytest.mark.parametrize("package", _PACKAGES)
def test_an_interrupt_during_the_imports_ends_the_command_without_a_traceback(package: str) -> None:
    if package == "earmark_training":
        pytest.importorskip("earmark_training.command_line", exc_type=ImportError)
    done = run(package, "default_int_handler")
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize("package", _PACKAGES)
def test_an_ignored_interrupt_stays_ignored_during_the_imports(package: str) -> None:
    if package == "earmark_training":
        pytest.importorskip("earmark_training.command_line", exc_type=ImportError)
    done = run(package, "SIG_IGN")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("package", ["earmark_cli", "earmark_server"])
def test_a_command_runs_in_any_thread_and_restores_the_handler(
    package: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main = import_module(f"{package}.__main__").main
    codes = []

    def run_version() -> None:
        with pytest.raises(SystemExit) as stop:
            main(["--version"])
        codes.append(stop.value.code)

    thread = threading.Thread(target=run_version)
    thread.start()
    thread.join()
    run_version()
    assert codes == [0, 0]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert capsys.readouterr().out.count("earmark") == 2


@pytest.mark.parametrize("option", ["--version", "--help"])
@pytest.mark.parametrize("package", _PACKAGES)
def test_output_that_cannot_be_written_is_reported(package: str, option: str) -> None:
    if package == "earmark_training":
        pytest.importorskip("earmark_training.command_line", exc_type=ImportError)
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", package, option],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
    program = {"earmark_cli": "earmark", "earmark_server": "earmark-server"}.get(package, "earmark-train")
    problem = "the results cannot be written: No space left on device"
    assert (done.returncode, done.stderr) == (1, f"{program}: {problem}\n")
