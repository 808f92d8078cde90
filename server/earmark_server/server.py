"""The lifecycle of a server: bind, load, warm up, serve, drain, stop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import stat
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from earmark_server.credentials.tls import Certificates
from earmark_server.inference.engine import Engine
from earmark_server.inference.model_registry import ModelRegistry
from earmark_server.inference.watchdog import Watchdog
from earmark_server.logs import log
from earmark_server.memory.guard import MemoryGuard
from earmark_server.memory.limit import MEMORY_SHARE, memory_limit_bytes
from earmark_server.reload import BadFileError
from earmark_server.rpc import grpc_options
from earmark_server.rpc.acceptor import grpc_server
from earmark_server.rpc.admission import Admission
from earmark_server.rpc.authentication import Authentication
from earmark_server.rpc.handlers import register_service
from earmark_server.rpc.health import Health
from earmark_server.rpc.lookup_requests import HEALTH, HEALTH_PORT, LOOKUPS, LookupRequests
from earmark_server.rpc.metadata_limit import MetadataLimit
from earmark_server.rpc.principal import quota_key
from earmark_server.rpc.reflection import Reflection
from earmark_server.rpc.service import KeywordSpottingService, Loaded
from earmark_server.setting_declaration import SettingsError
from earmark_server.settings import is_unix_socket
from earmark_server.status import CallError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import grpc

    from earmark_server.rpc.tracing import Tracing
    from earmark_server.settings import Settings
    from earmark_server.telemetry.metrics import Metrics

_LOGGER = logging.getLogger(__name__)

# The time that ended calls have to send their status. All of it passes only if a health watch is open, which
# does not end by itself, or a client does not read.
_STATUS_TIME_S = 0.5


class StartError(Exception):
    """The server cannot start; the message says why."""


class Server:
    """One server. Create and use it on a running event loop.

    server = Server(Settings(port=0))
    await server.start()
    print(server.port)
    await server.drain()
    """

    def __init__(self, settings: Settings, *, shares_port: bool = False, owns_process: bool = False) -> None:
        """`shares_port`: the server is one of several workers on the port; see supervisor.py.

        `owns_process`: the server may end the process when it has stalled; see watchdog.py.

        Raises StartError if its certificate or token file cannot be used.
        """
        if settings.workers != 1:
            raise SettingsError(
                f"--workers must be 1 for a Server, which is one process, but is {settings.workers}."
            )
        self._settings = settings
        self._shares_port = shares_port
        self._tracing = _tracing() if settings.traces else None
        self._admission = Admission(settings, self._tracing)
        self._health = Health(self._admission)
        self._service = KeywordSpottingService(settings, self._admission, LookupRequests(settings, LOOKUPS))
        self._engine: Engine | None = None
        self._owns_process = owns_process
        self._watchdog: Watchdog | None = None
        self._memory_guard: MemoryGuard | None = None
        self._stopped = asyncio.Event()
        try:
            self._certificates = _certificates(settings)
            self._authentication = _authentication(settings, self._admission)
        except BadFileError as error:
            raise StartError(str(error)) from error
        self._reloading: list[asyncio.Task[None]] = []
        self._exit_stack = contextlib.ExitStack()
        self._metrics: Metrics | None = None
        if settings.metrics_port:
            from earmark_server.telemetry.metrics import Metrics

            self._metrics = Metrics(
                settings,
                self._health,
                self._admission,
                self._service.detections,
                self._running,
                unusable_files=self._unusable_files,
            )
        limit = MetadataLimit(settings.max_metadata_bytes, self._admission)
        # The metrics come first, so that they count the calls that the others reject.
        interceptors = (self._metrics.rpcs if self._metrics else None, limit, self._authentication)
        options = grpc_options.options(settings, shares_port=shares_port)
        self._grpc = grpc_server(
            self._admission,
            interceptors=[each for each in interceptors if each is not None],
            options=(*options, *self._admission.connection_age.grpc_options),
        )
        self._health_grpc: grpc.aio.Server | None = None
        if settings.health_port:
            options = grpc_options.health_port_options(settings)
            self._health_grpc = grpc_server(self._admission, interceptors=[limit], options=options)
        self.port = 0
        """The port that the server listens on, once `start` has bound it; meaningless for a Unix socket."""

    async def start(self) -> None:
        """Bind the port, load the models, warm them up, and turn SERVING.

        Raises StartError if the address or the state folder cannot be used, and ModelError for a model that
        cannot be used. Nothing is left running then.
        """
        started_s = time.perf_counter()
        self._bind()
        if self._owns_process and sys.platform == "linux":
            self._memory_guard = self._start_memory_guard()
        self._health.register(self._grpc, LookupRequests(self._settings, HEALTH))
        if self._health_grpc is not None:
            self._health.register(self._health_grpc, LookupRequests(self._settings, HEALTH_PORT))
            await self._health_grpc.start()
        if self._settings.reflection:
            Reflection(self._settings, self._admission).register(self._grpc)
        register_service(self._grpc, self._service, self._settings)
        await self._grpc.start()
        log(
            _LOGGER,
            logging.INFO,
            "listening",
            host=self._settings.host,
            port=None if is_unix_socket(self._settings.host) else self.port,
            tls=self._certificates is not None or None,
        )
        try:
            await self._open_metrics()
            models = await asyncio.to_thread(ModelRegistry, self._settings)
        except BaseException as error:
            self._exit_stack.close()
            self._stop_memory_guard()
            await self._stop_grpc(None)
            if isinstance(error, BadFileError):
                raise StartError(str(error)) from error
            raise
        if self._memory_guard is not None:
            self._memory_guard.allow_for_models(lambda: models.file_bytes)
        self._engine = Engine()
        self._engine.start()
        self._admission.load = self._engine.load
        self._service.loaded.set_result(Loaded(models, self._engine))
        self._reloading.append(asyncio.create_task(models.reload_changed(self._admission.models_in_use)))
        self._watchdog = Watchdog(
            self._engine,
            self._settings,
            self._on_engine_health,
            loop=asyncio.get_running_loop(),
            loop_thread=threading.current_thread(),
            exits=self._owns_process,
        )
        self._watchdog.start()
        for reloadable in (self._certificates, self._authentication):
            if reloadable is not None:
                self._reloading.append(asyncio.create_task(reloadable.reload_forever()))
        self._health.set_serving(True)
        log(
            _LOGGER,
            logging.INFO,
            "worker serving" if self._shares_port else "serving",
            models=",".join(model.metadata.name for model in models.current),
            resume_key="file" if self._settings.resume_key_file else "model",
            start_s=round(time.perf_counter() - started_s, 3),
        )

    async def drain(self) -> None:
        """Turn NOT_SERVING, notify open streams, wait for them for the grace period, end them, and stop."""
        log(_LOGGER, logging.INFO, "draining", calls=len(self._admission.open_calls))
        self._health.drain()
        self._admission.drain()
        for call in self._admission.open_calls:
            call.notify_draining()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._admission.wait_until_all_ended(), self._settings.drain_grace_s)
        for call in self._admission.open_calls:
            call.end(CallError("DRAINING", "This server is shutting down. Resume on another one."))
        await self.stop(_STATUS_TIME_S)

    async def stop(self, grace_s: float | None = None) -> None:
        """Stop the server; open calls have `grace_s` to end by themselves."""
        if self._stopped.is_set():
            return
        if self._watchdog is not None:
            self._watchdog.stop()
        for task in self._reloading:
            task.cancel()
        self._health.drain()
        self._admission.drain()
        await self._stop_grpc(grace_s)
        self._service.close()
        if self._engine is not None:
            await self._engine.stop()
        self._stop_memory_guard()
        self._exit_stack.close()
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.close)
        log(_LOGGER, logging.INFO, "stopped")
        self._stopped.set()

    @property
    def is_accepting(self) -> bool:
        """Whether gRPC still accepts calls: an exception in its own code stops it."""
        servers: tuple[Any, ...] = (self._grpc, self._health_grpc)
        return all(each._server.is_running() for each in servers if each is not None)

    async def wait(self) -> None:
        """Wait until the server has stopped."""
        await self._stopped.wait()

    def _bind(self) -> None:
        certificates = self._certificates
        credentials = None if certificates is None else certificates.credentials()
        self.port = self._listen(self._grpc, self._settings.port, credentials, "--port, or 0 for a free one")
        if self._health_grpc is not None:
            self._listen(self._health_grpc, self._settings.health_port, None, "--health-port")

    def _listen(
        self, server: grpc.aio.Server, port: int, credentials: grpc.ServerCredentials | None, option: str
    ) -> int:
        address = self._settings.address(port)
        if is_unix_socket(address):
            self._check_socket(address)
        elif port and not self._shares_port:
            # gRPC would listen on the other addresses of a name only: on ::1, say, but not on 127.0.0.1.
            problems = self._bind_problems(port)
            if any(problem.errno == errno.EADDRINUSE for problem in problems):
                raise self._cannot_listen(port, option, problems)
        try:
            if credentials is None:
                bound = server.add_insecure_port(address)
            else:
                bound = server.add_secure_port(address, credentials)
        except RuntimeError:
            bound = 0
        if not bound:
            problems = [] if is_unix_socket(address) else self._bind_problems(port)
            raise self._cannot_listen(port, option, problems)
        return int(bound)

    @staticmethod
    def _check_socket(address: str) -> None:
        """Raise StartError if a Unix socket cannot be created, or if another server listens on it.

        gRPC would take the path from that server. A path that nobody listens on, left behind by a server that
        was killed, is used again.
        """
        path = address.removeprefix("unix:")
        folder = os.path.dirname(path) or "."
        problem = "another server listens there"
        with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as tested:
            tested.setblocking(False)  # a server that hangs accepts no connection
            try:
                tested.connect(path)
            except BlockingIOError:
                pass  # more connections than it accepts wait for it
            except (FileNotFoundError, ConnectionRefusedError):
                if not os.path.isdir(folder):
                    problem = f"there is no folder {folder}"
                elif not os.access(folder, os.W_OK | os.X_OK):
                    problem = f"no file may be created in {folder}"
                elif os.path.lexists(path) and not stat.S_ISSOCK(os.lstat(path).st_mode):
                    problem = "the file there is not a socket. Delete it, or choose another path with --host"
                else:
                    return
            except OSError as error:
                problem = error.strerror or str(error)
        raise StartError(f"Cannot listen on {address}: {problem}.")

    def _bind_problems(self, port: int) -> list[OSError]:
        """Return why the host cannot be resolved, or a port cannot be bound on some of its addresses."""
        try:
            found = socket.getaddrinfo(self._settings.host, port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            return [error]
        problems = []
        for family, kind, protocol, _, address in found:
            try:
                with contextlib.closing(socket.socket(family, kind, protocol)) as tested:
                    tested.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    if family == socket.AF_INET6:
                        tested.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                    tested.bind(address)
            except OSError as error:
                problems.append(error)
        return problems

    def _cannot_listen(self, port: int, option: str, problems: Sequence[OSError]) -> StartError:
        """Return the error that says what is wrong, and which option to change."""
        in_use = next((each for each in problems if each.errno == errno.EADDRINUSE), None)
        problem = in_use or next(iter(problems), None)
        if problem is None:
            reason = "gRPC does not say why"
        elif problem is in_use:
            reason = f"the port is in use (choose another one with {option})"
        elif isinstance(problem, socket.gaierror):
            reason = f"the name {self._settings.host} cannot be resolved ({problem.strerror}). Correct --host"
        elif problem.errno == errno.EADDRNOTAVAIL:
            reason = "the address does not belong to this machine. Correct --host"
        else:
            reason = str(problem.strerror)
        return StartError(f"Cannot listen on {self._settings.address(port)}: {reason}.")

    async def _stop_grpc(self, grace_s: float | None) -> None:
        await self._grpc.stop(grace_s)
        # The health port stops last, so that it answers until then.
        if self._health_grpc is not None:
            await self._health_grpc.stop(None)

    async def _open_metrics(self) -> None:
        if self._metrics is None:
            return
        host, port = self._settings.metrics_host, self._settings.metrics_port
        try:
            # Python's HTTP server looks up the name of its host, which may take a while.
            await asyncio.to_thread(self._exit_stack.enter_context, self._metrics.served(host, port))
        except OSError as error:
            raise StartError(f"Cannot listen on {host}:{port} for metrics: {error.strerror}.") from None

    def _start_memory_guard(self) -> MemoryGuard:
        settings = self._settings
        ports = {self.port, settings.health_port, settings.metrics_port} - {0}

        def limit_bytes() -> int:
            if settings.max_memory_bytes:
                return settings.max_memory_bytes
            return int((memory_limit_bytes() or sys.maxsize) * MEMORY_SHARE)

        guard = MemoryGuard(
            ports,
            limit_bytes,
            lambda peer: quota_key(None, peer),
            self._admission.peers,
            asyncio.get_running_loop(),
        )
        guard.start()
        self._admission.is_guarded = True
        return guard

    def _stop_memory_guard(self) -> None:
        if self._memory_guard is not None:
            self._memory_guard.stop()

    def _running(self) -> tuple[Loaded, Watchdog] | None:
        if self._watchdog is None:
            return None
        return self._service.loaded.result(), self._watchdog

    def _unusable_files(self) -> int:
        reloaded = (self._certificates, self._authentication)
        return sum(each is not None and not each.is_usable for each in reloaded)

    def _on_engine_health(self, is_healthy: bool) -> None:
        """Adjust the server's health to that of the engine; end the calls that a stalled engine has."""
        self._admission.stalled = not is_healthy
        if not is_healthy:
            message = "Inference has stalled on this server. Resume on another one."
            for call in self._admission.open_calls:
                if call.kind.needs_inference:
                    call.end(CallError("ENGINE_STALLED", message))
        self._health.set_serving(is_healthy)


def _certificates(settings: Settings) -> Certificates | None:
    if not settings.tls_certificate:
        return None
    return Certificates(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)


def _authentication(settings: Settings, admission: Admission) -> Authentication | None:
    if not settings.token_file:
        return None
    return Authentication(settings.token_file, admission, open_health=settings.open_health)


def _tracing() -> Tracing:
    try:
        from earmark_server.rpc.tracing import Tracing
    except ModuleNotFoundError as error:
        from earmark_audio.extras import install_command

        raise StartError(
            f"traces needs {error.name}, which is not installed: {install_command('otel')}"
        ) from None
    return Tracing()
