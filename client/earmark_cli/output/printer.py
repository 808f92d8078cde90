"""Results on standard output: text for people, or JSON lines for programs."""

from __future__ import annotations

import base64
import os
import sys
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earmark_audio.json_text import json_text

from earmark_cli.output.console import is_terminal, notice, print_escaped, print_line
from earmark_cli.output.error_reasons import error_reason
from earmark_cli.output.keyword_label import keyword_label

if TYPE_CHECKING:
    import argparse

    from earmark_audio import Notice
    from earmark_client.errors import EarmarkError
    from earmark_client.events import AudioWarning, Classification, Detection, Health, ModelInfo, Started
    from earmark_client.microphone import InputDevice

_EN_DASH = "\N{EN DASH}"
_BOLD_GREEN, _RESET = "\x1b[1;32m", "\x1b[0m"


@dataclass(frozen=True, slots=True)
class Summary:
    """Summary of a stream: length of its audio, number of detections, and the time it took."""

    audio_s: float
    detections: int
    elapsed_s: float
    interrupted: bool

    @property
    def speed(self) -> float:
        """Seconds of audio per second."""
        return self.audio_s / self.elapsed_s if self.elapsed_s > 0 else 0.0


class TextPrinter:
    """Prints text for people.

    `with_headings`: print the name of each stream above its detections. `emphasis`: terminal sequences
    before and after a keyword.
    """

    def __init__(self, *, with_headings: bool = False, emphasis: tuple[str, str] = ("", "")) -> None:
        self._with_headings = with_headings
        self._before, self._after = emphasis
        self._started: Started | None = None
        self._keyword_width = 0

    def started(self, source: str, started: Started) -> None:
        """Print the heading of a stream."""
        self._started = started
        labels = [keyword_label(active, started) for active in started.keywords]
        self._keyword_width = max(map(len, labels), default=0)
        if self._with_headings:
            print_line(source)

    def detection(self, _source: str, detection: Detection) -> None:
        """Print a detection."""
        assert self._started is not None
        label = keyword_label(detection, self._started)
        print_escaped(
            f"{detection.start_s:8.2f} s {_EN_DASH} {detection.end_s:.2f} s  "
            f"{self._before}{label:<{self._keyword_width}}{self._after}  "
            f"{detection.confidence:.2f}"
        )

    def summary(self, source: str, summary: Summary) -> None:
        """Print the summary of a stream."""
        detections = f"{summary.detections} detection{'' if summary.detections == 1 else 's'}"
        print_line(
            f"{source}: {summary.audio_s:.2f} s of audio, {detections}, took {summary.elapsed_s:.2f} s "
            f"({summary.speed:.1f} times real time){', interrupted' if summary.interrupted else ''}"
        )

    def failure(self, source: str, error: EarmarkError) -> None:
        """Print why a source failed, on standard error."""
        notice(f"earmark: {with_name(source, str(error))}")

    def warning(self, source: str, warning: Notice | AudioWarning) -> None:
        """Print what is unusual about a recording, on standard error."""
        notice(f"earmark: {with_name(source, warning.message)}")

    def classification(self, source: str, result: Classification, top: int | None) -> None:
        """Print the class of a clip and the next probable classes."""
        best, *others = result.scores[: top or 3]
        rest = ", ".join(f"{other.label} {other.score:.2f}" for other in others)
        print_line(f"{source}: {best.label} {best.score:.2f}{f'  ({rest})' if rest else ''}")

    def model(self, model: ModelInfo, *, details: bool) -> None:
        """Print a model: its keywords, its figures and its training data, in a line each, or in full."""
        keywords = ", ".join(f"{active.keyword} ({active.threshold:.2f})" for active in model.keywords)
        print_line(f"{model.name} {model.version}{' (default)' if model.default else ''}: {keywords}")
        if not details:
            print_line(f"  {_figures(model)}")
            sources = "; ".join(source.name for source in model.training_sources)
            print_line(f"  trained on {sources or 'unknown data'}; `--details` has the rest")
            return
        print_line(
            f"  {model.sample_rate_hz} Hz, one score per {model.step_s * 1000:g} ms, "
            f"receptive field {model.receptive_field_s:.2f} s"
            f"{', with a verifier' if model.verified else ''}"
        )
        for metric in model.metrics:
            print_line(f"  {metric.name} {metric.value:.4g}: {metric.description}")
        for source in model.training_sources:
            print_line(f"  trained on {source.name} ({source.license}), {source.attribution}")
        print_line(f"  training commit {model.training_commit or 'unknown'}, SHA-256 {model.sha256}")

    def health(self, server: str, health: Health) -> None:
        """Print the health of a server."""
        print_line(f"{server}: {health.value}")

    def device(self, device: InputDevice) -> None:
        """Print a recording device."""
        print_line(
            f"{'*' if device.default else ' '} {device.index:3}  {device.name} "
            f"({device.channels} channel{'' if device.channels == 1 else 's'}, {device.sample_rate_hz} Hz)"
        )


