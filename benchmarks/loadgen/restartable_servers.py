"""Server processes that can be killed or replaced, each on a fixed port, optionally behind nginx."""

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

from benchmarks.loadgen.errors import BenchmarkError

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


class RestartableServer:
    """A server process on a fixed port, which can be killed, drained, and started again."""

    def __init__(self, model_path: Path | None, max_streams: int, log: Path) -> None:
        self.port = _free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._log = log
        self._command = [sys.executable, "-m", "earmark_server", "--host", "127.0.0.1"]
        self._command += ["--port", str(self.port), "--max-streams", str(max_streams)]
        self._command += ["--max-streams-per-client", "0"]
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
        """Start the process; return before it serves."""
        with self._log.open("ab") as log:
            # In its own session, the server does not receive Ctrl-C. The benchmark stops it.
            self._process = subprocess.Popen(self._command, stderr=log, start_new_session=True)

    def kill(self) -> None:
        """Kill the process with SIGKILL. Raises BenchmarkError if it had already exited."""
        if self._process is None or self._process.poll() is not None:
            raise BenchmarkError(f"A server exited by itself. The end of its log:\n{_log_tail(self._log)}")
        self._process.kill()
        self._process.wait()

    def replace(self) -> None:
        """Drain the process with SIGTERM, start a new one, and wait until it serves.

        Raises BenchmarkError if the old process does not exit with code 0.
        """
        assert self._process is not None
        self._process.terminate()
        try:
            code = self._process.wait(_DRAIN_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            code = None
        if code != 0:
            how = "did not exit" if code is None else f"exited with code {code}"
            raise BenchmarkError(f"A drained server {how}. The end of its log:\n{_log_tail(self._log)}")
        self.start()
        _wait_until_serving(self.address, self._log)


@contextlib.contextmanager
def run_nginx(servers: list[RestartableServer], folder: Path) -> Iterator[str]:
    """Run nginx in front of the servers while the block runs; yield its address."""
    program = shutil.which("nginx")
    if program is None:
        raise BenchmarkError("nginx is not installed: install it (on Debian, `apt install nginx-light`).")
    port = _free_port()
    upstream = "\n".join(f"        server {server.address} max_fails=0;" for server in servers)
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, port=port, servers=upstream))
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
    raise BenchmarkError(f"No server is serving at {address}. The end of its log:\n{_log_tail(log)}")


def _log_tail(log: Path) -> str:
    return log.read_text(errors="replace")[-1000:] if log.exists() else ""


def _free_port() -> int:
    """Return a free port below the ephemeral range.

    While a server is down, clients keep trying to connect to its port. If the port were an ephemeral one,
    such a connection could get it as its own local port, and the server could not bind it again.
    """
    while True:
        port = random.randrange(20_000, 32_768)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
