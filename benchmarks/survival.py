"""Kill servers while real speech streams at them, and compare what comes out with an undisturbed run.

    python -m benchmarks.survival [--streams 50] [--kills 20] [--seconds 90] [--speed 1] [--nginx]

The streams are `earmark_client.Client`'s, as anybody's would be. At random moments the server is killed
(`kill -9`) and started again on the same port, also while it is still starting. With `--nginx` there are
two servers behind an nginx, and one of them, at random, is killed each time.

Prints how many detections were expected, came, were lost, came twice, or came at another place than a
lone Spotter finds them at. Exits with 1 if one did, if a stream failed, or if nothing was put to the test.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earmark_client import Client, Detection, EarmarkError, Resumed, Started
from earmark_spotter import AudioFormat, Encoding, Spotter, SpotterModel

from benchmarks import arguments
from benchmarks.speech import Speech
from benchmarks.table import number, print_head, print_row
from benchmarks.victims import Victim, behind_nginx

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Iterator, Sequence

    from earmark_spotter import Detection as Found

COLUMNS = (
    "kills",
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

# Kills come in that part of the streams' time: all have begun, and all can still end.
_FIRST_KILL, _LAST_KILL = 0.05, 0.95

_PLACES = 16
_CHUNK_MS = 100

Place = tuple[int, int]
"""Where a detection starts and ends, in samples at the recording's rate."""


@dataclass
class Stream:
    """One stream: what it says, from which chunk on, and what it brought."""

    speech: Speech
    first_chunk: int
    chunk_count: int
    speed: float
    expected: dict[str, Place]
    got: list[tuple[str, Place]] = field(default_factory=list)
    outages_s: list[float] = field(default_factory=list)
    problem: str = ""
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    may_go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def play(self, client: Client) -> None:
        """Play it to its end, or until it fails."""
        rate_hz = self.speech.sample_rate_hz
        try:
            async for event in client.stream(self._paced(), sample_rate_hz=rate_hz):
                match event:
                    case Started():
                        self.begun.set()
                    case Detection():
                        place = round(event.start_s * rate_hz), round(event.end_s * rate_hz)
                        self.got.append((event.id, place))
                    case Resumed():
                        self.outages_s.append(event.outage_s)
        except EarmarkError as error:
            self.problem = str(error)

    async def _paced(self) -> AsyncIterator[bytes]:
        """Give the chunks at their pace, from when all streams have begun."""
        await self.may_go_on.wait()
        chunks, chunk_s = self.speech.chunks, self.speech.chunk_s / self.speed
        begin_s = time.monotonic() + random.uniform(0, chunk_s)
        for i in range(self.chunk_count):
            await asyncio.sleep(begin_s + i * chunk_s - time.monotonic())
            yield chunks[(self.first_chunk + i) % len(chunks)]

    @property
    def lost(self) -> int:
        """Detections that never came."""
        return len(self.expected.keys() - {name for name, _ in self.got})

    @property
    def repeated(self) -> int:
        """Detections that came again."""
        return sum(count - 1 for count in Counter(name for name, _ in self.got).values())

    @property
    def moved(self) -> int:
        """Detections that came at another place, out of order, or that should not have come."""
        first: dict[str, Place] = {}
        for name, place in self.got:
            first.setdefault(name, place)
        moved = sum(self.expected.get(name) != place for name, place in first.items())
        in_order = [name for name in self.expected if name in first]
        return moved + (in_order != [name for name in first if name in self.expected])


def main(given: Sequence[str] | None = None) -> int:
    parser = arguments.parser(
        "survival", "Kill servers under streams of real speech, and count what is lost."
    )
    parser.add_argument("--streams", type=arguments.count, default=50, help="streams at once (default: 50)")
    parser.add_argument("--kills", type=arguments.count, default=20, help="times to kill (default: 20)")
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
    parser.add_argument(
        "--nginx", action="store_true", help="two servers behind nginx, which must be installed"
    )
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
    way = "two servers behind nginx" if options.nginx else "one server"
    about = f"{options.seconds:g} s at {options.speed:g} times the pace of {options.recording.name}, {way}"
    print_head(f"{model.metadata.name} {model.metadata.version}, {about}, seed {options.seed}", COLUMNS)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="earmark-")))
        victims = [
            stack.enter_context(Victim(options.model, options.streams, folder / f"server{i}.log"))
            for i in range(2 if options.nginx else 1)
        ]
        address = victims[0].address
        if options.nginx:
            address = stack.enter_context(behind_nginx(victims, folder))
        firsts = sorted(expected)
        streams = [
            Stream(speech, first, chunk_count, options.speed, expected[first])
            for first in (firsts[i % len(firsts)] for i in range(options.streams))
        ]
        rng = random.Random(options.seed)
        moments_s = [rng.uniform(_FIRST_KILL, _LAST_KILL) * options.seconds for _ in range(options.kills)]
        kills = asyncio.run(_run(address, streams, victims, sorted(moments_s), rng))
    return _report(streams, kills)


def _report(streams: list[Stream], kills: int) -> list[str]:
    outages_s = sorted(outage_s for one in streams for outage_s in one.outages_s)
    wanted = sum(len(one.expected) for one in streams)
    lost, repeated, moved = (
        sum(counts) for counts in zip(*((one.lost, one.repeated, one.moved) for one in streams), strict=True)
    )
    print_row(
        (
            str(kills),
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
    return problems


async def _run(
    address: str, streams: list[Stream], victims: list[Victim], moments_s: list[float], rng: random.Random
) -> int:
    """Play all streams, and kill a server at each of the moments; give how many that were."""
    async with Client(address) as client:
        playing = asyncio.gather(*(stream.play(client) for stream in streams))
        beginning = asyncio.gather(*(stream.begun.wait() for stream in streams))
        both: list[asyncio.Future[Any]] = [playing, beginning]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        beginning.cancel()
        for stream in streams:
            stream.may_go_on.set()
        begin_s = time.monotonic()
        for kills, moment_s in enumerate(moments_s):
            await asyncio.wait([playing], timeout=max(0.0, begin_s + moment_s - time.monotonic()))
            if playing.done():
                return kills
            victim = rng.choice(victims)
            await asyncio.to_thread(victim.kill)
            await asyncio.to_thread(victim.start)
        await playing
    return len(moments_s)


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