class JsonPrinter:
    """Prints JSON lines for programs, as docs/output.schema.json specifies; keys are never renamed."""

    def started(self, source: str, started: Started) -> None:
        """Print a line of type `started`."""
        print_json("started", source=source, **asdict(started))

    def detection(self, source: str, detection: Detection) -> None:
        """Print a line of type `detection`."""
        print_json("detection", source=source, **detection_fields(detection))

    def summary(self, source: str, summary: Summary) -> None:
        """Print a line of type `ended`."""
        print_json("ended", source=source, **asdict(summary), speed=summary.speed)

    def failure(self, source: str, error: EarmarkError) -> None:
        """Print a line of type `error`, and the message on standard error too."""
        print_json(
            "error", source=source, message=str(error), status=error.status, reason=error_reason(error)
        )
        notice(f"earmark: {with_name(source, str(error))}")

    def warning(self, source: str, warning: Notice | AudioWarning) -> None:
        """Print a line of type `warning`, and the message on standard error too."""
        print_json("warning", source=source, reason=warning.reason, message=warning.message)
        notice(f"earmark: {with_name(source, warning.message)}")

    def classification(self, source: str, result: Classification, top: int | None) -> None:
        """Print a line of type `classification`."""
        fields = asdict(result)
        del fields["warnings"]  # each has a line of type `warning`
        fields["scores"] = fields["scores"][:top]
        print_json("classification", source=source, label=result.label, **fields)

    def model(self, model: ModelInfo, *, details: bool) -> None:
        """Print a line of type `model`."""
        print_json("model", **asdict(model))

    def health(self, server: str, health: Health) -> None:
        """Print a line of type `health`."""
        print_json("health", server=server, status=health.value)

    def device(self, device: InputDevice) -> None:
        """Print a line of type `device`."""
        print_json("device", **asdict(device))


Printer = TextPrinter | JsonPrinter


def _figures(model: ModelInfo) -> str:
    """Return recall and false alarms side by side, in the same conditions; other metrics by their names."""
    values = {metric.name: metric.value for metric in model.metrics}
    figures = []
    for condition, recall, alarms in (
        ("clean speech", "recall_clean", "false_alarms_clean"),
        ("noise at 10 dB SNR", "recall_noise_10", "false_alarms_noise_10"),
    ):
        if recall in values and alarms in values:
            figures.append(
                f"in {condition} {values[recall]:.1%} recall with {values[alarms]:.3g} false alarms per hour"
            )
    others = [f"{name} {value:.3g}" for name, value in values.items()]
    return "; ".join(figures) or ", ".join(others[:4]) or "no figures in the model file"


def detection_fields(detection: Detection) -> dict[str, Any]:
    """Return the fields of a detection in a JSON line: all but its audio."""
    fields = asdict(replace(detection, audio=None))
    del fields["audio"]
    return fields


def with_name(source: str, message: str) -> str:
    """Return a message that begins with the name of the recording that it concerns."""
    if not source:
        return message
    if source == "-":
        return message if message.startswith("standard input") else f"standard input: {message}"
    # An error of the client already begins with the name, without a leading "./".
    return message if message.startswith((f"{source}: ", f"{Path(source)}: ")) else f"{source}: {message}"


def make_printer(args: argparse.Namespace, *, with_headings: bool = False) -> Printer:
    """Return the printer that --json asks for."""
    if args.json:
        return JsonPrinter()
    # The live display removes the emphasis where the terminal or NO_COLOR does not permit it.
    emphasis = (_BOLD_GREEN, _RESET) if is_terminal(sys.stdout) else ("", "")
    return TextPrinter(with_headings=with_headings, emphasis=emphasis)


def print_json(kind: str, **fields: Any) -> None:
    """Print a JSON line of a type of docs/output.schema.json, with the time of day."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    line = json_text({"type": kind, "time": now, **with_bytes(_rounded(fields))})
    print_escaped(line.replace("\x7f", "\\u007f"))  # JSON escapes all other control characters


def with_bytes(fields: dict[str, Any]) -> dict[str, Any]:
    """Return fields of a JSON line, with the bytes of each name of a file that is not UTF-8."""
    for key in ("source", "out"):
        name = fields.get(key, "")
        if not _is_unicode(name):
            fields = {**fields, f"{key}_base64": base64.b64encode(os.fsencode(name)).decode()}
    return fields


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _rounded(value: Any) -> Any:
    """Round floats to their precision: 0.1 ms of time, 0.0001 of a score."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value
