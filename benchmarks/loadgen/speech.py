"""What the streams of a load say, as ready-made messages, and what must be heard in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from earmark.v1 import keyword_spotting_pb2 as messages
from earmark.v1 import keyword_spotting_service_pb2 as rpcs
from earmark_client import Recording
from earmark_spotter import AudioFormat, Encoding, Spotter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from earmark_spotter import Detection, SpotterModel


class BenchmarkError(Exception):
    """Nothing can be measured; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Speech:
    """A recording that streams play in an endless loop, each from a chunk of its own choosing."""

    sample_rate_hz: int
    chunk_bytes: int
    chunks: tuple[bytes, ...]
    """LINEAR16, mono, all equally long: less than a chunk at the recording's end is left out."""

    @classmethod
    def read(cls, path: Path, chunk_ms: float) -> Speech:
        """Cut a recording into chunks; 0 ms stands for single bytes.

        Raises RecordingError and BenchmarkError for one that won't do.
        """
        with Recording(path) as recording:
            rate_hz = recording.sample_rate_hz
            pcm = b"".join(recording)
        size = 2 * round(rate_hz * chunk_ms / 1000) or 1
        chunks = tuple(pcm[i : i + size] for i in range(0, len(pcm) - size + 1, size))
        if not chunks:
            raise BenchmarkError(f"{path}: the recording is shorter than one chunk of {chunk_ms} ms.")
        return cls(rate_hz, size, chunks)

    @property
    def chunk_s(self) -> float:
        """How long a chunk is spoken."""
        return self.chunk_bytes / (2 * self.sample_rate_hz)

    def config(self) -> bytes:
        """Make a stream's first message: every keyword, as calibrated, and a Progress every second."""
        audio_format = messages.AudioFormat(
            encoding=messages.ENCODING_LINEAR16, sample_rate_hertz=self.sample_rate_hz
        )
        config = rpcs.StreamingConfig(audio_format=audio_format)
        return rpcs.StreamingSpotRequest(config=config).SerializeToString()

    def requests(self) -> tuple[bytes, ...]:
        """Make the messages for the chunks."""
        return tuple(rpcs.StreamingSpotRequest(audio=chunk).SerializeToString() for chunk in self.chunks)

    def answers(self, model: SpotterModel, first_chunk: int, chunk_count: int) -> dict[str, int]:
        """Listen alone to what a stream says: every detection's id, and which chunk decides it.

        The deciding chunk is the first one after which a lone Spotter gives the detection, by its
        number in the stream; `chunk_count` itself stands for the end of the stream.
        """
        spotter = Spotter(model, audio_format=AudioFormat(Encoding.LINEAR16, self.sample_rate_hz))

        def heard() -> Iterator[list[Detection]]:
            for i in range(chunk_count):
                yield spotter.feed(self.chunks[(first_chunk + i) % len(self.chunks)])
            yield spotter.flush()

        return {one.id: i for i, detections in enumerate(heard()) for one in detections}
