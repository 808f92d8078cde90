"""Memory runs out: every call gets a status, and the server continues, or exits for its supervisor."""

from __future__ import annotations

import io
import re
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
import soundfile
from earmark.v1 import keyword_spotting_pb2 as messages
from earmark.v1 import keyword_spotting_service_pb2 as rpcs
from earmark.v1 import keyword_spotting_service_pb2_grpc as stubs
from earmark_server.inference.watchdog import EXIT_CODE
from support.deadlines import DEADLINE_S
from support.server_process import ServerProcess

LINEAR16 = messages.AudioFormat(encoding=messages.ENCODING_LINEAR16, sample_rate_hertz=16_000)
OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_send_message_length", -1))

if not hasattr(resource, "prlimit"):
    pytest.skip("limits of another process are set by prlimit, which is Linux's", allow_module_level=True)


def spot(address: str, request: rpcs.SpotRequest) -> grpc.StatusCode:
    with grpc.insecure_channel(address, OPTIONS) as channel:
        try:
            stubs.KeywordSpottingServiceStub(channel).Spot(request, timeout=DEADLINE_S)
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK


def stream(address: str) -> grpc.StatusCode:
    requests = [rpcs.StreamingSpotRequest(config=rpcs.StreamingConfig(audio_format=LINEAR16))]
    requests += [rpcs.StreamingSpotRequest(audio=bytes(32_000))] * 20
    with grpc.insecure_channel(address, OPTIONS) as channel:
        try:
            list(stubs.KeywordSpottingServiceStub(channel).StreamingSpot(iter(requests), timeout=DEADLINE_S))
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK


@pytest.mark.slow
@pytest.mark.parametrize("spare_mb", [0, 60, 300])
def test_all_calls_end_and_the_server_recovers_or_exits(spare_mb: int) -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros((200 * 48_000, 2), np.int16), 48_000, format="FLAC")
    large = [
        rpcs.SpotRequest(audio=buffer.getvalue()),
        rpcs.SpotRequest(audio=bytes(9_000_000), audio_format=LINEAR16),
    ]
    with ServerProcess("--port=0", "--log-format=json") as server:
        address = f"127.0.0.1:{server.wait_for('listening')['port']}"
        server.wait_for("serving")
        pid = server.process.pid
        hard = resource.prlimit(pid, resource.RLIMIT_AS)[1]
        kilobytes = int(re.search(r"VmSize:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])  # type: ignore[index]
        limit = (kilobytes + spare_mb * 1024) * 1024
        resource.prlimit(pid, resource.RLIMIT_AS, (limit, hard))
        with ThreadPoolExecutor(20) as pool:
            calls = [pool.submit(spot, address, request) for request in large * 5]
            calls += [pool.submit(stream, address) for _ in range(10)]
            codes = [call.result(2 * DEADLINE_S) for call in calls]
        assert grpc.StatusCode.DEADLINE_EXCEEDED not in codes  # no call was left hanging
        # gRPC itself ends the process if one of its allocations fails. The supervisor starts another one.
        exited = grpc.StatusCode.UNAVAILABLE in codes
        if exited:
            assert server.process.wait(DEADLINE_S) != 0
        else:
            resource.prlimit(pid, resource.RLIMIT_AS, (hard, hard))
            assert stream(address) is grpc.StatusCode.OK
            assert spot(address, large[0]) is grpc.StatusCode.OK
            server.process.terminate()
            # Whatever the shortage may have broken, the server ends, if need be by its own deadline.
            assert server.process.wait(DEADLINE_S) in (0, EXIT_CODE)
