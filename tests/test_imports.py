"""The direction of imports between packages and inside them; the contracts are in pyproject.toml."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
CLIENT = ROOT / "client"


def test_every_import_contract_is_kept() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_client_names_the_server_in_one_place() -> None:
    """The contracts do not see an import by name: there is one, for a server inside the command's process."""
    pattern = re.compile(r"earmark_(server|spotter|training)")
    files = {
        path.relative_to(CLIENT).as_posix()
        for path in CLIENT.rglob("*.py")
        if pattern.search(path.read_text())
    }
    assert files == {"earmark_cli/embedded_server.py"}
