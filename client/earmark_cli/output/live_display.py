"""The live part of a terminal: a stream's state, level, scores and progress, below what has been printed."""

from __future__ import annotations

import io
import math
import signal
import sys
import threading
import time
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

import numpy as np
import soundfile
from earmark_client.audio import AudioFormat, Encoding, Silence
from earmark_client.events import Detection, Progress, Reconnecting, Resumed, Scores, Started
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from earmark_cli.output.printer import clock, on_terminal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from earmark_client.events import Event
    from rich.console import ConsoleOptions, RenderResult

_REFRESH_HZ = 10
_KEYWORDS = 4
_SCORE_INTERVAL_S = 0.04  # rounded up to the model's steps
_QUIETEST_DB = -60.0
_BAR_COLUMNS = 30
# A score that has peaked stays long enough to be read.
_FALL_S = 0.8
_RESUMED_SHOWN_S = 10.0
_SUBTYPES = {
    Encoding.LINEAR16: "PCM_16",
    Encoding.FLOAT32: "FLOAT",
    Encoding.MULAW: "ULAW",
    Encoding.ALAW: "ALAW",
}


class Screen:
    """Shows one stream as long as its context; what is printed meanwhile appears above it.

    `total_s`: how long the recording is, for its progress. `live`: the audio comes at its own pace, so
    that its level, its scores and the delay mean something.
    """

    def __init__(
        self,
        name: str,
        *,
        sample_rate_hz: int,
        encoding: Encoding,
        channels: int,
        total_s: float | None,
        live: bool,
    ) -> None:
        self._name, self._total_s, self._live = name, total_s, live
        self._rate_hz, self._encoding, self._channels = sample_rate_hz, encoding, channels
        self._begin_s = time.monotonic()
        self._split = b""  # of a sample that is not whole yet
        self._level_db = self._peak = -math.inf
        self._audio_s = self._heard_s = self._scored_s = 0.0
        self._handed: deque[tuple[float, float]] = deque()  # where each block ended, and when it came
        self._lock = threading.Lock()  # the audio comes on a thread of its own
        self._delays_s: deque[float] = deque(maxlen=25)
        self._thresholds: dict[str, float] = {}
        self._scores: dict[str, float] = {}
        self._detections = 0
        self._state, self._state_style, self._resumed_s = "connecting", "yellow", -math.inf
        self._display = Live(
            self,
            console=Console(),
            refresh_per_second=_REFRESH_HZ,
            transient=True,
            redirect_stderr=on_terminal(sys.stderr),
        )

    @property
    def score_interval_s(self) -> float | None:
        """How often it wants scores; None: not at all."""
        return _SCORE_INTERVAL_S if self._live else None

    def __enter__(self) -> Self:
        self._display.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._display.stop()

    @contextmanager
    def undisturbed(self) -> Iterator[None]:
        """Hold Ctrl-C back until the block is done: rich prints again what it is interrupted in."""
        held: list[int] = []
        before = signal.signal(signal.SIGINT, lambda number, _: held.append(number))
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
        if held and callable(before):
            before(signal.SIGINT, None)

    def watch(self, blocks: Iterable[bytes | Silence]) -> Iterator[bytes | Silence]:
        """Give the blocks on, having looked at them."""
        for block in blocks:
            seconds = block.seconds if isinstance(block, Silence) else self._measure(block)
            with self._lock:
                self._audio_s += seconds
                if self._live:
                    self._handed.append((self._audio_s, time.monotonic()))
            yield block

    def take(self, event: Event) -> None:
        """Take what came of the stream."""
        match event:
            case Started():
                self._state, self._state_style = "connected", "green"
                self._thresholds = {active.keyword: active.threshold for active in event.keywords}
                self._scores = dict.fromkeys(self._thresholds, 0.0)
            case Scores():
                self._take_scores(event)
            case Progress():
                self._heard_s = max(self._heard_s, event.received_s)
            case Detection():
                self._detections += 1
            case Reconnecting():
                self._state = f"reconnecting, try {event.attempt}: {event.cause}"
                self._state_style = "yellow"
            case Resumed():
                self._state, self._state_style = f"resumed after {event.outage_s:.1f} s", "green"
                self._resumed_s = time.monotonic()

    def _take_scores(self, event: Scores) -> None:
        fall = math.exp((self._scored_s - event.offset_s) / _FALL_S)
        self._scored_s = event.offset_s
        self._heard_s = max(self._heard_s, event.offset_s)
        for one in event.scores:
            if one.label in self._scores:
                self._scores[one.label] = max(one.score, fall * self._scores[one.label])
        with self._lock:
            while self._handed and self._handed[0][0] < event.offset_s - 1e-6:
                self._handed.popleft()
            if self._handed:
                self._delays_s.append(time.monotonic() - self._handed[0][1])

    def _measure(self, block: bytes) -> float:
        """Take a block's level; return its length in seconds."""
        data = self._split + block
        whole = len(data) - len(data) % AudioFormat(self._rate_hz, self._encoding, self._channels).frame_bytes
        self._split = data[whole:]
        if self._live and whole:
            samples, _ = soundfile.read(
                io.BytesIO(data[:whole]),
                samplerate=self._rate_hz,
                channels=self._channels,
                format="RAW",
                subtype=_SUBTYPES[self._encoding],
                endian="LITTLE",
            )
            with np.errstate(divide="ignore", invalid="ignore"):
                self._level_db = float(10 * np.log10(np.square(samples).mean()))
            self._peak = float(np.abs(samples).max())
        return whole / AudioFormat(self._rate_hz, self._encoding, self._channels).frame_bytes / self._rate_hz

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the rows that there is room for."""
        ascii_only, width = options.ascii_only, options.max_width
        rows = [self._headline(ascii_only)]
        if self._total_s is not None:
            rows.append(self._progress(width, ascii_only))
        if self._live:
            label_width = max(map(len, [*self._scores, "level"]))
            rows.append(self._level(label_width, width, ascii_only))
            best = sorted(self._scores, key=self._scores.__getitem__, reverse=True)[:_KEYWORDS]
            for keyword in best:
                score, threshold = self._scores[keyword], self._thresholds[keyword]
                style = "bold green" if score >= threshold else "cyan"
                bar = _bar(score, width - label_width - 8, style, ascii_only, mark=threshold)
                rows.append(Text.assemble(f"  {keyword:<{label_width}} ", bar, (f" {score:.2f}", style)))
        for row in rows:
            row.no_wrap, row.overflow = True, "ellipsis"
        yield Group(*rows[: max(1, console.height - 1)])

    def _headline(self, ascii_only: bool) -> Text:
        state, style = self._state, self._state_style
        if self._resumed_s > -math.inf and time.monotonic() - self._resumed_s > _RESUMED_SHOWN_S:
            state = "connected" if style == "green" else state
        facts = [f"{self._detections} detection{'' if self._detections == 1 else 's'}"]
        if style == "yellow" and self._thresholds:
            facts.insert(0, f"{max(0.0, self._audio_s - self._heard_s):.0f} s waiting")
        elif self._delays_s:
            facts.insert(0, f"delay {max(self._delays_s) * 1000:.0f} ms")
        if self._total_s is None:
            facts.append(clock(self._audio_s))
        facts.append(self._name)
        dot = {"green": "*" if ascii_only else "●", "yellow": "o" if ascii_only else "○"}[style]
        return Text.assemble("  ", (f"{dot} {state}", style), "  ", "  ".join(facts))

    def _progress(self, width: int, ascii_only: bool) -> Text:
        assert self._total_s is not None
        elapsed_s = time.monotonic() - self._begin_s
        share = min(1.0, self._heard_s / self._total_s) if self._total_s else 1.0
        text = f" {share:4.0%}  {clock(self._heard_s)} of {clock(self._total_s)}"
        if not self._live and self._heard_s > 0 and elapsed_s > 0:
            left_s = elapsed_s * (self._total_s - self._heard_s) / self._heard_s
            text += f"  {self._heard_s / elapsed_s:.0f} times real time, {clock(max(0.0, left_s))} left"
        return Text.assemble("  ", _bar(share, width - len(text) - 3, "cyan", ascii_only), text)

    def _level(self, label_width: int, width: int, ascii_only: bool) -> Text:
        db = self._level_db
        style, text = "green", f"{db:.0f} dB"
        if self._peak >= 0.999:
            style, text = "bold red", "clipped: too loud"
        elif not db > -math.inf:
            text = "silent"
        share = 1 - db / _QUIETEST_DB if db > _QUIETEST_DB else 0.0
        bar = _bar(share, width - label_width - len(text) - 4, style, ascii_only)
        return Text.assemble(f"  {'level':<{label_width}} ", bar, f" {text}")


def _bar(share: float, columns: int, style: str, ascii_only: bool, mark: float | None = None) -> Text:
    """Draw a bar, with a mark where a threshold is; nothing where there is no room for one."""
    columns = min(columns, _BAR_COLUMNS)
    if columns < 4:
        return Text()
    full = min(columns, round(share * columns))
    cells = [("#" if ascii_only else "━", style)] * full + [("-" if ascii_only else "─", "dim")] * (
        columns - full
    )
    if mark is not None:
        cells[min(columns - 1, int(mark * columns))] = ("|" if ascii_only else "┃", "bold")
    return Text.assemble(*cells)
