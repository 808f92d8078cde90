"""`earmark health`."""

from __future__ import annotations

import signal

from support.earmark_command import earmark, json_lines, running, without_time


def test_health_as_json(address: str) -> None:
    done = earmark("health", "--server", address, "--json")
    assert without_time(json_lines(done.stdout)) == [
        {"type": "health", "server": address, "status": "SERVING"}
    ]


def test_the_server_address_from_the_environment(address: str) -> None:
    assert earmark("health", EARMARK_SERVER=address).stdout == f"{address}: SERVING\n"
    assert earmark("health", "--server", address, EARMARK_SERVER="127.0.0.1:1").returncode == 0
    assert earmark("health", EARMARK_SERVER="no address").returncode == 2


def test_an_interrupt_ends_a_health_watch(address: str) -> None:
    with running("health", "--watch", "--server", address) as process:
        assert process.stdout is not None
        assert process.stdout.readline().endswith(b": SERVING\n")
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30) == (b"", b"")
        assert process.returncode == 130
