"""TLS, client certificates and tokens of both clients."""

from __future__ import annotations

import logging
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
from support.earmark_command import samples
from support.tls_server import serve_with_tls

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

both = pytest.mark.parametrize("client", DRIVERS, ids=["async", "sync"])


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def error(client: Driver, address: str, **security: Any) -> EarmarkError:
    with pytest.raises(EarmarkError) as caught:
        client.call(address, "list_models", security=security)
    return caught.value


@both
def test_a_stream_over_tls_with_a_token_returns_detections(
    client: Driver, authority: Authority, tmp_path: Path, tiny_model_path: Path
) -> None:
    token = add_token("alice", str(tmp_path / "tokens"))
    security = {"tls": Tls(ca=authority.path), "token": token}
    with serve_with_tls(tiny_model_path, authority, token_file=str(tmp_path / "tokens")) as address:
        events = client.events(address, [samples()], sample_rate_hz=16_000, security=security)
        assert client.call(address, "health", security=security).name == "SERVING"
        assert [model.name for model in client.call(address, "list_models", security=security)] == ["tiny"]
    assert len([event for event in events if isinstance(event, Detection)]) == 3
    assert isinstance(events[-1], Ended)


@both
def test_a_missing_or_wrong_token_is_reported_without_the_token(
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


@pytest.mark.slow
@both
def test_a_stream_whose_token_is_revoked_ends_and_does_not_resume(
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
def test_an_untrusted_server_is_reported_with_a_remedy(
    client: Driver, authority: Authority, tmp_path: Path, tiny_model_path: Path
) -> None:
    ours = {"tls": Tls(ca=authority.path)}
    # One authority has the same name, so that only the signature is wrong; the other has another name.
    impostor, other = Authority(tmp_path / "impostor"), Authority(tmp_path / "other", "Another authority")
    problems: list[tuple[EarmarkError, str]] = []
    with serve_with_tls(tiny_model_path, authority) as address:
        for ca in (impostor.path, other.path, None):
            problems += [(error(client, address, tls=Tls(ca=ca)), "give the certificate of its authority")]
        plain = error(client, address)
        assert isinstance(plain, ServerUnreachableError)
        assert "the server may require TLS (tls=True, --tls)" in str(plain)
    with serve_with_tls(tiny_model_path, authority, valid_days=-1) as address:
        problems.append((error(client, address, **ours), "has an expired certificate"))
    elsewhere = authority.sign("elsewhere", names=(x509.DNSName("elsewhere.example.org"),))
    settings = {"tls_certificate": str(elsewhere.certificate), "tls_key": str(elsewhere.key)}
    with serve_in_thread(model=(str(tiny_model_path),), **settings) as address:
        problems.append((error(client, address, **ours), "has a certificate for another name"))
    with serve_in_thread(model=(str(tiny_model_path),)) as address:
        problems.append((error(client, address, **ours), "does not use TLS"))
    for problem, message in problems:
        assert isinstance(problem, UntrustedServerError), problem
        assert message in str(problem)


@both
def test_mutual_tls(client: Driver, authority: Authority, tiny_model_path: Path) -> None:
    robot = authority.sign("robot", names=())
    with serve_with_tls(tiny_model_path, authority, tls_client_ca=str(authority.path)) as address:
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
def test_a_malformed_token_is_rejected_and_not_quoted(make: Any) -> None:
    for token in ("", "SEC RET", "SECRET\n", "SECRÉT", "SECRET" * 1000):
        with pytest.raises(InvalidRequestError, match="without spaces") as caught:
            make("localhost", token=token)
        assert "SEC" not in str(caught.value)


def test_unusable_certificate_files_are_named(authority: Authority, tmp_path: Path) -> None:
    one, two = authority.sign("one"), authority.sign("two")
    text = tmp_path / "text"
    text.write_text("nothing")
    for tls, message in (
        (Tls(ca=tmp_path / "nowhere"), "nowhere cannot be read: No such file"),
        (Tls(ca=text), "contains no certificates in PEM format"),
        (Tls(certificate=one.certificate), "must be given together"),
        (Tls(key=one.key), "must be given together"),
        (Tls(certificate=one.certificate, key=two.key), "does not belong to the certificate"),
        (Tls(certificate=text, key=one.key), "must be PEM files"),
        (Tls(certificate=one.certificate, key=tmp_path / "nowhere"), "nowhere cannot be read"),
    ):
        with pytest.raises(InvalidRequestError, match=message):
            SyncClient("localhost", tls=tls)


def test_a_token_is_never_logged(
    authority: Authority, tmp_path: Path, tiny_model_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token = add_token("alice", str(tmp_path / "tokens"))
    caplog.set_level(logging.DEBUG)
    with (
        serve_with_tls(tiny_model_path, authority, token_file=str(tmp_path / "tokens")) as address,
        SyncClient(address, tls=Tls(ca=authority.path), token=token) as client,
    ):
        client.list_models()
        list(client.stream([samples()], sample_rate_hz=16_000))
        assert token not in repr(vars(client)) + repr(client)
    assert "call ended" in caplog.text
    assert token not in caplog.text
    assert token not in repr([vars(record) for record in caplog.records])
