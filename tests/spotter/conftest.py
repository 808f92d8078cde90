"""Fixtures for the tests of the spotter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from earmark_spotter import ActiveKeyword, SpotterModel, resolve_settings
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from pathlib import Path

# No deadline: these machines share their cores. The same examples every time: a test that fails
# for one person fails for all.
settings.register_profile(
    "earmark",
    deadline=None,
    derandomize=True,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("earmark")


@pytest.fixture(scope="session")
def tiny(tiny_model_path: Path) -> SpotterModel:
    return SpotterModel.load(tiny_model_path)


@pytest.fixture(scope="session")
def tiny_active(tiny: SpotterModel) -> tuple[ActiveKeyword, ...]:
    return resolve_settings(tiny.metadata)


@pytest.fixture(scope="session")
def default_model() -> SpotterModel:
    return SpotterModel.load()
