"""The systemd units in the documents are valid, and the commands that they start exist."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from earmark_cli.command_line import build_parser
from earmark_server.command_line import read_settings

DOCS = Path(__file__).parents[1] / "docs"


def unit_of(page: str) -> tuple[str, list[str]]:
    """Return the unit that a page shows, and the words of the command that it starts."""
    (unit,) = re.findall(r"^```ini\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)
    (start,) = re.findall(r"^ExecStart=(.*)$", unit, re.MULTILINE)
    return unit, shlex.split(start)


def test_the_unit_of_the_microphone_starts_a_valid_command() -> None:
    program, *arguments = unit_of("actions.md")[1]
    assert Path(program).name == "earmark"
    args = build_parser().parse_args(arguments)
    assert args.exec == ["/opt/earmark/lamp.sh"]


def test_the_unit_of_the_server_stops_later_than_its_server() -> None:
    unit, (program, *arguments) = unit_of("small-machines.md")
    assert Path(program).name == "earmark-server"
    settings = read_settings(arguments, {})
    (timeout,) = re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)
    assert settings.drain_grace_s < int(timeout)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
@pytest.mark.parametrize("page", ["actions.md", "small-machines.md"])
def test_systemd_accepts_the_unit(page: str, tmp_path: Path) -> None:
    text, (program, *_) = unit_of(page)
    unit = tmp_path / "earmark.service"
    unit.write_text(text.replace(program, sys.executable))
    command = ["systemd-analyze", "verify", "--recursive-errors=no", unit]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    unit.write_text(re.sub(r"^Restart=.*$", "Restart=perhaps", unit.read_text(), flags=re.MULTILINE))
    assert "perhaps" in subprocess.run(command, capture_output=True, text=True, check=False).stderr
