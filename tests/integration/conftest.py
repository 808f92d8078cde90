"""Fixtures of the integration tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.virtual_microphone import Microphone


@pytest.fixture
def microphone() -> Iterator[Microphone]:
    from support.virtual_microphone import plugged_in

    with plugged_in() as microphone:
        yield microphone
