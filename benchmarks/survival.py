"""Sabotage real speech that streams at servers, and compare what comes out with an undisturbed run.

    python -m benchmarks.survival [--rolling | --cut] [--nginx]
                                  [--streams 50] [--times 20] [--seconds 90] [--speed 1]

The streams are `earmark_client.Client`'s, as anybody's would be. At random moments the server is killed
(`kill -9`) and started again on the same port, also while it is still starting. With `--rolling` three
servers are drained (SIGTERM) and replaced instead, one after the other, while the client gives its streams
to all of them in turn. With `--cut` the connection is cut instead, in the middle of a message. With
`--nginx` it happens behind an nginx, with two servers of which a random one is killed, or those three.

Prints how many detections were expected, came, were lost, came twice, or came at another place than a
lone Spotter finds them at. Exits with 1 if one did, if a stream failed, if nothing was put to the test, or
if a server that was drained did not end well, or a stream had to wait for longer than 5 s for the next.
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
from typing import TYPE_CHECKING, Any

from earmark_client import Client
from earmark_spotter import AudioFormat, Encoding, Spotter, SpotterModel

from benchmarks.loadgen import arguments
from benchmarks.loadgen.cutting_proxy import Relay
from benchmarks.loadgen.killed_servers import Victim, behind_nginx
from benchmarks.loadgen.resumed_stream import Place, Stream
from benchmarks.loadgen.speech import Speech
from benchmarks.loadgen.table import number, print_head, print_row

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from earmark_spotter import Detection as Found

COLUMNS = (
    "times",
    "streams",
    "times resumed",
    "outage p50, s",
    "outage max, s",
    "detections expected",
    "got",
    "lost",
    "repeated",
    "moved",
)

# It comes in that part of the streams' time: all have begun, and all can still end.
_FIRST, _LAST = 0.05, 0.95

# A stream that is sent to another server is there at once; this is for a machine that is busy.
_LONGEST_MOVE_S = 5.0

_PLACES = 16
_CHUNK_MS = 100


def main(given: Sequence[str] | None = None) -> int:
    parser = arguments.parser(
        "survival", "Kill servers under streams of real speech, and count what is lost."
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--rolling",
        action="store_true",
        help="drain and replace three servers in turn instead",
    )
    instead.add_argument(
        "--cut", action="store_true", help="cut connections in the middle of a message instead"
    )
    parser.add_argument("--nginx", action="store_true", help="do it behind nginx, which must be installed")
    parser.add_argument("--streams", type=arguments.count, default=50, help="streams at once (default: 50)")
    parser.add_argument(
        "--times", type=arguments.count, default=20, help="times to kill, replace or cut (default: 20)"
    )
    parser.add_argument(
        "--seconds", type=arguments.seconds, default=90.0, help="length of every stream (default: 90)"
    )
    parser.add_argument(
        "--speed",
        type=arguments.number(0.1, 100),
        default=1.0,
        help="times real time to send at (default: 1)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random moments (default: 0)")
    options = parser.parse_args(given)
    return arguments.run("survival", lambda: _measure(options))


def _measure(options: argparse.Namespace) -> list[str]:
    speech = Speech.read(options.recording, _CHUNK_MS)
    model = SpotterModel.load(options.model)
    chunk_count = max(1, round(options.seconds * options.speed / speech.chunk_s))
    expected = {
        first: _places(speech, model, first, chunk_count)
        for first in {place * len(speech.chunks) // _PLACES for place in range(min(_PLACES, options.streams))}
    }
    count = 3 if options.rolling else 2 if options.nginx else 1
    what = "replaced in turn" if options.rolling else "connections cut" if options.cut else "killed"
    servers = f"{count} servers" if count > 1 else "one server"
    way = f"{servers}{' behind nginx' if options.nginx else ''}, {what}"
    about = f"{options.seconds:g} s at {options.speed:g} times the pace of {options.recording.name}, {way}"
    print_head(f"{model.metadata.name} {model.metadata.version}, {about}, seed {options.seed}", COLUMNS)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="earmark-")))
        victims = [
            stack.enter_context(Victim(options.model, options.streams, folder / f"server{i}.log"))
            for i in range(count)
        ]
        address = "ipv4:" + ",".join(victim.address for victim in victims)
        if options.nginx:
            address = stack.enter_context(behind_nginx(victims, folder))
        firsts = sorted(expected)
        streams = [
            Stream(speech, first, chunk_count, options.speed, expected[first])
            for first in (firsts[i % len(firsts)] for i in range(options.streams))
        ]
        times = asyncio.run(_run(options, address, streams, victims))
    return _report(streams, times, rolling=options.rolling)


async def _run(
    options: argparse.Namespace, address: str, streams: list[Stream], victims: list[Victim]
) -> int:
    """Play all streams, and do what was asked for at random moments; give how often."""
    rng = random.Random(options.seed)
    moments_s = sorted(rng.uniform(_FIRST, _LAST) * options.seconds for _ in range(options.times))
    async with contextlib.AsyncExitStack() as stack:
        if options.cut:
            relay = await stack.enter_async_context(Relay(address.removeprefix("ipv4:"), rng))
            address = relay.address
        in_turn = itertools.cycle(victims)

        async def strike() -> None:
            if options.cut:
                await relay.cut()
            elif options.rolling:
                await asyncio.to_thread(next(in_turn).replace)
            else:
                victim = rng.choice(victims)
                await asyncio.to_thread(victim.kill)
                await asyncio.to_thread(victim.start)

        client = await stack.enter_async_context(
            Client(address, round_robin=options.rolling and not options.nginx)
        )
        playing = asyncio.gather(*(stream.play(client) for stream in streams))
        beginning = asyncio.gather(*(stream.begun.wait() for stream in streams))
        both: list[asyncio.Future[Any]] = [playing, beginning]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        beginning.cancel()
        for stream in streams:
            stream.may_go_on.set()
        begin_s = time.monotonic()
        for times, moment_s in enumerate(moments_s):
            await asyncio.wait([playing], timeout=max(0.0, begin_s + moment_s - time.monotonic()))
            if playing.done():
                return times
            await strike()
        await playing
    return len(moments_s)


def _report(streams: list[Stream], times: int, *, rolling: bool) -> list[str]:
    outages_s = sorted(outage_s for one in streams for outage_s in one.outages_s)
    wanted = sum(len(one.expected) for one in streams)
    lost, repeated, moved = (
        sum(counts) for counts in zip(*((one.lost, one.repeated, one.moved) for one in streams), strict=True)
    )
    print_row(
        (
            str(times),
            str(len(streams)),
            str(len(outages_s)),
            number(outages_s[len(outages_s) // 2] if outages_s else None),
            number(outages_s[-1] if outages_s else None),
            str(wanted),
            str(sum(len(one.got) for one in streams)),
            str(lost),
            str(repeated),
            str(moved),
        )
    )
    problems = [
        f"{count} streams: {what}" for what, count in Counter(one.problem for one in streams).items() if what
    ]
    for what, count in (("lost", lost), ("repeated", repeated), ("moved", moved)):
        if count:
            problems.append(f"{count} detections were {what}")
    if not wanted or not outages_s:
        problems.append("nothing was put to the test: no detection was expected, or no stream was broken")
    if rolling and outages_s and outages_s[-1] > _LONGEST_MOVE_S:
        problems.append(f"a stream waited for {outages_s[-1]:.1f} s until another server took it up")
    return problems


def _places(speech: Speech, model: SpotterModel, first: int, chunk_count: int) -> dict[str, Place]:
    """Listen alone to what a stream says: where every detection lies, by its id, in order."""
    spotter = Spotter(model, audio_format=AudioFormat(Encoding.LINEAR16, speech.sample_rate_hz))

    def heard() -> Iterator[list[Found]]:
        for i in range(chunk_count):
            yield spotter.feed(speech.chunks[(first + i) % len(speech.chunks)])
        yield spotter.flush()

    scale = speech.sample_rate_hz / model.metadata.sample_rate_hz
    return {
        one.id: (round(one.start_sample * scale), round(one.end_sample * scale))
        for detections in heard()
        for one in detections
    }


if __name__ == "__main__":
    sys.exit(main())
