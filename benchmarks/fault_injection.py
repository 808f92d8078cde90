"""Inject faults while real speech is streamed, and compare the detections with those of an undisturbed run.

    python -m benchmarks.fault_injection [--rolling | --cut] [--nginx]
                                         [--streams 50] [--times 20] [--seconds 90] [--speed 1]

The streams are those of `earmark_client.Client`, as in any application. At random times the server is
killed (SIGKILL) and started again on the same port, sometimes while it is still starting. With `--rolling`,
three servers are instead drained (SIGTERM) and replaced one after the other, while the client balances its
streams over all of them. With `--cut`, a connection is instead cut in the middle of a message. With
`--nginx`, the servers are behind nginx: two of them, of which a random one is killed, or the three of
`--rolling`.

Prints how many detections were expected, received, lost, repeated or unexpected; the expected ones are
those of a Spotter with the same audio. Exits with 1 if any was lost, repeated or unexpected, if a stream
failed, if no stream was interrupted, if a drained server did not exit with code 0, or if a stream had to
wait for longer than 5 s for the next server.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from earmark_client import Client
from earmark_spotter import AudioFormat, Encoding, Spotter, SpotterModel

from benchmarks.loadgen import arguments
from benchmarks.loadgen.cutting_proxy import CuttingProxy
from benchmarks.loadgen.restartable_servers import RestartableServer, run_nginx
from benchmarks.loadgen.resumed_stream import ResumedStream, SampleRange
from benchmarks.loadgen.speech import Speech
from benchmarks.loadgen.table import number, print_header, print_row

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from earmark_spotter import Detection

COLUMNS = (
    "faults",
    "streams",
    "streams resumed",
    "outage p50, s",
    "outage max, s",
    "detections expected",
    "received",
    "lost",
    "repeated",
    "unexpected",
)

# Faults occur within this part of the streams' duration: all streams have started, and can still end.
_FIRST_FAULT, _LAST_FAULT = 0.05, 0.95

# A stream moves to another server at once; the limit allows for a busy machine.
_MAX_ROLLING_OUTAGE_S = 5.0

_START_POSITIONS = 16
_CHUNK_MS = 100


def main(argv: Sequence[str] | None = None) -> int:
    parser = arguments.make_parser(
        "fault_injection", "Kill servers while real speech is streamed, and count lost detections."
    )
    fault = parser.add_mutually_exclusive_group()
    fault.add_argument(
        "--rolling",
        action="store_true",
        help="drain and replace three servers one after the other instead",
    )
    fault.add_argument(
        "--cut", action="store_true", help="cut connections in the middle of a message instead"
    )
    parser.add_argument(
        "--nginx", action="store_true", help="put the servers behind nginx (must be installed)"
    )
    parser.add_argument(
        "--streams", type=arguments.count, default=50, help="concurrent streams (default: 50)"
    )
    parser.add_argument("--times", type=arguments.count, default=20, help="number of faults (default: 20)")
    parser.add_argument(
        "--seconds", type=arguments.seconds, default=90.0, help="length of every stream (default: 90)"
    )
    parser.add_argument(
        "--speed",
        type=arguments.number(0.1, 100),
        default=1.0,
        help="send at this multiple of real time (default: 1)",
    )
    parser.add_argument("--seed", type=int, default=0, help="the random seed of the fault times (default: 0)")
    options = parser.parse_args(argv)
    return arguments.run("fault_injection", lambda: _measure(options))


def _measure(options: argparse.Namespace) -> list[str]:
    speech = Speech.read(options.recording, _CHUNK_MS)
    model = SpotterModel.load(options.model)
    chunk_count = max(1, round(options.seconds * options.speed / speech.chunk_s))
    positions = range(min(_START_POSITIONS, options.streams))
    expected = {
        first: _expected_detections(speech, model, first, chunk_count)
        for first in {position * len(speech.chunks) // _START_POSITIONS for position in positions}
    }
    count = 3 if options.rolling else 2 if options.nginx else 1
    fault = "replaced in turn" if options.rolling else "connections cut" if options.cut else "killed"
    count_text = f"{count} servers" if count > 1 else "one server"
    scenario = f"{count_text}{' behind nginx' if options.nginx else ''}, {fault}"
    description = (
        f"{options.seconds:g} s of {options.recording.name} at {options.speed:g} x real time, {scenario}"
    )
    print_header(
        f"{model.metadata.name} {model.metadata.version}, {description}, seed {options.seed}", COLUMNS
    )
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="earmark-")))
        servers = [
            stack.enter_context(RestartableServer(options.model, options.streams, folder / f"server{i}.log"))
            for i in range(count)
        ]
        address = "ipv4:" + ",".join(server.address for server in servers)
        if options.nginx:
            address = stack.enter_context(run_nginx(servers, folder))
        first_chunks = sorted(expected)
        streams = [
            ResumedStream(speech, first, chunk_count, options.speed, expected[first])
            for first in (first_chunks[i % len(first_chunks)] for i in range(options.streams))
        ]
        fault_count = asyncio.run(_run(options, address, streams, servers))
    return _report(streams, fault_count, rolling=options.rolling)


async def _run(
    options: argparse.Namespace,
    address: str,
    streams: list[ResumedStream],
    servers: list[RestartableServer],
) -> int:
    """Run all streams, and inject faults at random times; return the number of faults."""
    rng = random.Random(options.seed)
    fault_times_s = sorted(
        rng.uniform(_FIRST_FAULT, _LAST_FAULT) * options.seconds for _ in range(options.times)
    )
    async with contextlib.AsyncExitStack() as stack:
        if options.cut:
            proxy = await stack.enter_async_context(CuttingProxy(address.removeprefix("ipv4:"), rng))
            address = proxy.address
        in_turn = itertools.cycle(servers)

        async def inject_fault() -> None:
            if options.cut:
                await proxy.cut()
            elif options.rolling:
                await asyncio.to_thread(next(in_turn).replace)
            else:
                server = rng.choice(servers)
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.start)

        client = await stack.enter_async_context(
            Client(address, round_robin=options.rolling and not options.nginx)
        )
        running = asyncio.gather(*(stream.run(client) for stream in streams))
        starting = asyncio.gather(*(stream.started.wait() for stream in streams))
        await asyncio.wait((running, starting), return_when=asyncio.FIRST_COMPLETED)
        starting.cancel()
        for stream in streams:
            stream.may_send.set()
        begin_s = time.monotonic()
        for fault_count, fault_time_s in enumerate(fault_times_s):
            await asyncio.wait([running], timeout=max(0.0, begin_s + fault_time_s - time.monotonic()))
            if running.done():
                return fault_count
            await inject_fault()
        await running
    return len(fault_times_s)


def _report(streams: list[ResumedStream], fault_count: int, *, rolling: bool) -> list[str]:
    """Print the row, and return the problems."""
    outages_s = sorted(outage_s for one in streams for outage_s in one.outages_s)
    expected = sum(len(one.expected) for one in streams)
    lost, repeated, unexpected = (
        sum(counts)
        for counts in zip(*((one.lost, one.repeated, one.unexpected) for one in streams), strict=True)
    )
    print_row(
        (
            str(fault_count),
            str(len(streams)),
            str(len(outages_s)),
            number(outages_s[len(outages_s) // 2] if outages_s else None),
            number(outages_s[-1] if outages_s else None),
            str(expected),
            str(sum(len(one.received) for one in streams)),
            str(lost),
            str(repeated),
            str(unexpected),
        )
    )
    problems = [
        f"{count} streams failed: {error}"
        for error, count in Counter(one.error for one in streams).items()
        if error
    ]
    for kind, count in (("lost", lost), ("repeated", repeated), ("unexpected", unexpected)):
        if count:
            problems.append(f"{count} detections were {kind}")
    if not expected or not outages_s:
        problems.append("nothing was tested: no detection was expected, or no stream was interrupted")
    if rolling and outages_s and outages_s[-1] > _MAX_ROLLING_OUTAGE_S:
        problems.append(
            f"a stream waited {outages_s[-1]:.1f} s for another server (limit: {_MAX_ROLLING_OUTAGE_S:g} s)"
        )
    return problems


def _expected_detections(
    speech: Speech, model: SpotterModel, first_chunk: int, chunk_count: int
) -> dict[str, SampleRange]:
    """Run a Spotter on a stream's audio; return the samples of every detection by its id, in order."""
    spotter = Spotter(model, audio_format=AudioFormat(Encoding.LINEAR16, speech.sample_rate_hz))

    def results() -> Iterator[list[Detection]]:
        for i in range(chunk_count):
            yield spotter.feed(speech.chunks[(first_chunk + i) % len(speech.chunks)])
        yield spotter.flush()

    scale = speech.sample_rate_hz / model.metadata.sample_rate_hz
    return {
        one.id: (round(one.start_sample * scale), round(one.end_sample * scale))
        for detections in results()
        for one in detections
    }


if __name__ == "__main__":
    sys.exit(main())
