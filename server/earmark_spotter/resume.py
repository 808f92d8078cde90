"""The resume token: all that a stream's detector knows, small enough to hand to the client.

A server keeps nothing of a broken stream. The client keeps the newest token, replays the
audio from the token's replay offset, and the stream goes on where the token was made.

Tokens are authenticated (HMAC-SHA256, RFC 2104): one that was not written with a key of the
server's is refused, whatever is in it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from earmark_spotter.detector import Candidate, DetectorSnapshot
from earmark_spotter.errors import ResumeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from earmark_spotter.audio import AudioFormat
    from earmark_spotter.detector import ActiveKeyword
    from earmark_spotter.model import SpotterModel

MAX_TOKEN_BYTES = 65_536

_VERSION = b"e2"
_TAG_BYTES = 16
_MAX_COUNT = 1 << 53
_MAX_REPLAY_S = 1_000_000_000  # thirty years: all offsets that follow from it can be told


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """Where a broken stream goes on.

    `start_offset_ns`: where in the stream the first audio of this call lies: exactly the
    `replay_offset_ns` that came with the token.
    """

    start_offset_ns: int
    token: bytes


@dataclass(frozen=True, slots=True)
class ResumeState:
    """What a token holds.

    `replay_s`: the replay offset in whole seconds. `decided_sample`: every detection that
    ends before it was given out, in samples at the model's rate. `detector`: the detector
    after the frame at which the token was made.
    """

    replay_s: int
    decided_sample: int
    detector: DetectorSnapshot


def stream_digest(model: SpotterModel, audio_format: AudioFormat, active: Sequence[ActiveKeyword]) -> str:
    """Digest what must be the same for a token to fit: model file, format, keywords' settings.

    The order of the keywords does not matter, nor whether a threshold came as float32.
    """
    keywords = sorted((k.class_index, float(np.float32(k.threshold)), float(k.refractory_ms)) for k in active)
    parts = [
        model.sha256,
        audio_format.encoding.name,
        audio_format.sample_rate_hz,
        audio_format.channel_count,
        keywords,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def encode_token(state: ResumeState, digest: str, key: bytes) -> bytes:
    """Write a token: version, authentication tag, and a compact JSON list."""
    snapshot = state.detector
    candidate = None if snapshot.candidate is None else dataclasses.astuple(snapshot.candidate)
    fields = [digest, state.replay_s, state.decided_sample, snapshot.frame, candidate, snapshot.blocked]
    payload = json.dumps(fields, separators=(",", ":")).encode()
    return _sealed(payload, key)


def decode_token(token: bytes, digest: str, keys: Sequence[bytes]) -> ResumeState:
    """Read a token back that was written with one of the keys.

    Raises ResumeError for one that was not, or that is from another stream.
    """
    payload = token[len(_VERSION) + _TAG_BYTES :]
    if len(token) > MAX_TOKEN_BYTES or not any(
        hmac.compare_digest(token, _sealed(payload, key)) for key in keys
    ):
        raise ResumeError(
            "The resume token is damaged, from another version, or from a server with another key or model "
            "file: send the bytes of the newest Progress unchanged, or begin a new stream."
        )
    # Whoever has the key, and be it the model file, can make one up: nothing in it is trusted.
    try:
        state = _read_fields(json.loads(payload), digest)
    except (ValueError, TypeError, RecursionError) as error:
        raise ResumeError("The resume token does not hold what a token holds: begin a new stream.") from error
    return state


def _read_fields(fields: Any, digest: str) -> ResumeState:
    found, replay_s, decided_sample, frame, candidate, blocked = fields
    if found != digest:
        raise ResumeError(
            "The resume token belongs to another model, audio format or keyword selection: "
            "send the same configuration as the broken stream had, or begin a new stream."
        )
    frame = _count(frame)
    peak = None
    if candidate is not None:
        class_index, score, peak_frame = candidate
        peak = Candidate(_count(class_index), _score(score), _count(peak_frame, frame))
    return ResumeState(
        replay_s=_count(replay_s, _MAX_REPLAY_S),
        decided_sample=_count(decided_sample),
        detector=DetectorSnapshot(frame, peak, tuple((_count(i), _count(until)) for i, until in blocked)),
    )


def _count(value: Any, limit: int = _MAX_COUNT) -> int:
    if type(value) is not int or not 0 <= value < limit:
        raise ValueError(f"{value!r:.40} is not a count below {limit}")
    return value


def _score(value: Any) -> float:
    if type(value) is not float or not 0 <= value <= 2:
        raise ValueError(f"{value!r:.40} is not a score")
    return value


def _sealed(payload: bytes, key: bytes) -> bytes:
    return _VERSION + hmac.digest(key, _VERSION + payload, "sha256")[:_TAG_BYTES] + payload
