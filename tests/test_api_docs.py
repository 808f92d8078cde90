"""The reference of the Python API, as `make docs` writes it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import earmark_client
import earmark_spotter
import pytest

pytest.importorskip("pdoc", reason="the extra `dev` is not installed")

SCRIPT = Path(__file__).parents[1] / "scripts" / "build_api_docs.py"


@pytest.mark.slow
def test_every_public_name_is_on_its_page_and_nothing_warns(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(SCRIPT), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    for package in (earmark_client, earmark_spotter):
        page = (tmp_path / f"{package.__name__}.html").read_text()
        assert all(f'id="{name}"' in page for name in package.__all__)
    assert "sample_rate_hz" in (tmp_path / "earmark_client.html").read_text()


def test_a_public_name_without_a_docstring_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import build_api_docs

    class Documented:
        """A class."""

        def method(self) -> None: ...

    class Undocumented: ...

    names = {"Documented": Documented, "Undocumented": Undocumented, "CONSTANT": 1}
    assert build_api_docs.undocumented(names) == ["Documented.method", "Undocumented"]
