"""A message about a missing package says how to install it, whether or not Earmark is in an index."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import pytest
from earmark_audio.extras import install_command

ROOT = Path(__file__).parents[2]
# As the metadata of a wheel has them.
REQUIRES = [
    "numpy>=2.0",
    "missing-one>=1.2; extra == 'server'",
    "pytest>=8.3; extra == 'server'",
    'missing-two<4,>=3; sys_platform != "win32" and extra == "server"',
    "missing-three[http]>=5; extra == 'otel'",
    "pytest; extra == 'complete'",
]


@pytest.fixture(autouse=True)
def _metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: REQUIRES if name == "earmark" else None)


def test_only_missing_packages_are_named() -> None:
    assert install_command("server") == (
        "`pip install 'missing-one>=1.2' 'missing-two<4,>=3'` (the extra `server`)"
    )


def test_a_requirement_keeps_its_own_extras() -> None:
    assert install_command("otel") == "`pip install 'missing-three[http]>=5'` (the extra `otel`)"


def test_an_extra_that_is_present_but_cannot_be_imported_is_named_as_a_whole() -> None:
    assert install_command("complete") == "`pip install 'pytest'` (the extra `complete`)"


def test_an_extra_that_the_installation_does_not_know_is_named() -> None:
    assert install_command("new") == "the extra `new` of Earmark"


def test_no_message_and_no_page_advises_a_name_in_an_index() -> None:
    """Until Earmark is published, `earmark` in an index would be another program."""
    suffixes = {".py", ".md", ".js", ".html", ".sh"}
    texts = [*ROOT.glob("*.md")]
    for folder in ("client", "server", "training", "benchmarks", "deploy", "docs", "examples", "scripts"):
        texts += [path for path in (ROOT / folder).rglob("*") if path.suffix in suffixes]
    for path in texts:
        text = path.read_text()
        assert not re.search(r"\b(pip|pipx|uv) install\b[^\n`]* '?earmark\b(?!-)", text), path
        assert not re.search(r"(?<!/)earmark\[\w+\]", text), path
