"""Fixtures of the integration tests."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# As in tests/conftest.py: lets the tests import outside, which lies beside this file.
sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from collections.abc import Iterator

    from microphone import Microphone


@pytest.fixture
def microphone() -> Iterator[Microphone]:
    from microphone import plugged_in

    with plugged_in() as microphone:
        yield microphone
