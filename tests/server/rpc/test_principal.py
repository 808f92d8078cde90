"""The key that a call's quota is counted under."""

from __future__ import annotations

import pytest
from earmark_server.rpc.principal import quota_key


@pytest.mark.parametrize(
    ("peer", "key"),
    [
        ("ipv4:10.1.2.3:4567", "clientip:10.1.2.3"),
        ("ipv6:[2001:db8:1:2:3:4:5:6]:4567", "clientip:2001:db8:1:2::/64"),
        ("ipv6:[::ffff:10.1.2.3]:4567", "clientip:10.1.2.3"),
        ("ipv6:[fe80::1%eth0]:4567", "clientip:fe80::/64"),
        ("ipv6:[::1]:4567", "clientip:::/64"),
        ("unix:/run/earmark.sock", "unix:/run/earmark.sock"),
        ("unix:", "unix:"),
    ],
)
def test_without_a_principal_the_quota_key_is_the_address(peer: str, key: str) -> None:
    assert quota_key(None, peer) == key


def test_with_a_principal_the_quota_key_is_its_name() -> None:
    assert quota_key("alice", "ipv4:10.1.2.3:4567") == "client:alice"
