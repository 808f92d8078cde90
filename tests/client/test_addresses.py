from __future__ import annotations

import pytest
from earmark_client import InvalidRequestError
from earmark_client.addresses import grpc_target
from earmark_client.channel_pool import channel_options


@pytest.mark.parametrize(
    ("given", "completed"),
    [
        ("localhost:50051", "localhost:50051"),
        ("localhost", "localhost:50051"),
        (" kws.example.org:443 ", "kws.example.org:443"),
        ("10.1.2.3", "10.1.2.3:50051"),
        ("::1", "[::1]:50051"),
        ("[::1]:7", "[::1]:7"),
        ("unix:/run/earmark.sock", "unix:/run/earmark.sock"),
        ("dns:///kws.example.org:50051", "dns:///kws.example.org:50051"),
    ],
)
def test_an_address_is_completed_with_the_port_that_the_server_has_by_default(
    given: str, completed: str
) -> None:
    assert grpc_target(given) == completed


@pytest.mark.parametrize(
    "given",
    ["", ":50051", "http://localhost:50051", "localhost:", "localhost:port", "a b", "host:99999", "h:0"],
)
def test_what_is_no_address_is_refused_with_an_example(given: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"give HOST:PORT, such as localhost:50051"):
        grpc_target(given)


@pytest.mark.parametrize("address", ["localhost:50051", "127.0.0.1:1", "[::1]:1"])
def test_no_proxy_stands_between_a_machine_and_itself(address: str) -> None:
    assert dict(channel_options(address, 5.0))["grpc.enable_http_proxy"] == 0
    assert "grpc.enable_http_proxy" not in dict(channel_options("kws.example.org:50051", 5.0))
