"""A server that listens on a Unix socket."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import pytest
from earmark_client import Detection, Health, SyncClient
from earmark_server import serve_in_thread
from earmark_server.command_line import read_settings
from earmark_server.server import StartError
from earmark_server.setting_declaration import SettingsError
from earmark_server.settings import Settings
from support import tiny_model
from support.server_process import ServerProcess

if TYPE_CHECKING:
    from pathlib import Path

RATE_HZ = 16_000


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)  # the path of a socket has at most 107 bytes
    return "unix:kws.sock"


def test_a_client_is_served_over_a_unix_socket(address: str, tiny_model_path: Path) -> None:
    with ServerProcess(f"--host={address}", f"--model={tiny_model_path}", "--log-format=json") as server:
        line = server.wait_for("listening")
        assert line["host"] == address
        assert "port" not in line
        server.wait_for("serving")
        with SyncClient(address) as client:
            assert client.health() is Health.SERVING
            audio = [tiny_model.recording([(0.5, "low")], 2.0)]
            events = list(client.stream(audio, sample_rate_hz=RATE_HZ))
            assert [event.keyword for event in events if isinstance(event, Detection)] == ["low"]


@pytest.mark.slow
def test_a_socket_that_another_server_listens_on_is_not_taken_from_it(
    address: str, tiny_model_path: Path
) -> None:
    arguments = (f"--host={address}", f"--model={tiny_model_path}", "--log-format=json")
    with ServerProcess(*arguments) as server:
        server.wait_for("serving")
        with ServerProcess(*arguments) as second:
            assert "another server listens there" in str(second.wait_for("cannot start"))
        with SyncClient(address) as client:
            assert client.health() is Health.SERVING
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
    with ServerProcess(*arguments) as third:
        third.wait_for("serving")


def test_a_socket_whose_server_hangs_is_in_use(address: str, tiny_model_path: Path) -> None:
    with ExitStack() as sockets:

        def unix_socket() -> socket.socket:
            return sockets.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))

        hanging = unix_socket()
        hanging.bind(address.removeprefix("unix:"))
        hanging.listen(0)
        with suppress(BlockingIOError):
            while True:
                waiting = unix_socket()
                waiting.setblocking(False)
                waiting.connect(hanging.getsockname())
        with (
            pytest.raises(StartError, match="another server listens there"),
            serve_in_thread(host=address, model=(str(tiny_model_path),)),
        ):
            pass


@pytest.mark.parametrize(
    "settings",
    [{"workers": 2}, {"health_port": 50052}, {"port": 50052}, {"port": 0}, {"max_memory_bytes": 1 << 30}],
)
def test_settings_that_need_a_port_are_rejected(settings: dict[str, int]) -> None:
    with pytest.raises(SettingsError, match="Unix socket"):
        Settings(host="unix:kws.sock", **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("source", ["option", "environment", "file"])
def test_a_port_is_rejected_with_where_it_is_set(
    tmp_path: Path, source: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "server.toml"
    file.write_text("port = 50052\n" if source == "file" else "")
    environment = {"EARMARK_PORT": "50052"} if source == "environment" else {}
    option = ["--port=50052"] if source == "option" else []
    with pytest.raises(SystemExit) as caught:
        read_settings(["--host=unix:kws.sock", f"--config={file}", *option], environment)
    assert caught.value.code == 2
    origin = {"environment": "EARMARK_PORT", "file": str(file), "option": ""}[source]
    message = (
        "earmark-server: --port contradicts a Unix socket as --host, which has no port. Omit one of them."
    )
    assert capsys.readouterr().err.startswith(
        message + (f" --port is set in {origin}." if origin else " See")
    )


def test_an_embedded_server_listens_on_a_unix_socket(address: str, tiny_model_path: Path) -> None:
    with serve_in_thread(host=address, model=(str(tiny_model_path),)) as served, SyncClient(served) as client:
        assert client.health() is Health.SERVING
