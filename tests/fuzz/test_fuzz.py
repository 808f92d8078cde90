"""A few seconds of what `make fuzz` does for long, and all that it ever found, beside a stream of speech."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fuzz import beside, fuzz
from service import Service
from targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from targets import Target

_EACH_S = 1.0


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_what_was_found_once_does_no_harm_any_more(target: Target, service: Service) -> None:
    for case in target.found():
        target.check(service, case)
    service.assert_well()


def test_the_stream_beside_hears_all_its_words_whatever_else_comes_in(service: Service) -> None:
    with beside(service.address) as stream:
        for number, target in enumerate(TARGETS):
            assert fuzz(target, service, _EACH_S, number) > 0
        heard = stream.leave()
        assert heard["same"], heard
        assert heard["heard"] >= 2
        assert service.connection(b"") == []
    service.assert_well()
