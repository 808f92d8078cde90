"""Whether a connection stays on this machine, or leads through a proxy."""

from __future__ import annotations

import pytest
from earmark_client import ServerUnreachableError, SyncClient
from earmark_client.connection_route import is_local_target, proxy_variable


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("variables", "target", "used"),
    [
        ({}, "kws.example.org:50051", None),
        ({"http_proxy": "http://127.0.0.1:9"}, "kws.example.org:50051", "http_proxy"),
        ({"http_proxy": "http://a", "grpc_proxy": "http://b"}, "kws.example.org:50051", "grpc_proxy"),
        ({"http_proxy": "http://a"}, "dns:///kws.example.org:50051", "http_proxy"),
        ({"http_proxy": "http://a", "no_proxy": "localhost,example.org"}, "kws.example.org:50051", None),
        ({"http_proxy": "http://a"}, "localhost:50051", None),
        ({"http_proxy": "http://a"}, "unix:kws.sock", None),
        ({"http_proxy": "http://a"}, "ipv4:127.0.0.1:50051", None),
        ({"http_proxy": "http://a"}, "dns:///localhost:50051", "http_proxy"),
        ({"http_proxy": "http://a"}, "ipv4:127.0.0.1:1,192.0.2.1:1", "http_proxy"),
    ],
)
def test_the_proxy_that_grpc_uses_is_known(
    variables: dict[str, str], target: str, used: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert proxy_variable(target) == used


@pytest.mark.parametrize(
    ("target", "is_local"),
    [
        ("ipv4:127.0.0.1:50051", True),
        ("ipv6:[::1]:50051,[::1]:50052", True),
        ("ipv6:%5B::1%5D:50051", True),
        ("dns:localhost:50051", False),
        ("ipv4:127.0.0.1:50051,192.0.2.1:50051", False),
        ("dns:///kws.example.org:50051", False),
        ("dns://localhost/kws.example.org:50051", False),  # localhost is the name server
        ("localhost:50051,kws.example.org:50051", False),
    ],
)
def test_a_uri_is_local_if_all_its_hosts_are(target: str, is_local: bool) -> None:
    """A token is sent to them in plain text, and no proxy is used."""
    assert is_local_target(target) == is_local


def test_an_unreachable_server_behind_a_proxy_names_the_proxy_and_no_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with SyncClient("kws.invalid:50051") as client, pytest.raises(ServerUnreachableError) as caught:
        client.health()
    assert "http_proxy" in str(caught.value)
    assert "no_proxy" in str(caught.value)
