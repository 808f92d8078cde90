"""No log line and no response contains audio, a token, or the text of an exception."""

from __future__ import annotations

import base64
import hashlib
import logging
from typing import TYPE_CHECKING, Any

import pytest
from earmark.v1 import keyword_spotting_service_pb2 as rpcs
from earmark_server import logs
from earmark_server.credentials.tokens import add_token
from earmark_spotter import SpotterModel
from grpc import StatusCode
from support.deadlines import DEADLINE_S
from support.server_rig import LINEAR16, audio, collect, config, failure, run, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AUDIO = b"MARKED AUDIO! 16" * 1000
TEXT = "a marked exception"


@pytest.fixture(params=["text", "json"])
def log_file(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file that receives all log lines, in the format of the command."""
    root, own = logging.getLogger(), logging.getLogger("earmark_server")
    before = root.handlers[:], root.level, own.level
    path = tmp_path / "log"
    with path.open("wb") as file:
        logs.configure("debug", request.param, file.fileno())
        root.setLevel(logging.DEBUG)
        yield path
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    own.setLevel(before[2])


def test_no_audio_token_or_exception_text_is_in_a_log_line_or_response(
    log_file: Path, tmp_path: Path, tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = add_token("alice", str(tmp_path / "tokens"))
    good, bad = ((("authorization", f"Bearer {one}"),) for one in (token, "a marked token"))
    errors: list[Any] = []

    def step(model: SpotterModel, pcm: Any, state: Any) -> Any:
        raise RuntimeError(TEXT, AUDIO, token)

    async def scenario() -> None:
        async with serving(tiny_model_path, token_file=str(tmp_path / "tokens")) as rig:
            sent = [audio(AUDIO[i : i + 3200]) for i in range(0, len(AUDIO), 3200)]
            clip = rpcs.SpotRequest(audio=AUDIO, audio_format=LINEAR16)
            await collect(rig.stream(config(), *sent, metadata=good))
            await rig.stub.Spot(clip, metadata=good, timeout=DEADLINE_S)
            errors.append(await failure(rig.stub.StreamingSpot(metadata=bad, timeout=DEADLINE_S)))
            # An unexpected error whose text contains all of it. (A stream that still sends when it fails may
            # not receive its status; see `failure`.)
            monkeypatch.setattr(SpotterModel, "step", step)
            for call in (
                rig.stream(config(), audio(AUDIO), metadata=good),
                rig.stub.Spot(clip, metadata=good, timeout=DEADLINE_S),
            ):
                errors.append(await failure(call))
                assert errors[-1].code == StatusCode.INTERNAL

    run(scenario)
    log = log_file.read_text()
    assert log.count("internal error") == 2
    assert "in step" in log
    assert "RuntimeError" in log
    incident = errors[-1].message.rstrip(".").rpartition(" ")[2]
    assert incident in log
    digest = hashlib.sha256(token.encode())
    for where in (log, repr(errors)):
        for secret in (
            token,
            "marked token",
            digest.hexdigest(),
            repr(digest.digest()),
            TEXT,
            "MARKED AUDIO",
        ):
            assert secret not in where
        assert base64.b64encode(AUDIO[:30]).decode() not in where
