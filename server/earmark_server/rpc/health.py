"""grpc.health.v1: whether the server, and its service, can serve calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from earmark_server.rpc.requests import SERVICE

if TYPE_CHECKING:
    import grpc


class Health:
    """The health of the whole server (the name "") and of the service; both always have the same status."""

    def __init__(self) -> None:
        self._servicer = health.aio.HealthServicer()
        self.serving = False
        """Whether the status is SERVING."""
        self._draining = False

    async def register(self, server: grpc.aio.Server) -> None:
        """Add the health service to a server, as NOT_SERVING."""
        # The servicer's initial status is SERVING, but no model is loaded yet.
        await self.set_serving(False)
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def set_serving(self, serving: bool) -> None:
        """Set the status for all checks and watches; without effect after `drain`."""
        self.serving = serving and not self._draining
        response = health_pb2.HealthCheckResponse
        for name in ("", SERVICE.full_name):
            await self._servicer.set(name, response.SERVING if serving else response.NOT_SERVING)

    async def drain(self) -> None:
        """Set NOT_SERVING for good."""
        self._draining, self.serving = True, False
        await self._servicer.enter_graceful_shutdown()
