"""Formats that libsndfile decodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from earmark_audio.errors import DAMAGED, AudioFileError, IncompleteError
from earmark_audio.formats import CONVERT
from earmark_audio.notices import MORE_AUDIO, OTHER_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from earmark_audio.formats import Format
    from earmark_audio.notices import Notice
    from earmark_audio.recording_parts import Part

_BLOCK_FRAMES = 4096
"""How much is decoded at once. An error in the middle loses at most this, and always the same."""

_UNKNOWN_FRAMES = 1 << 62  # libsndfile's SF_COUNT_MAX, and what comes near it


class SndfileSource:
    """A part of a file, decoded by libsndfile."""

    track_count = 1

    def __init__(self, part: Part, kind: Format) -> None:
        import soundfile

        class ForwardFile(soundfile.SoundFile):  # type: ignore[misc]
            """Reads from front to back: its seeking after every block can fail or be inexact."""

            def seekable(self) -> bool:
                return False

        part.view.seek(0)
        try:
            self._sound: Any = ForwardFile(part.view)
        except (soundfile.LibsndfileError, TypeError, OSError) as error:
            raise AudioFileError(
                f"The {kind} file is damaged, or its codec is not supported: {CONVERT}."
            ) from error
        self._declared_frames = part.declared_frames
        self.notices: list[Notice] = []
        self.sample_rate_hz = int(self._sound.samplerate)
        self.channels = int(self._sound.channels)
        self.codec = kind.codec or str(self._sound.subtype_info)
        frames = part.declared_frames
        if frames is None and not part.view.is_unbounded and self._sound.frames < _UNKNOWN_FRAMES:
            frames = self._sound.frames
        self.declared_s = None if frames is None else frames / self.sample_rate_hz

    def close(self) -> None:
        """Close the decoder; the file stays open."""
        self._sound.close()

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Iterate over the samples, [n, channels]. IncompleteError, after them, where decoding fails."""
        import soundfile

        frames, declared = 0, self._declared_frames or 0
        try:
            # An error loses the whole block: none reaches beyond the declared end, after which other bytes
            # may follow.
            while len(block := self._read(declared - frames)):
                frames += len(block)
                yield block
        except soundfile.LibsndfileError as error:
            if frames != self._declared_frames:
                raise IncompleteError(DAMAGED) from error
            self.notices.append(OTHER_BYTES)
        if frames < declared:
            missing_s = (declared - frames) / self.sample_rate_hz
            raise IncompleteError(f"The recording is truncated: its last {missing_s:.2f} s are missing.")
        if 0 < declared < frames:
            self.notices.append(MORE_AUDIO)

    def _read(self, left: int) -> NDArray[np.float32]:
        """Decode one block where this much is declared to be left."""
        frames = min(_BLOCK_FRAMES, left) if left > 0 else _BLOCK_FRAMES
        block: NDArray[np.float32] = self._sound.read(frames, "float32", always_2d=True)
        return block
