"""What the clients and the command send to whom, and what they say when a server is not to be trusted."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from earmark_client import (
    AccessError,
    Client,
    Detection,
    EarmarkError,
    Ended,
    InvalidRequestError,
    ServerUnreachableError,
    Started,
    SyncClient,
    Tls,
    UntrustedServerError,
)
from earmark_server import serve_in_thread
from earmark_server.credentials.tokens import add_token
from support.both_clients import DRIVERS, Driver
from support.certificates import Authority
from support.earmark_command import earmark, running, samples

if TYPE_CHECKING:
    from collections.abc import Iterator

both = pytest.mark.parametrize("client", DRIVERS, ids=["async", "sync"])


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@contextlib.contextmanager
def serving(model: Path, authority: Authority, *, valid_days: float = 1, **settings: Any) -> Iterator[str]:
    """Run a server with a certificate; gives its address, by name."""
    own = authority.sign(valid_days=valid_days)
    with serve_in_thread(
        model=(str(model),), tls_certificate=str(own.certificate), tls_key=str(own.key), **settings
    ) as address:
        yield address.replace("127.0.0.1", "localhost")


def error(client: Driver, address: str, **security: Any) -> EarmarkError:
    with pytest.raises(EarmarkError) as caught:
        client.call(address, "list_models", security=security)
    return caught.value


@both
def test_a_stream_over_tls_with_a_token_is_marked(
    client: Driver, authority: Authority, tmp_path: Path, tiny_model_path: Path
) -> None:
    token = add_token("alice", str(tmp_path / "tokens"))
    security = {"tls": Tls(ca=authority.path), "token": token}
    with serving(tiny_model_path, authority, token_file=str(tmp_path / "tokens")) as address:
        events = client.events(address, [samples()], sample_rate_hz=16_000, security=security)
        assert client.call(address, "health", security=security).name == "SERVING"
        assert [model.name for model in client.call(address, "list_models", security=security)] == ["tiny"]
    assert len([event for event in events if isinstance(event, Detection)]) == 3
    assert isinstance(events[-1], Ended)


@both
def test_without_a_good_token_the_error_says_so_and_does_not_have_it(
    client: Driver, tmp_path: Path, tiny_model_path: Path
) -> None:
    add_token("alice", str(tmp_path / "tokens"))
    with serve_in_thread(model=(str(tiny_model_path),), token_file=str(tmp_path / "tokens")) as address:
        missing, bad = error(client, address), error(client, address, token="SECRET")
        assert isinstance(missing, AccessError)
        assert (missing.status, missing.reason) == ("UNAUTHENTICATED", "MISSING_CREDENTIALS")
        assert isinstance(bad, AccessError)
        assert (bad.status, bad.reason, bad.retryable) == ("UNAUTHENTICATED", "BAD_CREDENTIALS", False)
        assert "SECRET" not in f"{bad!r} {bad.__cause__!r}"
        with pytest.raises(AccessError):
            client.events(address, [samples()], sample_rate_hz=16_000, security={"token": "SECRET"})


@both
def test_a_stream_whose_token_is_taken_out_ends_and_is_not_resumed(
    client: Driver, tmp_path: Path, tiny_model_path: Path
) -> None:
    path = tmp_path / "tokens"
    token = add_token("alice", str(path))
    other = tmp_path / "other"
    add_token("bob", str(other))

    def endless() -> Iterator[Any]:
        while True:
            yield samples()

    def taken_out(event: Any) -> bool:
        if isinstance(event, Started):
            other.replace(path)
        return False

    with (
        serve_in_thread(model=(str(tiny_model_path),), token_file=str(path)) as address,
        pytest.raises(AccessError) as caught,
    ):
        client.until(address, endless(), taken_out, sample_rate_hz=16_000, security={"token": token})
    assert caught.value.reason == "BAD_CREDENTIALS"


@both
def test_a_server_that_is_not_to_be_trusted_is_named_with_what_to_do(
    client: Driver, authority: Authority, tmp_path: Path, tiny_model_path: Path
) -> None:
    ours = {"tls": Tls(ca=authority.path)}
    # Of the same name, so that the signature itself is at fault; and of another.
    impostor, other = Authority(tmp_path / "impostor"), Authority(tmp_path / "other", "Another authority")
    found: list[tuple[EarmarkError, str]] = []
    with serving(tiny_model_path, authority) as address:
        for ca in (impostor.path, other.path, None):
            found += [(error(client, address, tls=Tls(ca=ca)), "give the certificate of its authority")]
        plain = error(client, address)
        assert isinstance(plain, ServerUnreachableError)
        assert "the server may require TLS (tls=True, --tls)" in str(plain)
    with serving(tiny_model_path, authority, valid_days=-1) as address:
        found.append((error(client, address, **ours), "has an expired certificate"))
    elsewhere = authority.sign("elsewhere", names=(x509.DNSName("elsewhere.example.org"),))
    settings = {"tls_certificate": str(elsewhere.certificate), "tls_key": str(elsewhere.key)}
    with serve_in_thread(model=(str(tiny_model_path),), **settings) as address:
        found.append((error(client, address, **ours), "has a certificate for another name"))
    with serve_in_thread(model=(str(tiny_model_path),)) as address:
        found.append((error(client, address, **ours), "does not use TLS"))
    for problem, said in found:
        assert isinstance(problem, UntrustedServerError), problem
        assert said in str(problem)


@both
def test_a_server_that_wants_certificates_gets_them(
    client: Driver, authority: Authority, tiny_model_path: Path
) -> None:
    robot = authority.sign("robot", names=())
    with serving(tiny_model_path, authority, tls_client_ca=str(authority.path)) as address:
        own = Tls(ca=authority.path, certificate=robot.certificate, key=robot.key)
        assert client.call(address, "list_models", security={"tls": own})
        none = error(client, address, tls=Tls(ca=authority.path))
        assert isinstance(none, ServerUnreachableError)
        assert "or a client certificate that it trusts" in str(none)


@pytest.mark.parametrize("make", [Client, SyncClient])
def test_a_token_is_not_sent_in_plain_text_to_another_machine(make: Any) -> None:
    for address in ("kws.example.org:50051", "10.0.0.1", "dns:///localhost:1", "unixhost:1", "localhost.x:1"):
        with pytest.raises(InvalidRequestError, match="not sent in plain text") as caught:
            make(address, token="SECRET")
        assert "SECRET" not in str(caught.value)
    for address in ("localhost", "127.0.0.1:1", "::1", "[::1]:1", "unix:/tmp/socket"):
        make(address, token="SECRET")
    make("kws.example.org:50051", token="SECRET", tls=True)


@pytest.mark.parametrize("make", [Client, SyncClient])
def test_a_token_that_cannot_be_sent_is_refused_and_not_quoted(make: Any) -> None:
    for token in ("", "SEC RET", "SECRET\n", "SECRÉT", "SECRET" * 1000):
        with pytest.raises(InvalidRequestError, match="without spaces") as caught:
            make("localhost", token=token)
        assert "SEC" not in str(caught.value)


def test_files_that_cannot_be_used_are_named(authority: Authority, tmp_path: Path) -> None:
    one, two = authority.sign("one"), authority.sign("two")
    text = tmp_path / "text"
    text.write_text("nothing")
    for tls, said in (
        (Tls(ca=tmp_path / "nowhere"), "nowhere cannot be read: No such file"),
        (Tls(ca=text), "contains no certificates in PEM format"),
        (Tls(certificate=one.certificate), "must be given together"),
        (Tls(key=one.key), "must be given together"),
        (Tls(certificate=one.certificate, key=two.key), "does not belong to the certificate"),
        (Tls(certificate=text, key=one.key), "must be PEM files"),
        (Tls(certificate=one.certificate, key=tmp_path / "nowhere"), "nowhere cannot be read"),
    ):
        with pytest.raises(InvalidRequestError, match=said):
            SyncClient("localhost", tls=tls)


# The command.


@pytest.fixture
def closed(authority: Authority, tmp_path: Path, tiny_model_path: Path) -> Iterator[tuple[str, Path]]:
    """Run a server that requires a token over TLS; yield its address and a file with a token."""
    token_file = tmp_path / "alice.token"
    token_file.write_text(add_token("alice", str(tmp_path / "tokens")) + "\n")
    with serving(tiny_model_path, authority, token_file=str(tmp_path / "tokens")) as address:
        yield address, token_file


def test_the_command_takes_options_and_the_environment(
    closed: tuple[str, Path], authority: Authority
) -> None:
    address, token_file = closed
    there = ("--server", address)
    done = earmark("models", *there, "--ca", authority.path, "--token-file", token_file)
    assert (done.returncode, done.stderr) == (0, "")
    token = token_file.read_text().strip()
    variables = {"EARMARK_CA": str(authority.path), "EARMARK_TOKEN": token}
    assert earmark("health", EARMARK_SERVER=address, **variables).returncode == 0
    done = earmark("models", *there, "--token-file", token_file)
    assert done.returncode == 1
    assert "is not sent in plain text" not in done.stderr  # It is this machine.
    assert "--tls" in done.stderr
    done = earmark("models", *there, "--tls", "--token-file", token_file)
    assert "--ca FILE" in done.stderr
    done = earmark("models", *there, "--ca", authority.path)
    assert "This server requires a token" in done.stderr
    done = earmark("models", *there, EARMARK_TLS="perhaps")
    assert "EARMARK_TLS must be 1 or 0" in done.stderr
    done = earmark("models", *there, "--token-file", token_file.with_name("nowhere"))
    assert "nowhere cannot be read: No such file" in done.stderr
    done = earmark("models", "--server", "kws.example.org", EARMARK_TOKEN=token)
    assert "a token is not sent in plain text" in done.stderr
    assert token not in done.stderr
    for flag in ("--tls", "--ca=a", "--certificate=c", "--key=k", "--token-file=t"):
        done = earmark("models", flag)
        assert done.returncode == 1
        assert f"{flag.split('=')[0]} requires --server HOST:PORT" in done.stderr


def test_the_command_shows_a_certificate(authority: Authority, tiny_model_path: Path) -> None:
    robot = authority.sign("robot", names=())
    own = ("--certificate", robot.certificate, "--key", robot.key)
    with serving(tiny_model_path, authority, tls_client_ca=str(authority.path)) as address:
        options = ("--server", address, "--ca", authority.path)
        assert earmark("models", *options, *own).returncode == 0
        variables = {"EARMARK_CERTIFICATE": str(robot.certificate), "EARMARK_KEY": str(robot.key)}
        assert earmark("models", *options, **variables).returncode == 0
        assert "or a client certificate that it trusts" in earmark("models", *options).stderr
        assert "must be given together" in earmark("models", *options, *own[:2]).stderr


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="looks into /proc")
def test_a_token_is_not_in_the_process_list(closed: tuple[str, Path], authority: Authority) -> None:
    address, token_file = closed
    options = ("--server", address, "--ca", authority.path, "--token-file", token_file)
    with running("health", "--watch", *options) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        for name in ("cmdline", "environ"):
            shown = Path(f"/proc/{process.pid}/{name}").read_bytes()
            assert token_file.read_bytes().strip() not in shown


def test_nobody_logs_a_token(
    closed: tuple[str, Path], authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    address, token_file = closed
    token = token_file.read_text().strip()
    caplog.set_level(logging.DEBUG)
    with SyncClient(address, tls=Tls(ca=authority.path), token=token) as client:
        client.list_models()
        list(client.stream([samples()], sample_rate_hz=16_000))
        assert token not in repr(vars(client)) + repr(client)
    assert "call ended" in caplog.text
    assert token not in caplog.text
    assert token not in repr([vars(record) for record in caplog.records])
