"""The systemd unit in the documents is valid, and the command that it starts exists."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from earmark_cli.command_line import build_parser

PAGE = (Path(__file__).parents[1] / "docs/actions.md").read_text()
UNIT = re.findall(r"^```ini\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[0]
START = re.findall(r"^ExecStart=(.*)$", UNIT, re.MULTILINE)[0]


def test_the_unit_starts_a_valid_command() -> None:
    program, *arguments = shlex.split(START)
    assert Path(program).name == "earmark"
    args = build_parser().parse_args(arguments)
    assert args.exec == ["/opt/earmark/lamp.sh"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "earmark-listen.service"
    unit.write_text(UNIT.replace(START.split()[0], sys.executable))
    command = ["systemd-analyze", "verify", "--recursive-errors=no", unit]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    unit.write_text(unit.read_text().replace("Restart=always", "Restart=perhaps"))
    assert "perhaps" in subprocess.run(command, capture_output=True, text=True, check=False).stderr
