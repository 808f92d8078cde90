"""Results on standard output, for people or as JSON lines; notices and errors on standard error."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from typing import IO, TYPE_CHECKING, Any

from earmark_cli.tune.text_chart import sketch

if TYPE_CHECKING:
    from earmark_client.errors import EarmarkError
    from earmark_client.events import Classification, Detection, Health, ModelInfo, Started
    from earmark_client.microphone import InputDevice

    from earmark_cli.tune.thresholds import Evidence, Point

_TO = "\N{EN DASH}"


@dataclass(frozen=True, slots=True)
class Summary:
    """A stream at its end: seconds of audio, how many detections, and the seconds that it all took."""

    audio_s: float
    detections: int
    elapsed_s: float
    interrupted: bool

    @property
    def speed(self) -> float:
        """Seconds of audio per second."""
        return self.audio_s / self.elapsed_s if self.elapsed_s > 0 else 0.0


def notice(text: str) -> None:
    """Say something beside the results."""
    print(text, file=sys.stderr, flush=True)


def on_terminal(stream: IO[str]) -> bool:
    """Say whether a stream shows on a terminal that can do more than print lines."""
    return stream.isatty() and os.environ.get("TERM") not in {"dumb", "unknown"}


def clock(seconds: float) -> str:
    """Write a length of time as 1:05 or 1:00:05."""
    minutes, left = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


class TextPrinter:
    """For people. Every line goes out at once: a detection is news.

    `emphasis`: what the terminal is told before and after a keyword.
    """

    def __init__(self, *, many: bool = False, emphasis: tuple[str, str] = ("", "")) -> None:
        self._many = many
        self._before, self._after = emphasis
        self._width = 0

    def started(self, source: str, started: Started) -> None:
        """Head a stream's detections with its name, where there are several."""
        self._width = max((len(active.keyword) for active in started.keywords), default=0)
        if self._many:
            _say(source)

    def detection(self, _source: str, detection: Detection) -> None:
        """Print one detection."""
        _say(
            f"{detection.start_s:8.2f} s {_TO} {detection.end_s:.2f} s  "
            f"{self._before}{detection.keyword:<{self._width}}{self._after}  {detection.confidence:.2f}"
        )

    def summary(self, source: str, summary: Summary) -> None:
        """Print a stream's last line."""
        found = f"{summary.detections} detection{'' if summary.detections == 1 else 's'}"
        _say(
            f"{source}: {summary.audio_s:.2f} s of audio, {found}, took {summary.elapsed_s:.2f} s "
            f"({summary.speed:.1f} times real time){', interrupted' if summary.interrupted else ''}"
        )

    def failure(self, _source: str, error: EarmarkError) -> None:
        """Print why a source failed."""
        notice(f"earmark: {error}")

    def classification(self, source: str, result: Classification, top: int | None) -> None:
        """Print a clip's class and the next likely ones."""
        best, *others = result.scores[: top or 3]
        rest = ", ".join(f"{other.label} {other.score:.2f}" for other in others)
        _say(f"{source}: {best.label} {best.score:.2f}{f'  ({rest})' if rest else ''}")

    def tuned(self, evidence: Evidence, proposed: Point) -> None:
        """Print what a keyword's thresholds miss, and what they let through."""
        recordings, hours = len(evidence.said), evidence.hours
        _say(f"{evidence.active.keyword}: {recordings} recordings, {hours:.2f} h of other audio")
        _say("  threshold  missed            false alarms  per hour")
        current = evidence.point(evidence.active.threshold)
        remarks = {current: "as it is", proposed: "proposed"}
        for point in sorted({*evidence.curve(), current, proposed}, key=lambda one: one.threshold):
            rate = f"{point.alarms / hours:.2f}" if hours else "-"
            missed = f"{point.missed} ({point.missed / recordings:.1%})"
            line = f"  {point.threshold:<9.4g}  {missed:<16}  {point.alarms:>12}  {rate:>8}"
            _say(f"{line}  {remarks.get(point, '')}".rstrip())
        lines = sketch(evidence)
        if _can_show("".join(lines)):
            for line in lines:
                _say(line)

    def model(self, model: ModelInfo) -> None:
        """Print what a model knows and where it comes from."""
        _say(f"{model.name} {model.version}{' (default)' if model.default else ''}")
        _say(
            f"  {model.sample_rate_hz} Hz, a score every {model.step_s * 1000:g} ms "
            f"from the last {model.receptive_field_s:.2f} s"
        )
        keywords = ", ".join(f"{active.keyword} ({active.threshold:.2f})" for active in model.keywords)
        _say(f"  keywords (threshold): {keywords}")
        for metric in model.metrics:
            _say(f"  {metric.name} {metric.value:.4g}: {metric.description}")
        for source in model.training_sources:
            _say(f"  trained on {source.name} ({source.license}), {source.attribution}")
        _say(f"  training commit {model.training_commit or 'not stated'}, SHA-256 {model.sha256}")

    def health(self, server: str, health: Health) -> None:
        """Print a server's health."""
        _say(f"{server}: {health.value}")

    def device(self, device: InputDevice) -> None:
        """Print one device that can record."""
        _say(
            f"{'*' if device.default else ' '} {device.index:3}  {device.name} "
            f"({device.channels} channel{'' if device.channels == 1 else 's'}, {device.sample_rate_hz} Hz)"
        )


class JsonPrinter:
    """For programs: JSON lines as docs/output.schema.json has them. Names, once there, stay."""

    def started(self, source: str, started: Started) -> None:
        """Type `started`."""
        _line("started", source=source, **asdict(started))

    def detection(self, source: str, detection: Detection) -> None:
        """Type `detection`."""
        _line("detection", source=source, **asdict(detection))

    def summary(self, source: str, summary: Summary) -> None:
        """Type `ended`."""
        _line("ended", source=source, **asdict(summary), speed=summary.speed)

    def failure(self, source: str, error: EarmarkError) -> None:
        """Type `error`, and the sentence on standard error too."""
        _line("error", source=source, message=str(error), status=error.status, reason=error.reason)
        notice(f"earmark: {error}")

    def classification(self, source: str, result: Classification, top: int | None) -> None:
        """Type `classification`."""
        fields = asdict(result)
        fields["scores"] = fields["scores"][:top]
        _line("classification", source=source, label=result.label, **fields)

    def tuned(self, evidence: Evidence, proposed: Point) -> None:
        """Type `tuned`."""
        _line(
            "tuned",
            keyword=evidence.active.keyword,
            recordings=len(evidence.said),
            other_audio_h=evidence.hours,
            current=asdict(evidence.point(evidence.active.threshold)),
            proposed=asdict(proposed),
            curve=[asdict(point) for point in evidence.curve()],
        )

    def model(self, model: ModelInfo) -> None:
        """Type `model`."""
        _line("model", **asdict(model))

    def health(self, server: str, health: Health) -> None:
        """Type `health`."""
        _line("health", server=server, status=health.value)

    def device(self, device: InputDevice) -> None:
        """Type `device`."""
        _line("device", **asdict(device))


Printer = TextPrinter | JsonPrinter


def _say(text: str) -> None:
    print(text, flush=True)


def _can_show(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _line(kind: str, **fields: Any) -> None:
    print(json.dumps({"type": kind, **_rounded(fields)}), flush=True)


def _rounded(value: Any) -> Any:
    """Round floats to what they mean: 0.1 ms of time, a ten-thousandth of a score."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value
