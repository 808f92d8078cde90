"""A grpc.aio server that does nothing: what a server in Python costs at least under the same load.

It parses every request of a stream, and returns one short event per second of audio, on the event loop that
Earmark uses.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from typing import TYPE_CHECKING

import grpc
from earmark.v1 import keyword_spotting_service_pb2 as rpcs
from earmark.v1 import keyword_spotting_service_pb2_grpc as services
from earmark_server import event_loop

from benchmarks.loadgen.errors import BenchmarkError
from benchmarks.loadgen.server_process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

_BYTES_PER_S = 32_000


class _EmptyService(services.KeywordSpottingServiceServicer):
    async def StreamingSpot(  # noqa: N802
        self, requests: AsyncIterator[rpcs.StreamingSpotRequest], _: object
    ) -> AsyncIterator[rpcs.StreamingSpotResponse]:
        yield rpcs.StreamingSpotResponse(started=rpcs.StreamStarted(model="none"))
        received = 0
        async for request in requests:
            second = received // _BYTES_PER_S
            received += len(request.audio)
            if received // _BYTES_PER_S > second:
                yield rpcs.StreamingSpotResponse(progress=rpcs.Progress(resume_token=bytes(64)))
        yield rpcs.StreamingSpotResponse(ended=rpcs.StreamEnded())


@contextlib.contextmanager
def running_empty_server() -> Iterator[ServerProcess]:
    """Run the server on a free loopback port while the block runs."""
    process = subprocess.Popen([sys.executable, "-m", __name__], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        port = process.stdout.readline().strip()
        if not port:
            raise BenchmarkError("The empty server did not start. Its error output is above.")
        yield ServerProcess(f"127.0.0.1:{port}", process.pid)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


async def _main() -> None:
    server = grpc.aio.server()
    services.add_KeywordSpottingServiceServicer_to_server(_EmptyService(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    event_loop.run(_main())
