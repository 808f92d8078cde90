"""Fixtures and settings that all tests share."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

# torch and OpenBLAS start as many threads as there are cores, which wait actively, in every process.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# ONNX Runtime reads this when it is imported first, which a test may do before the spotter does.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

# jsonschema imports this package if it is there, which takes four seconds. No schema here has an IRI.
sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]

# A shell starts background jobs with Ctrl-C ignored, and programs that the tests start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # `nohup` ignores it

# Tests are imported by path (importmode=importlib). They import `support` and `benchmarks` by name.
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[1])]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return the number of processes that run tests: more than cores, since many tests wait."""
    return (os.cpu_count() or 1) + 2


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Return the scheduler: a process runs a whole file, or a whole folder of _TOGETHER."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::", 1)[0]
            return next((folder for folder in _TOGETHER if file.startswith(folder)), file)

    return Scheduling(config, log)


# Tests that share models, and the imports and the first export of torch, which take seconds in each process.
_TOGETHER = ("tests/training/keyword/", "tests/training/")

# The order of the files: first those that take longest, so that the last ones, which end the run, are short.
_LONGEST_FIRST = (
    "training",
    "client/test_misbehaving_server.py",
    "integration/test_resume.py",
    "server/test_supervisor.py",
    "integration",
    "benchmarks",
    "faults",
    "fuzz",
    "server",
    "audio/test_doors.py",
)


_SLOW_TIMEOUT_S = 1800
"""When a slow test counts as one that hangs. A training takes two minutes, and much longer beside others."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give slow tests more time, and run the longest files first if several processes run the tests."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(_SLOW_TIMEOUT_S))
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = Path(__file__).parent
        items.sort(key=lambda item: _place(item.path.relative_to(root)))


def _place(file: Path) -> int:
    """Return the place of a test file in the order."""
    within = (place for place, path in enumerate(_LONGEST_FIRST) if file.is_relative_to(path))
    return next(within, len(_LONGEST_FIRST))


@pytest.fixture(scope="session")
def tiny_model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of a tiny model whose keywords are tones; see tiny_model.py."""
    from support import tiny_model

    return tiny_model.build(tmp_path_factory.mktemp("model") / "tiny.onnx")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder with real speech. Without it the test is skipped."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ["EARMARK_DATA"]) if "EARMARK_DATA" in os.environ else default
    if not folder.is_dir():
        pytest.skip("no real speech: set EARMARK_DATA to a folder with speech_commands/ in it")
    return folder


@pytest.fixture(scope="module")
def address(tiny_model_path: Path) -> Iterator[str]:
    """Run a server with the tiny model, whose keywords are the tones low, mid and high."""
    from earmark_server.embedded import serve_in_thread
    from support.environment import ADMIT_ALWAYS

    with serve_in_thread(model=(str(tiny_model_path),), **ADMIT_ALWAYS) as address:
        yield address


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a recording of the tones low, mid and high."""
    import soundfile
    from support.earmark_command import RATE_HZ, samples

    path = tmp_path_factory.mktemp("recordings") / "words.wav"
    soundfile.write(path, samples(), RATE_HZ)
    return path
