"""grpc.health.v1: whether the server, and its service, can take calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from earmark_server.rpc.wire import SERVICE

if TYPE_CHECKING:
    import grpc


class Health:
    """The health of the whole server (the name "") and of the service; both are always the same."""

    def __init__(self) -> None:
        self._servicer = health.aio.HealthServicer()
        self.serving = False
        """Whether it says SERVING."""
        self._drains = False

    async def register(self, server: grpc.aio.Server) -> None:
        """Add it to a server, as NOT_SERVING."""
        # The servicer begins as SERVING; nothing is loaded yet.
        await self.set_serving(False)
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def set_serving(self, serving: bool) -> None:
        """Tell everybody who checks or watches; without effect after `drain`."""
        self.serving = serving and not self._drains
        response = health_pb2.HealthCheckResponse
        for name in ("", SERVICE.full_name):
            await self._servicer.set(name, response.SERVING if serving else response.NOT_SERVING)

    async def drain(self) -> None:
        """Be NOT_SERVING from now on, for good."""
        self._drains, self.serving = True, False
        await self._servicer.enter_graceful_shutdown()
