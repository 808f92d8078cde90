"""The speech that a load streams, as serialized messages, and the detections to expect in it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from earmark.v1 import keyword_spotting_pb2 as messages
from earmark.v1 import keyword_spotting_service_pb2 as rpcs
from earmark_client import Recording
from earmark_client.audio import AudioFormat
from earmark_client.source_gate import SourceGate
from earmark_spotter import AudioFormat as SpotterFormat
from earmark_spotter import Encoding, Spotter

from benchmarks.loadgen.errors import BenchmarkError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from earmark_spotter import Detection, SpotterModel


@dataclass(frozen=True, slots=True)
class Speech:
    """A recording that streams send in an endless loop. Each stream starts at a chunk of its choice."""

    sample_rate_hz: int
    chunk_bytes: int
    chunks: tuple[bytes, ...]
    """LINEAR16, mono, of equal length: an incomplete chunk at the end of the recording is dropped."""
    pieces: tuple[tuple[bytes | int, ...], ...]
    """What a client sends for each chunk: audio, or the length of a silence in bytes of audio."""

    @classmethod
    def read(cls, path: Path, chunk_ms: float) -> Speech:
        """Read a recording and split it into chunks; `chunk_ms` 0 means single bytes.

        Raises RecordingError if the recording cannot be read, BenchmarkError if it is too short.
        """
        with Recording(path) as recording:
            rate_hz = recording.sample_rate_hz
            pcm = b"".join(recording)
        size = 2 * round(rate_hz * chunk_ms / 1000) or 1
        chunks = tuple(pcm[i : i + size] for i in range(0, len(pcm) - size + 1, size))
        if not chunks:
            raise BenchmarkError(
                f"{path} is shorter than one chunk of {chunk_ms} ms: use a longer recording."
            )
        return cls(rate_hz, size, chunks, tuple((chunk,) for chunk in chunks))

    def gated(self) -> Speech:
        """Return the same audio as a client with a gate sends it."""
        gate = SourceGate(AudioFormat(self.sample_rate_hz))
        # In the second run the gate knows the noise, as in any but the first minute of a stream.
        for _ in range(2):
            pieces = tuple(tuple(gate.process(chunk)) for chunk in self.chunks)
        return replace(self, pieces=pieces)

    @property
    def chunk_s(self) -> float:
        """The length of a chunk in seconds."""
        return self.chunk_bytes / (2 * self.sample_rate_hz)

    def config_message(self) -> bytes:
        """Return a stream's first message: all keywords at their calibrated thresholds."""
        audio_format = messages.AudioFormat(
            encoding=messages.ENCODING_LINEAR16, sample_rate_hertz=self.sample_rate_hz
        )
        config = rpcs.StreamingConfig(audio_format=audio_format)
        return rpcs.StreamingSpotRequest(config=config).SerializeToString()

    def audio_messages(self) -> tuple[bytes, ...]:
        """Return one message per chunk."""
        return tuple(self._message(chunk) for chunk in self.chunks)

    def messages_by_chunk(self) -> tuple[tuple[bytes, ...], ...]:
        """Return the messages that a client sends for each chunk, perhaps none."""
        return tuple(tuple(self._message(piece) for piece in pieces) for pieces in self.pieces)

    def _message(self, piece: bytes | int) -> bytes:
        if isinstance(piece, bytes):
            return rpcs.StreamingSpotRequest(audio=piece).SerializeToString()
        request = rpcs.StreamingSpotRequest()
        request.silence.FromNanoseconds(piece // 2 * 10**9 // self.sample_rate_hz)
        return request.SerializeToString()

    def expected_detections(self, model: SpotterModel, first_chunk: int, chunk_count: int) -> dict[str, int]:
        """Run a Spotter on a stream's audio; return the id of every detection, and the chunk that decides it.

        The deciding chunk is the first one after which the Spotter returns the detection, by its number in
        the stream; `chunk_count` means that the end of the stream decides it.
        """
        spotter = Spotter(model, audio_format=SpotterFormat(Encoding.LINEAR16, self.sample_rate_hz))

        def feed(pieces: tuple[bytes | int, ...]) -> Iterator[Detection]:
            for piece in pieces:
                yield from (
                    spotter.feed(piece) if isinstance(piece, bytes) else spotter.feed_silence(piece // 2)
                )

        def results() -> Iterator[list[Detection]]:
            for i in range(chunk_count):
                yield list(feed(self.pieces[(first_chunk + i) % len(self.pieces)]))
            yield spotter.flush()

        return {one.id: i for i, detections in enumerate(results()) for one in detections}
