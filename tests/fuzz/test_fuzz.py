"""Replays all saved cases, and runs the fuzzer for a few seconds while a canary stream runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fuzz import canary, fuzz
from fuzzed_server import FuzzedServer
from targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from targets import Target

_SECONDS_PER_TARGET = 0.5


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FuzzedServer]:
    with FuzzedServer(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_saved_cases_do_no_harm(target: Target, server: FuzzedServer) -> None:
    for case in target.saved_cases():
        target.check(server, case)
    server.assert_healthy()


@pytest.mark.slow
def test_the_canary_stream_loses_no_detection_while_the_fuzzer_runs(server: FuzzedServer) -> None:
    with canary(server.address) as canary_stream:
        for number, target in enumerate(TARGETS):
            assert fuzz(target, server, _SECONDS_PER_TARGET, number) > 0
        result = canary_stream.finish()
        assert result["same"], result
        assert result["received"] >= 2
        assert server.send_raw(b"") == []
    server.assert_healthy()
