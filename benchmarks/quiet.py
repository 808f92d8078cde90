"""The cost of streams that are quiet most of the time: a microphone in a room.

    python -m benchmarks.quiet [--streams 1,500] [--seconds 60] [--chunk-ms 100] [--speech-percent 10]

Mixes the recording's speech, a few seconds at a time, with the noise of a room, so that a stream speaks for a
tenth of the time. Prints a Markdown table with a row for every number of streams and for each of: the model
without its gate, the model with it, and clients that send silence in place of nearly silent audio. Exits with
1 if a detection was lost, repeated or unexpected, and with 2 for wrong options.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from earmark_audio.energy_gate import GateSettings
from earmark_spotter import SpotterModel

from benchmarks.loadgen import arguments
from benchmarks.loadgen.server_process import running_server
from benchmarks.loadgen.speech import Speech
from benchmarks.loadgen.table import number, percentile_ms, print_header, print_row
from benchmarks.loadgen.workload import Workload

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

_METADATA_KEY = "earmark"
_SPEECH_S = 3.0
_NOISE_DBFS = -55.0
_NOISE_SLOPE = 0.6  # of the amplitude over frequency: between white noise and the rumble of a room

COLUMNS = (
    "streams",
    "gate",
    "server CPU, ms per stream-s",
    "compared with no gate",
    "latency p50, ms",
    "latency p99, ms",
    "detections, received / expected",
    "machine CPU, %",
)


def in_a_room(speech: Speech, speech_share: float) -> Speech:
    """Return speech of a few seconds at a time, with noise between and below it."""
    spoken = np.frombuffer(b"".join(speech.chunks), "<i2").astype(np.float64) / 32768
    rate_hz = speech.sample_rate_hz
    part, pause = round(_SPEECH_S * rate_hz), round(_SPEECH_S * (1 / speech_share - 1) * rate_hz)
    # Half of each pause before the part of speech, half of it after.
    pieces = [np.pad(spoken[i : i + part], pause // 2) for i in range(0, len(spoken) - part + 1, part)]
    samples = np.concatenate(pieces)
    rng = np.random.default_rng(0)
    spectrum = np.fft.rfft(rng.standard_normal(len(samples)))
    spectrum[1:] *= np.arange(1, len(spectrum)) ** -_NOISE_SLOPE
    noise = np.fft.irfft(spectrum, len(samples))
    samples += noise * 10 ** (_NOISE_DBFS / 20) / np.sqrt(np.square(noise).mean())
    pcm = (np.clip(samples, -1, 32767 / 32768) * 32768).astype("<i2").tobytes()
    size = speech.chunk_bytes
    chunks = tuple(pcm[i : i + size] for i in range(0, len(pcm) - size + 1, size))
    return Speech(rate_hz, size, chunks, tuple((chunk,) for chunk in chunks))


def write_models(model: Path | None, folder: Path) -> tuple[Path, Path]:
    """Write the model without a gate and with one; return their paths."""
    graph = onnx.load_from_string(SpotterModel.read(model))
    paths = folder / "without.onnx", folder / "with.onnx"
    for path, gate in zip(paths, (None, asdict(GateSettings())), strict=True):
        for entry in graph.metadata_props:
            if entry.key == _METADATA_KEY:
                entry.value = json.dumps({**json.loads(entry.value), "gate": gate})
        path.write_bytes(graph.SerializeToString())
    return paths


def main(argv: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(argv)
    return arguments.run("quiet", lambda: _measure(options))


def _measure(options: argparse.Namespace) -> list[str]:
    speech = in_a_room(Speech.read(options.recording, options.chunk_ms), options.speech_percent / 100)
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        without, gated = write_models(options.model, Path(folder))
        print_header(
            f"{options.seconds:g} s in chunks of {options.chunk_ms:g} ms, {options.speech_percent}% speech",
            COLUMNS,
        )
        for stream_count in sorted(options.streams):
            before_ms = None
            for name, path, sent in (
                ("none", without, speech),
                ("model's", gated, speech),
                ("model's and client's", gated, speech.gated()),
            ):
                chunk_count = max(1, round(options.seconds / speech.chunk_s))
                workload = Workload(sent, SpotterModel.load(path), chunk_count)
                with running_server(path, stream_count + 1) as server:
                    workload.warm_up(server.address)
                    measured = workload.run(stream_count, server)
                before_ms = before_ms or measured.server_ms
                outcome, ratio = measured.outcome, None
                if before_ms and measured.server_ms:
                    ratio = measured.server_ms / before_ms
                print_row(
                    (
                        str(stream_count),
                        name,
                        number(measured.server_ms, 2),
                        number(ratio, 2),
                        number(percentile_ms(outcome.latencies_s, 50)),
                        number(percentile_ms(outcome.latencies_s, 99)),
                        f"{outcome.received} / {outcome.expected}",
                        number(measured.machine_percent, 0),
                    )
                )
                problems += [f"{stream_count} streams, gate {name}: {one}" for one in measured.problems]
    return problems


def _parser() -> argparse.ArgumentParser:
    parser = arguments.make_parser(
        "quiet", "Measure the cost of streams that are quiet most of the time, with and without a gate."
    )
    parser.add_argument(
        "--streams",
        type=arguments.counts,
        default=[1, 500],
        metavar="N,...",
        help="numbers of concurrent streams (default: 1,500)",
    )
    parser.add_argument(
        "--seconds", type=arguments.seconds, default=60.0, help="length of every stream (default: 60)"
    )
    parser.add_argument(
        "--speech-percent",
        type=arguments.count,
        default=10,
        metavar="N",
        help="share of the time in which a stream speaks (default: 10)",
    )
    arguments.add_chunk_ms(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
