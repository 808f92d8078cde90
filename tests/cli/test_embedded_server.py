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


def test_a_server_that_is_not_ready_in_time_is_reported(recording: Path) -> None:
    done = python_process(
        "import sys\n"
        "from earmark_server import embedded\n"
        "embedded._START_TIMEOUT_S = 0\n"
        "from earmark_cli.__main__ import main\n"
        f"sys.exit(main({['spot', str(recording)]!r}))"
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "earmark: the server inside this process did not start: it was not ready after 0 s: is this machine "
        "busy?\n"
    )
