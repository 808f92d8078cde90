"""The live display of a stream at the bottom of a terminal: state, level, scores and progress."""

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
from earmark_client.audio import Encoding, Silence
from earmark_client.events import Detection, Progress, Reconnecting, Resumed, Scores, Started
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from earmark_cli.output.console import format_duration, is_terminal, printable
from earmark_cli.output.keyword_label import keyword_label

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from earmark_client.audio import AudioFormat
    from earmark_client.events import Event
    from rich.console import ConsoleOptions, RenderResult

_REFRESH_HZ = 10
_SHOWN_KEYWORDS = 4
_SCORE_INTERVAL_S = 0.04  # the server rounds it up to steps of the model
_QUIETEST_DB = -60.0
_BAR_COLUMNS = 30
# Time constant with which a displayed score falls after a peak, so that it can be read.
_FALL_S = 0.8
_SHOW_RESUMED_S = 10.0
_SUBTYPES = {
    Encoding.LINEAR16: "PCM_16",
    Encoding.FLOAT32: "FLOAT",
    Encoding.MULAW: "ULAW",
    Encoding.ALAW: "ALAW",
}


class LiveDisplay:
    """Shows one stream until its context ends; printed lines appear above it.

    `total_s`: length of the recording, to show its progress. `is_live`: the audio comes in real time, so
    that its level, its scores and its delay are shown. `whole`: returns the progress of all recordings.
    """

    def __init__(
        self,
        name: str,
        audio_format: AudioFormat,
        *,
        total_s: float | None,
        is_live: bool,
        whole: Callable[[], str] | None = None,
    ) -> None:
        self._whole = whole
        self._name, self._total_s, self._is_live = printable(name), total_s, is_live
        self._format = audio_format
        self._begin_s = time.monotonic()
        self._partial_frame = b""
        self._level_db = self._peak = -math.inf
        self._audio_s = self._processed_s = 0.0
        self._scored_s: dict[str, float] = {}  # by model
        # For each block of audio, its end in seconds and the time when it was recorded.
        self._block_times_s: deque[tuple[float, float]] = deque()
        self._lock = threading.Lock()  # the audio is read on another thread
        self._delays_s: deque[float] = deque(maxlen=25)
        # By keyword, as it is labelled.
        self._thresholds: dict[str, float] = {}
        self._scores: dict[str, float] = {}
        self._labels: dict[tuple[str, str], str] = {}  # by model and keyword
        self._detections = 0
        self._state, self._state_style, self._resumed_s = "connecting", "yellow", -math.inf
        self._drawing = threading.Lock()
        self._stopped = threading.Event()
        self._refresher = threading.Thread(target=self._refresh, name="earmark-display", daemon=True)
        self._display = Live(
            self,
            console=Console(),
            auto_refresh=False,
            transient=True,
            redirect_stderr=is_terminal(sys.stderr),
        )

    @property
    def score_interval_s(self) -> float | None:
        """Interval of the scores that the display needs, None for none."""
        return _SCORE_INTERVAL_S if self._is_live else None

    def __enter__(self) -> Self:
        self._display.start()
        self._refresher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._refresher.join()
        self._display.stop()

    def _refresh(self) -> None:
        while not self._stopped.wait(1 / _REFRESH_HZ):
            with self._drawing:
                self._display.refresh()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Do not redraw within the context, and defer Ctrl-C to its end.

        Lines must be printed in it. If rich printed a line while it redraws, or if Ctrl-C interrupted it,
        parts of the display would stay on the screen.
        """
        deferred: list[int] = []
        handler = signal.signal(signal.SIGINT, lambda number, _: deferred.append(number))
        try:
            with self._drawing:
                yield
        finally:
            signal.signal(signal.SIGINT, handler)
        if deferred and callable(handler):
            handler(signal.SIGINT, None)

    def measure(self, blocks: Iterable[bytes | Silence]) -> Iterator[bytes | Silence]:
        """Measure the level of blocks, and yield them unchanged."""
        for block in blocks:
            seconds = block.seconds if isinstance(block, Silence) else self._measure_block(block)
            with self._lock:
                self._audio_s += seconds
                if self._is_live:
                    self._block_times_s.append((self._audio_s, time.monotonic()))
            yield block

    def update(self, event: Event) -> None:
        """Update the display with an event of the stream."""
        match event:
            case Started():
                self._state, self._state_style = "connected", "green"
                self._labels = {
                    (active.model, active.keyword): keyword_label(active, event) for active in event.keywords
                }
                self._thresholds = {
                    self._labels[active.model, active.keyword]: active.threshold for active in event.keywords
                }
                self._scores = dict.fromkeys(self._thresholds, 0.0)
            case Scores():
                self._update_scores(event)
            case Progress():
                self._processed_s = max(self._processed_s, event.received_s)
            case Detection():
                self._detections += 1
            case Reconnecting():
                self._state = f"reconnecting, attempt {event.attempt}: {printable(event.cause)}"
                self._state_style = "yellow"
            case Resumed():
                self._state, self._state_style = f"resumed after {event.outage_s:.1f} s", "green"
                self._resumed_s = time.monotonic()

    def _update_scores(self, event: Scores) -> None:
        fall = math.exp((self._scored_s.get(event.model, 0.0) - event.offset_s) / _FALL_S)
        self._scored_s[event.model] = event.offset_s
        self._processed_s = max(self._processed_s, event.offset_s)
        for one in event.scores:
            label = self._labels.get((event.model, one.label))
            if label is not None:
                self._scores[label] = max(one.score, fall * self._scores[label])
        with self._lock:
            while self._block_times_s and self._block_times_s[0][0] < event.offset_s - 1e-6:
                self._block_times_s.popleft()
            if self._block_times_s:
                self._delays_s.append(time.monotonic() - self._block_times_s[0][1])

    def _measure_block(self, block: bytes) -> float:
        """Measure the level of a block; return its length in seconds."""
        data = self._partial_frame + block
        whole = len(data) - len(data) % self._format.frame_bytes
        self._partial_frame = data[whole:]
        if self._is_live and whole:
            samples, _ = soundfile.read(
                io.BytesIO(data[:whole]),
                samplerate=self._format.sample_rate_hz,
                channels=self._format.channels,
                format="RAW",
                subtype=_SUBTYPES[self._format.encoding],
                endian="LITTLE",
            )
            with np.errstate(divide="ignore", invalid="ignore"):
                self._level_db = float(10 * np.log10(np.square(samples).mean()))
            self._peak = float(np.abs(samples).max())
        return self._format.seconds(whole)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the rows that fit on the terminal."""
        ascii_only, width = options.ascii_only, options.max_width
        rows = [self._status_row(ascii_only)]
        if self._total_s is not None:
            rows.append(self._progress_row(width, ascii_only))
        if self._whole is not None and (state := self._whole()):
            rows.append(Text(f"  all: {state}"))
        if self._is_live:
            label_width = max(len(label) for label in [*self._scores, "level"])
            rows.append(self._level_row(label_width, width, ascii_only))
            best = sorted(self._scores, key=self._scores.__getitem__, reverse=True)[:_SHOWN_KEYWORDS]
            for keyword in best:
                score, threshold = self._scores[keyword], self._thresholds[keyword]
                style = "bold green" if score >= threshold else "cyan"
                bar = _bar(score, width - label_width - 8, style, ascii_only, mark=threshold)
                rows.append(Text.assemble(f"  {keyword:<{label_width}} ", bar, (f" {score:.2f}", style)))
        for row in rows:
            row.no_wrap, row.overflow = True, "ellipsis"
        yield Group(*rows[: max(1, console.height - 1)])

    def _status_row(self, ascii_only: bool) -> Text:
        state, style = self._state, self._state_style
        if self._resumed_s > -math.inf and time.monotonic() - self._resumed_s > _SHOW_RESUMED_S:
            state = "connected" if style == "green" else state
        facts = [f"{self._detections} detection{'' if self._detections == 1 else 's'}"]
        if style == "yellow" and self._thresholds:
            facts.insert(0, f"{max(0.0, self._audio_s - self._processed_s):.0f} s buffered")
        elif self._delays_s:
            facts.insert(0, f"delay {max(self._delays_s) * 1000:.0f} ms")
        if self._total_s is None:
            facts.append(format_duration(self._audio_s))
        facts.append(self._name)
        dot = {"green": "*" if ascii_only else "●", "yellow": "o" if ascii_only else "○"}[style]
        return Text.assemble("  ", (f"{dot} {state}", style), "  ", "  ".join(facts))

    def _progress_row(self, width: int, ascii_only: bool) -> Text:
        assert self._total_s is not None
        elapsed_s = time.monotonic() - self._begin_s
        share = min(1.0, self._processed_s / self._total_s) if self._total_s else 1.0
        text = f" {share:4.0%}  {format_duration(self._processed_s)} of {format_duration(self._total_s)}"
        if not self._is_live and self._processed_s > 0 and elapsed_s > 0:
            left_s = elapsed_s * (self._total_s - self._processed_s) / self._processed_s
            speed = self._processed_s / elapsed_s
            text += f"  {speed:.0f} times real time, {format_duration(max(0.0, left_s))} left"
        return Text.assemble("  ", _bar(share, width - len(text) - 3, "cyan", ascii_only), text)

    def _level_row(self, label_width: int, width: int, ascii_only: bool) -> Text:
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
    """Return a bar, with a mark at a threshold; empty if there are fewer than 4 columns."""
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
