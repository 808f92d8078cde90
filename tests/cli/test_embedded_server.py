"""The server inside the process, for commands without --server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.earmark_command import python_process

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("lacking", ["earmark_server", "onnxruntime"])
def test_a_missing_server_package_is_reported_with_a_remedy(recording: Path, lacking: str) -> None:
    args = ["spot", str(recording)]
    done = python_process(
        "import sys\n"
        f"sys.modules[{lacking!r}] = None\n"
        "from earmark_cli.__main__ import main\n"
        f"sys.exit(main({args!r}))"
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert f"but {lacking}" in done.stderr
    assert "pip install 'grpcio-reflection" in done.stderr
    assert "(the extra `server`), or give" in done.stderr
    assert "--server HOST:PORT" in done.stderr
    assert len(done.stderr.splitlines()) == 1
