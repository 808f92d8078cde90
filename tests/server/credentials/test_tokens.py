"""The token file, and calls with and without a valid token."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from earmark.v1 import keyword_spotting_service_pb2 as rpcs
from earmark.v1 import keyword_spotting_service_pb2_grpc as stubs
from earmark_server import reload
from earmark_server.credentials.tokens import AcceptedTokens, add_token
from earmark_server.reload import BadFileError
from earmark_server.server import Server, StartError
from earmark_server.settings import Settings
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from support.deadlines import DEADLINE_S
from support.server_process import ServerProcess
from support.server_rig import chunks, collect, config, detections, failure, pcm, run, serving

if TYPE_CHECKING:
    from pathlib import Path


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens"


def put(path: Path, text: str) -> None:
    """Replace a file atomically."""
    path.with_name("next").write_text(text)
    path.with_name("next").replace(path)


# The token file.


def test_a_new_token_is_accepted_under_its_name_and_is_not_in_the_file(path: Path) -> None:
    one, two = add_token("alice", str(path)), add_token("bob@example.org", str(path))
    tokens = AcceptedTokens.read(str(path))
    names = [tokens.principal(digest) for token in (one, two) if (digest := tokens.accepted_digest(token))]
    assert names == ["alice", "bob@example.org"]
    assert len(one) >= 43
    assert one not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for wrong in (
        "",
        one[:-1],
        one + "x",
        two.swapcase(),
        hashlib.sha256(one.encode()).hexdigest(),
        "é\udcff",
    ):
        assert tokens.accepted_digest(wrong) is None


def test_a_name_may_have_several_tokens_and_comments_are_ignored(path: Path) -> None:
    path.write_text(f"# accepted tokens\n\nalice {hashlib.sha256(b'first').hexdigest().upper()} # old")
    second = add_token("alice", str(path))
    tokens = AcceptedTokens.read(str(path))
    for token in ("first", second):
        digest = tokens.accepted_digest(token)
        assert digest is not None
        assert tokens.principal(digest) == "alice"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("alice SECRET", "Line 1 of the token file .* must be a name and the SHA-256"),
        ("alice " + "a" * 63, "Line 1"),
        ("alice " + "a" * 64 + "\nSECRET", "Line 2"),
        ("al/ice " + "a" * 64, "Line 1"),
        ("a" * 65 + " " + "a" * 64, "Line 1"),
    ],
)
def test_an_invalid_token_file_is_rejected_and_not_quoted(path: Path, text: str, message: str) -> None:
    path.write_text(text)
    with pytest.raises(BadFileError, match=message) as caught:
        AcceptedTokens.read(str(path))
    assert "SECRET" not in str(caught.value)

    async def scenario() -> None:
        with pytest.raises(StartError, match=message):
            Server(Settings(port=0, token_file=str(path)))

    run(scenario)


def test_the_command_prints_a_new_token_and_appends_its_line(path: Path) -> None:
    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "earmark_server", *arguments]
        return subprocess.run(line, capture_output=True, text=True, check=False, timeout=DEADLINE_S)

    done = command("--new-token", "alice", str(path))
    assert (done.returncode, done.stderr) == (0, "")
    assert AcceptedTokens.read(str(path)).accepted_digest(done.stdout.rstrip("\n")) is not None
    done = command("--new-token", "not a name", str(path))
    assert done.returncode == 2
    assert "letters, digits" in done.stderr
    done = command("--new-token", "alice", os.path.join(path, "below"))
    assert done.returncode == 2
    assert "cannot be written: Not a directory" in done.stderr


# Calls.

REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"

# Methods of the other services, and a request for each. A call that is to be rejected sends no request,
# because a call that still writes when it fails may not receive its status.
OTHER_METHODS = {
    "/grpc.health.v1.Health/Watch": health_pb2.HealthCheckRequest(),
    REFLECTION: reflection_pb2.ServerReflectionRequest(list_services=""),
}


async def assert_rejected(call: Any, reason: str) -> None:
    error = await failure(call)
    assert (error.code, error.reason) == (StatusCode.UNAUTHENTICATED, reason)


def test_without_a_valid_token_no_rpc_answers(path: Path, tiny_model_path: Path) -> None:
    token = add_token("alice", str(path))
    bad: list[tuple[Any, str]] = [
        (None, "MISSING_CREDENTIALS"),
        ((("other", token),), "MISSING_CREDENTIALS"),
        (bearer("wrong"), "BAD_CREDENTIALS"),
        (bearer(token[:-1]), "BAD_CREDENTIALS"),
        ((("authorization", token),), "BAD_CREDENTIALS"),
        ((("authorization", f"Basic {token}"),), "BAD_CREDENTIALS"),
        (bearer("wrong") + bearer(token), "BAD_CREDENTIALS"),
        ((("authorization", ""),), "BAD_CREDENTIALS"),
    ]

    async def scenario() -> None:
        async with serving(tiny_model_path, token_file=str(path)) as rig:
            for metadata, reason in bad:
                options = {"metadata": metadata, "timeout": DEADLINE_S}
                await assert_rejected(rig.stub.ListModels(rpcs.ListModelsRequest(), **options), reason)
                await assert_rejected(rig.stub.StreamingSpot(**options), reason)
                for method in OTHER_METHODS:
                    await assert_rejected(rig.channel.stream_stream(method)(**options), reason)
            good = {"metadata": bearer(token)}
            events = await collect(rig.stream(config(), *chunks(pcm()), **good))
            assert len(detections(events)) == 4
            good["timeout"] = DEADLINE_S
            for method, request in OTHER_METHODS.items():
                call = rig.channel.stream_stream(method)(**good)
                await call.write(request.SerializeToString())
                assert await call.read() is not grpc.aio.EOF
                call.cancel()

    run(scenario)


def test_with_open_health_only_health_checks_need_no_token(path: Path, tiny_model_path: Path) -> None:
    add_token("alice", str(path))

    async def scenario() -> None:
        async with serving(tiny_model_path, token_file=str(path), open_health=True) as rig:
            health = health_pb2_grpc.HealthStub(rig.channel)
            response = await health.Check(health_pb2.HealthCheckRequest(), timeout=DEADLINE_S)
            assert response.status == health_pb2.HealthCheckResponse.SERVING
            watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=DEADLINE_S)
            assert await watch.read() is not grpc.aio.EOF
            watch.cancel()
            reflection = rig.channel.stream_stream(REFLECTION)(timeout=DEADLINE_S)
            await assert_rejected(reflection, "MISSING_CREDENTIALS")
            await assert_rejected(rig.stub.StreamingSpot(timeout=DEADLINE_S), "MISSING_CREDENTIALS")

    run(scenario)


def test_without_a_token_an_unknown_method_is_not_revealed(
    path: Path, tiny_model_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token = add_token("alice", str(path))
    caplog.set_level(logging.INFO, "earmark_server")

    async def scenario() -> None:
        async with serving(tiny_model_path, token_file=str(path)) as rig:
            method = rig.channel.unary_unary("/no.such.Service/Method")
            await assert_rejected(method(b"", timeout=DEADLINE_S), "MISSING_CREDENTIALS")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await method(b"", metadata=bearer(token), timeout=DEADLINE_S)
            assert caught.value.code() == StatusCode.UNIMPLEMENTED

    run(scenario)
    assert [line["rpc"] for line in ended(caplog)] == ["unknown"]


def ended(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [record.earmark for record in caplog.records if record.message == "call ended"]


def test_the_log_states_the_principal(
    path: Path, tiny_model_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = {name: add_token(name, str(path)) for name in ("alice", "bob")}
    caplog.set_level(logging.INFO, "earmark_server")

    async def scenario() -> None:
        async with serving(tiny_model_path, token_file=str(path)) as rig:
            for token in tokens.values():
                await collect(rig.stream(config(), metadata=bearer(token)))
            await assert_rejected(rig.stream(config()), "MISSING_CREDENTIALS")

    run(scenario)
    assert [line.get("principal") for line in ended(caplog)] == ["alice", "bob", None]
    assert ended(caplog)[-1]["reason"] == "MISSING_CREDENTIALS"


def test_removing_a_token_ends_its_streams_and_no_others(path: Path, tiny_model_path: Path) -> None:
    removed, kept = add_token("alice", str(path)), add_token("alice", str(path))
    data = chunks(pcm())
    _, kept_line = path.read_text().splitlines(keepends=True)

    async def scenario() -> None:
        async with serving(tiny_model_path, token_file=str(path)) as rig:
            calls = [
                rig.stub.StreamingSpot(metadata=bearer(one), timeout=DEADLINE_S) for one in (removed, kept)
            ]
            for call in calls:
                await call.write(config())
                assert (await call.read()).WhichOneof("event") == "started"
            put(path, kept_line)
            await assert_rejected(calls[0], "BAD_CREDENTIALS")
            await assert_rejected(
                rig.stub.ListModels(rpcs.ListModelsRequest(), metadata=bearer(removed)), "BAD_CREDENTIALS"
            )
            for request in data:
                await calls[1].write(request)
            await calls[1].done_writing()
            events = []
            while (event := await calls[1].read()) is not grpc.aio.EOF:
                events.append(event)
            assert len(detections(events)) == 4

    run(scenario)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_an_invalid_token_file_is_logged_and_the_old_tokens_stay_until_it_is_valid(
    workers: int, path: Path, tiny_model_path: Path
) -> None:
    first = add_token("alice", str(path))
    arguments = ["--log-format=json", f"--token-file={path}", f"--workers={workers}"]
    with ServerProcess("--port=0", f"--model={tiny_model_path}", *arguments) as server:
        port = server.wait_for("listening" if workers == 1 else "serving")["port"]
        before = path.read_text()
        for invalid in (before[:-10], "alice " + first):
            put(path, invalid)
            for _ in range(workers):
                problem = server.wait_for("files rejected")["problem"]
                assert first not in problem
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            lookup = stubs.KeywordSpottingServiceStub(channel).ListModels
            lookup(rpcs.ListModelsRequest(), metadata=bearer(first), timeout=DEADLINE_S)
            fresh = path.with_name("fresh")
            fresh.write_text(before)
            second = add_token("bob", str(fresh))
            fresh.replace(path)
            for _ in range(workers):
                server.wait_for("files reloaded")
            for token in (first, second):
                lookup(rpcs.ListModelsRequest(), metadata=bearer(token), timeout=DEADLINE_S)


@pytest.mark.parametrize("text", ["", "# nothing\n"])
def test_a_server_without_any_token_does_not_start(path: Path, text: str) -> None:
    path.write_text(text)
    message = "contains no token. Add a line with earmark-server --new-token NAME FILE"

    async def scenario() -> None:
        with pytest.raises(StartError, match=message):
            Server(Settings(port=0, token_file=str(path)))

    run(scenario)


@pytest.mark.slow
@pytest.mark.parametrize("missing", [False, True], ids=["empty", "missing"])
def test_a_file_without_tokens_revokes_all_of_them(
    path: Path, tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch, missing: bool
) -> None:
    monkeypatch.setattr(reload, "MISSING_GRACE_S", 1.0)
    token = add_token("alice", str(path))

    async def scenario() -> None:
        async with serving(tiny_model_path, token_file=str(path)) as rig:
            call = rig.stub.StreamingSpot(timeout=DEADLINE_S, metadata=bearer(token))
            await call.write(config())
            assert (await call.read()).WhichOneof("event") == "started"
            if missing:
                os.remove(path)
            else:
                put(path, "# alice was removed\n")
            await assert_rejected(call, "BAD_CREDENTIALS")
            lookup = rig.stub.ListModels(rpcs.ListModelsRequest(), metadata=bearer(token))
            await assert_rejected(lookup, "BAD_CREDENTIALS")

    run(scenario)


def test_a_pipe_in_place_of_the_token_file_is_rejected_and_does_not_block_the_server(
    path: Path, tiny_model_path: Path
) -> None:
    token = add_token("alice", str(path))

    async def scenario() -> None:
        async with serving(tiny_model_path, token_file=str(path)) as rig:
            pipe = path.with_name("pipe")
            os.mkfifo(pipe)
            pipe.replace(path)
            async with asyncio.timeout(DEADLINE_S):
                # No event announces that the file was rejected.
                while rig.server._unusable_files() != 1:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            await rig.stub.ListModels(rpcs.ListModelsRequest(), metadata=bearer(token), timeout=DEADLINE_S)

    run(scenario)


def test_hundreds_of_rejected_streams_leave_no_call_open(path: Path, tiny_model_path: Path) -> None:
    add_token("alice", str(path))

    async def scenario() -> None:
        async with serving(tiny_model_path, token_file=str(path), max_calls_per_connection=1000) as rig:
            calls = [rig.stub.StreamingSpot(metadata=bearer(f"{i}"), timeout=DEADLINE_S) for i in range(300)]
            for call in calls:
                await assert_rejected(call, "BAD_CREDENTIALS")
            async with asyncio.timeout(DEADLINE_S):
                while len(rig.server._admission.open_calls):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)

    run(scenario)


def test_a_byte_order_mark_before_the_first_line_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_bytes(b"\xef\xbb\xbf" + f"robot {hashlib.sha256(b'secret').hexdigest()}\n".encode())
    assert AcceptedTokens.read(str(path)).accepted_digest("secret") is not None
