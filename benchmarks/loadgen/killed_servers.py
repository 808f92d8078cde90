"""Servers to be killed or replaced: on ports of their own, and behind an nginx."""

from __future__ import annotations

import contextlib
import random
import shutil
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Self

from earmark_client import EarmarkError, Health, SyncClient

from benchmarks.loadgen.speech import BenchmarkError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_START_TIMEOUT_S = 60
_DRAIN_TIMEOUT_S = 60

_NGINX = """\
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream earmark {{
{servers}
    }}
    server {{
        listen 127.0.0.1:{port} http2;
        client_max_body_size 0;
        location / {{ grpc_pass grpc://earmark; }}
    }}
}}
"""


class Victim:
    """A server process on a port of its own, which can be killed, drained, and started again there."""

    def __init__(self, model_path: Path | None, max_streams: int, log: Path) -> None:
        self.port = _free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._log = log
        self._command = [sys.executable, "-m", "earmark_server", "--host", "127.0.0.1"]
        self._command += ["--port", str(self.port), "--max-streams", str(max_streams)]
        if model_path is not None:
            self._command += ["--model", str(model_path)]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        try:
            _wait_until_serving(self.address, self._log)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def start(self) -> None:
        """Start it; it takes a moment until it serves."""
        with self._log.open("ab") as log:
            # A session of its own: an interrupt from the terminal is for the benchmark, which then ends it.
            self._process = subprocess.Popen(self._command, stderr=log, start_new_session=True)

    def kill(self) -> None:
        """Kill it as `kill -9` does. BenchmarkError where it had ended by itself."""
        if self._process is None or self._process.poll() is not None:
            raise BenchmarkError(f"A server ended by itself. Its last words:\n{_last_words(self._log)}")
        self._process.kill()
        self._process.wait()

    def replace(self) -> None:
        """Drain it with SIGTERM, start it again, and wait until it serves.

        BenchmarkError where it did not end by itself, with exit code 0.
        """
        assert self._process is not None
        self._process.terminate()
        try:
            code = self._process.wait(_DRAIN_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            code = None
        if code != 0:
            how = "did not end" if code is None else f"ended with exit code {code}"
            raise BenchmarkError(f"A drained server {how}. Its last words:\n{_last_words(self._log)}")
        self.start()
        _wait_until_serving(self.address, self._log)


@contextlib.contextmanager
def behind_nginx(victims: list[Victim], folder: Path) -> Iterator[str]:
    """Run an nginx before the servers; give its address."""
    program = shutil.which("nginx")
    if program is None:
        raise BenchmarkError("There is no nginx here: install it (on Debian, `apt install nginx-light`).")
    port = _free_port()
    servers = "\n".join(f"        server {victim.address} max_fails=0;" for victim in victims)
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, port=port, servers=servers))
    log = folder / "error.log"
    command = [program, "-p", str(folder), "-c", str(config), "-e", str(log)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        _wait_until_serving(f"127.0.0.1:{port}", log)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _wait_until_serving(address: str, log: Path) -> None:
    deadline_s = time.monotonic() + _START_TIMEOUT_S
    with SyncClient(address) as client:
        while time.monotonic() < deadline_s:
            with contextlib.suppress(EarmarkError):
                if client.health() is Health.SERVING:
                    return
            time.sleep(0.05)
    raise BenchmarkError(f"Nothing serves at {address}. Its last words:\n{_last_words(log)}")


def _last_words(log: Path) -> str:
    return log.read_text(errors="replace")[-1000:] if log.exists() else ""


def _free_port() -> int:
    """Find a port below those that connections get.

    Else one of the connections that are tried while nobody listens might get the very port, and keep it.
    """
    while True:
        port = random.randrange(20_000, 32_768)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
