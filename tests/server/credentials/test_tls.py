"""TLS and mutual TLS: which connections succeed, and what happens when certificates are replaced."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from earmark.v1 import keyword_spotting_service_pb2 as rpcs
from earmark.v1 import keyword_spotting_service_pb2_grpc as stubs
from earmark_server.server import Server, StartError
from earmark_server.settings import Settings, SettingsError
from support.certificates import Authority, Pair
from support.deadlines import DEADLINE_S
from support.server_process import ServerProcess
from support.server_rig import chunks, collect, config, detections, kinds, pcm, run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from earmark_server.rpc.call import Call

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ours")


def flags(pair: Pair, client_ca: Path | None = None) -> dict[str, str]:
    given = {"tls_certificate": str(pair.certificate), "tls_key": str(pair.key)}
    return given if client_ca is None else {**given, "tls_client_ca": str(client_ca)}


@contextlib.asynccontextmanager
async def serving(model: Path, settings: dict[str, Any]) -> AsyncIterator[Server]:
    server = Server(Settings(port=0, model=(str(model),), **settings))
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


def trusting(ca: Path, own: Pair | None = None) -> grpc.ChannelCredentials:
    if own is None:
        return grpc.ssl_channel_credentials(ca.read_bytes())
    return grpc.ssl_channel_credentials(ca.read_bytes(), own.key.read_bytes(), own.certificate.read_bytes())


@contextlib.asynccontextmanager
async def connected(server: Server, ca: Path, own: Pair | None = None) -> AsyncIterator[Any]:
    """Yield a stub on a new connection."""
    credentials = trusting(ca, own)
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))
    async with grpc.aio.secure_channel(f"localhost:{server.port}", credentials, options=options) as channel:
        yield stubs.KeywordSpottingServiceStub(channel)


async def list_models(server: Server, ca: Path, own: Pair | None = None) -> str:
    """Make a call on a new connection; return OK, or its status."""
    async with connected(server, ca, own) as stub:
        try:
            await stub.ListModels(rpcs.ListModelsRequest(), timeout=DEADLINE_S)
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name} {error.details()}"
    return "OK"


async def wait_until_trusted(server: Server, ca: Path, expected: bool) -> None:
    """Wait until new connections that trust `ca` succeed, or fail if `expected` is False."""
    async with asyncio.timeout(DEADLINE_S):
        while (await list_models(server, ca) == "OK") != expected:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


def test_a_stream_over_tls_gets_its_detections(authority: Authority, tiny_model_path: Path) -> None:
    async def scenario() -> None:
        async with (
            serving(tiny_model_path, flags(authority.sign())) as server,
            connected(server, authority.path) as stub,
        ):
            sent = iter([config(), *chunks(pcm())])
            assert len(detections(await collect(stub.StreamingSpot(sent, timeout=DEADLINE_S)))) == 4

    run(scenario)


def test_connections_that_distrust_the_server_or_use_plain_text_fail(
    authority: Authority, tmp_path: Path, tiny_model_path: Path
) -> None:
    other = Authority(tmp_path / "other", "Another authority")

    async def scenario() -> None:
        async with serving(tiny_model_path, flags(authority.sign())) as server:
            assert await list_models(server, authority.path) == "OK"
            assert (await list_models(server, other.path)).startswith("UNAVAILABLE")
            async with grpc.aio.insecure_channel(f"localhost:{server.port}") as channel:
                stub = stubs.KeywordSpottingServiceStub(channel)
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await stub.ListModels(rpcs.ListModelsRequest(), timeout=DEADLINE_S)
                assert caught.value.code() == UNAVAILABLE

    run(scenario)


def test_with_a_client_authority_only_its_certificates_connect_and_name_the_principal(
    authority: Authority, tmp_path: Path, tiny_model_path: Path
) -> None:
    clients = Authority(tmp_path / "clients", "The clients' authority")
    robot, stranger = clients.sign("robot", names=()), authority.sign("stranger")
    seen: list[Call] = []

    async def scenario() -> None:
        async with serving(tiny_model_path, flags(authority.sign(), clients.path)) as server:
            assert (await list_models(server, authority.path)).startswith("UNAVAILABLE")
            assert (await list_models(server, authority.path, stranger)).startswith("UNAVAILABLE")
            async with connected(server, authority.path, robot) as stub:
                call = stub.StreamingSpot(timeout=DEADLINE_S)
                await call.write(config())
                await call.read()
                seen.extend(server._admission.open_calls)
                await call.done_writing()
                assert kinds([await call.read()]) == ["ended"]

    run(scenario)
    assert [call.principal for call in seen] == ["robot"]


def test_a_replaced_certificate_is_used_for_new_connections_and_open_streams_continue(
    authority: Authority, tmp_path: Path, tiny_model_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    later = Authority(tmp_path / "later", "A later authority")
    used = authority.sign()
    data = chunks(pcm())

    async def scenario() -> None:
        async with (
            serving(tiny_model_path, flags(used)) as server,
            connected(server, authority.path) as stub,
        ):
            call = stub.StreamingSpot(timeout=DEADLINE_S)
            await call.write(config())
            for request in data[:20]:
                await call.write(request)
            fresh = later.sign()
            # One file after the other, as people do. In between, the two do not fit together.
            fresh.certificate.replace(used.certificate)
            async with asyncio.timeout(DEADLINE_S):
                while "files rejected" not in caplog.messages:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            assert await list_models(server, authority.path) == "OK"
            fresh.key.replace(used.key)
            await wait_until_trusted(server, later.path, expected=True)
            assert (await list_models(server, authority.path)).startswith("UNAVAILABLE")
            for request in data[20:]:
                await call.write(request)
            await call.done_writing()
            assert len(detections(await collect(call))) == 4

    run(scenario)


def test_a_replaced_client_authority_is_used_for_new_connections(
    authority: Authority, tmp_path: Path, tiny_model_path: Path
) -> None:
    before, after = Authority(tmp_path / "before", "Before"), Authority(tmp_path / "after", "After")
    trusted = tmp_path / "clients.pem"
    shutil.copy(before.path, trusted)
    old, new = before.sign("old"), after.sign("new")

    async def scenario() -> None:
        async with serving(tiny_model_path, flags(authority.sign(), trusted)) as server:
            assert await list_models(server, authority.path, old) == "OK"
            shutil.copy(after.path, trusted)
            async with asyncio.timeout(DEADLINE_S):
                while await list_models(server, authority.path, new) != "OK":  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            assert (await list_models(server, authority.path, old)).startswith("UNAVAILABLE")

    run(scenario)


def wait_for_rejection(server: ServerProcess, reason: str) -> None:
    """Wait until files are rejected for a reason; each worker logs it."""
    while reason not in server.wait_for("files rejected")["problem"]:
        pass


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_invalid_certificate_files_are_logged_and_the_old_ones_stay(
    workers: int, authority: Authority, tmp_path: Path, tiny_model_path: Path
) -> None:
    used, other = authority.sign(), Authority(tmp_path / "other", "Another authority").sign()
    arguments = [f"--tls-certificate={used.certificate}", f"--tls-key={used.key}", f"--workers={workers}"]
    with ServerProcess("--port=0", f"--model={tiny_model_path}", "--log-format=json", *arguments) as server:
        port = server.wait_for("listening")["port"] if workers == 1 else server.wait_for("serving")["port"]
        good = used.certificate.read_bytes()
        truncate(used.certificate)
        wait_for_rejection(server, "must be PEM files")
        shutil.copy(other.certificate, used.certificate)
        wait_for_rejection(server, "does not belong to the certificate")
        used.certificate.unlink()
        wait_for_rejection(server, "cannot be read: No such file")
        credentials = grpc.ssl_channel_credentials(authority.path.read_bytes())
        with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
            stub = stubs.KeywordSpottingServiceStub(channel)
            stub.ListModels(rpcs.ListModelsRequest(), timeout=DEADLINE_S)
            used.certificate.write_bytes(good)
            server.wait_for("files reloaded")
            stub.ListModels(rpcs.ListModelsRequest(), timeout=DEADLINE_S)


def invalid_settings(authority: Authority, tmp_path: Path) -> Iterator[tuple[dict[str, str], str]]:
    """Yield settings with invalid files, and the error message for each."""
    good, other = authority.sign(), Authority(tmp_path / "other").sign("other")
    text = tmp_path / "text"
    text.write_text("not a certificate")
    yield flags(Pair(good.certificate, other.key)), "does not belong to the certificate"
    yield flags(Pair(text, good.key)), "must be PEM files"
    yield flags(Pair(good.certificate, text)), "must be PEM files"
    yield flags(Pair(good.key, good.certificate)), "must be PEM files"
    yield flags(Pair(tmp_path / "nowhere", good.key)), "nowhere cannot be read: No such file"
    yield flags(good, text), "must contain certificates in PEM format"
    yield flags(good, tmp_path / "nowhere"), "client CA file .*nowhere cannot be read: No such file"
    yield flags(good, tmp_path), "client CA file .* cannot be read: Is a directory"


def test_a_server_with_invalid_certificate_files_does_not_start_and_states_the_reason(
    authority: Authority, tmp_path: Path
) -> None:
    async def scenario() -> None:
        for settings, message in invalid_settings(authority, tmp_path):
            with pytest.raises(StartError, match=message):
                Server(Settings(port=0, **settings))

    run(scenario)


@pytest.mark.slow
def test_the_command_reports_invalid_certificate_files_also_with_workers(
    authority: Authority, tmp_path: Path
) -> None:
    settings, message = next(invalid_settings(authority, tmp_path))
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    for workers in ("--workers=1", "--workers=2"):
        with ServerProcess("--port=0", workers, *arguments) as server:
            code, lines = server.end()
        assert code == 1
        assert "cannot start" in lines
        assert message in lines
        assert "Traceback" not in lines


def test_a_key_with_a_password_is_rejected_without_a_prompt(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    good = Authority(tmp_path / "ours").sign()
    key = serialization.load_pem_private_key(good.key.read_bytes(), None)
    good.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )

    async def scenario() -> None:
        with pytest.raises(StartError, match="the key without a password"):
            Server(Settings(port=0, **flags(good)))

    run(scenario)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tls_certificate": "c"}, "--tls-certificate and --tls-key must be given together"),
        ({"tls_key": "k"}, "--tls-certificate and --tls-key must be given together"),
        ({"tls_client_ca": "a"}, "--tls-client-ca needs --tls-certificate"),
        ({"insecure": True, "tls_certificate": "c", "tls_key": "k"}, "contradict each other"),
        ({"open_health": True}, "--open-health needs --token-file"),
        ({"host": "0.0.0.0"}, "Add --tls-certificate and --tls-key"),
        ({"host": "0.0.0.0", "token_file": "t"}, "nothing here is encrypted"),
    ],
)
def test_contradictory_settings_are_rejected(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings(**settings)


def test_with_a_certificate_any_host_is_allowed() -> None:
    assert Settings(host="0.0.0.0", tls_certificate="c", tls_key="k").host == "0.0.0.0"


def client_hello() -> bytes:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2"])
    output = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), output, server_hostname="localhost").do_handshake()
    return output.read()


@pytest.mark.slow
def test_handshakes_that_never_end_are_cut_off_and_delay_nobody(
    authority: Authority, tiny_model_path: Path
) -> None:
    hello = client_hello()
    kinds_of_begin = [b"", hello[:100], hello, b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc" + bytes(200)]

    async def scenario() -> None:
        settings = {**flags(authority.sign()), "handshake_timeout_s": 5.0}
        async with serving(tiny_model_path, settings) as server, contextlib.AsyncExitStack() as stack:
            readers = []
            for i in range(200):
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
                stack.callback(writer.close)
                writer.write(kinds_of_begin[i % len(kinds_of_begin)])
                readers.append(reader)
            assert await list_models(server, authority.path) == "OK"
            for reader in readers:
                with contextlib.suppress(ConnectionError):
                    await reader.read()  # until the end of the connection

    run(scenario)
