from __future__ import annotations

import pytest
from earmark_client import InvalidRequestError
from earmark_client.addresses import grpc_target


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
        ("ipv4:1.2.3.4:50051,5.6.7.8:50052", "ipv4:1.2.3.4:50051,5.6.7.8:50052"),
        ("ipv6:[::1]:50051", "ipv6:[::1]:50051"),
        ("ipv6:%5B::1%5D:50051", "ipv6:%5B::1%5D:50051"),
    ],
)
def test_an_address_without_a_port_has_the_default_port(given: str, completed: str) -> None:
    assert grpc_target(given) == completed


@pytest.mark.parametrize(
    "given",
    ["", ":50051", "http://localhost:50051", "localhost:", "localhost:port", "a b", "host:99999", "h:0"],
)
def test_an_invalid_address_is_rejected_with_an_example(given: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"give HOST:PORT, such as localhost:50051"):
        grpc_target(given)


@pytest.mark.parametrize("given", ["\0", "host\0:50051", "unix:/run/\0", "dns:///\0"])
def test_a_null_character_is_not_part_of_an_address(given: str) -> None:
    with pytest.raises(InvalidRequestError, match="it contains a null character"):
        grpc_target(given)


@pytest.mark.parametrize(
    "given",
    [
        *("ipv4:1.2.3.4", "ipv4:1.2.3.4:", "ipv4:1.2.3.4:0", "ipv4:1.2.3.4:65536", "ipv4:1.2.3.4:1,5.6.7.8"),
        *("ipv4:localhost:1", "ipv4:[::1]:1", "ipv6:[::1]", "ipv6:::1", "ipv6:::1:1", "ipv6:1.2.3.4:1"),
    ],
)
def test_an_ip_address_in_a_uri_needs_its_port(given: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"each IP address needs a port, such as ipv[46]:.*:50051$"):
        grpc_target(given)


@pytest.mark.parametrize("given", ["dns:", "dns:///", "dns:[::1", "unix:", "ipv4:", "xds:///"])
def test_a_uri_that_names_no_server_is_rejected(given: str) -> None:
    with pytest.raises(InvalidRequestError, match="names no server"):
        grpc_target(given)
