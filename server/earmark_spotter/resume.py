"""Resume tokens: the state of a stream's detector, small enough to be kept by the client.

A server keeps no state of a broken stream. The client keeps the newest token and replays the
audio from the token's replay offset; the stream continues from the point of the token.

Tokens are authenticated (HMAC-SHA256, RFC 2104). A token that was not signed with one of the
server's keys is rejected, whatever its content is.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from earmark_audio.energy_gate import GateState

from earmark_spotter.detector import Candidate, DetectorSnapshot
from earmark_spotter.errors import ResumeError
from earmark_spotter.stream_checks import NO_PROBLEMS, REASONS, ChecksState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from earmark_spotter.audio import AudioFormat
    from earmark_spotter.detector import ActiveKeyword
    from earmark_spotter.model import SpotterModel

_VERSION = b"e2"
_JOINED = b"m1"
_TAG_BYTES = 16
_MAX_COUNT = 1 << 53
_MAX_STEPS_AHEAD = 1000  # a round has fewer

INVALID_CONTENT = "The content of the resume token is invalid. Start a new stream."
"""The message about a token that was signed with a right key, but that no server has issued."""

MAX_OFFSET_S = 1_000_000_000
"""The longest stream: thirty years, so that every offset fits a Duration."""

# Upper bounds on the lengths of the parts of a token.
_FIXED_BYTES = 512
_KEYWORD_BYTES = 64
_GATE_STEP_BYTES = 80

_encode_json = json.JSONEncoder(separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """The point from which a broken stream is resumed.

    `start_offset_ns`: the position in the stream of the first audio of this call, which must be
    the `replay_offset_ns` that was issued with the token.
    """

    start_offset_ns: int
    token: bytes


@dataclass(frozen=True, slots=True)
class ResumeState:
    """The content of a token.

    `replay_s`: the replay offset in whole seconds. `decided_sample`: every detection that
    ends before it has been reported, in samples at the model's rate. `detector`, `gate`: their
    states when the token was issued. `checks`: the state of the checks of the audio at the replay offset.
    """

    replay_s: int
    decided_sample: int
    detector: DetectorSnapshot
    gate: GateSnapshot | None = None
    checks: ChecksState = NO_PROBLEMS


@dataclass(frozen=True, slots=True)
class GateSnapshot:
    """The state of a stream's gate when a token was issued.

    The gate is ahead of the detector: `run_steps`, `gated_steps`: how many steps after the position of the
    detector it has observed already, which are run in any case, or skipped.
    """

    state: GateState
    run_steps: int
    gated_steps: int


def stream_digest(model: SpotterModel, audio_format: AudioFormat, active: Sequence[ActiveKeyword]) -> str:
    """Return a digest of everything a token depends on: model file, audio format, keyword settings.

    Neither the order of the keywords nor the float precision of a threshold affects it.
    """
    keywords = sorted((k.class_index, float(np.float32(k.threshold)), float(k.refractory_ms)) for k in active)
    parts = [
        model.sha256,
        audio_format.encoding.name,
        audio_format.sample_rate_hz,
        audio_format.channel_count,
        keywords,
    ]
    if audio_format.channel is not None:
        parts.append(audio_format.channel)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def encode_token(state: ResumeState, digest: str, key: bytes) -> bytes:
    """Encode a token: version, authentication tag, and a compact JSON list."""
    snapshot = state.detector
    peak = snapshot.candidate
    candidate: tuple[Any, ...] | None = None
    if peak is not None:
        candidate = (peak.class_index, peak.score, peak.frame)
        if peak.rivals:  # older versions can read the token of a candidate without rivals
            candidate += (peak.rivals,)
    fields: list[Any] = [
        digest,
        state.replay_s,
        state.decided_sample,
        snapshot.frame,
        candidate,
        snapshot.blocked,
    ]
    if state.gate is not None:
        gate = state.gate.state
        fields.append(
            [gate.floors, gate.open_blocks, gate.powers, state.gate.run_steps, state.gate.gated_steps]
        )
    # Older versions can read the token of a stream without problems.
    if state.replay_s and state.checks != NO_PROBLEMS:
        fields += [None] * (state.gate is None)
        fields.append(dataclasses.astuple(state.checks))
    payload = _encode_json(fields).encode()
    return _sealed(payload, key)


def decode_token(token: bytes, digest: str, keys: Sequence[bytes]) -> ResumeState:
    """Decode a token that was signed with one of the keys.

    Raises ResumeError for any other token, and for one of a different stream.
    """
    payload = token[len(_VERSION) + _TAG_BYTES :]
    if not any(hmac.compare_digest(token, _sealed(payload, key)) for key in keys):
        raise ResumeError(
            "The resume token is damaged, or it comes from another version or from a server with another "
            "key or model file. Send the token of the newest Progress unchanged, or start a new stream."
        )
    # Anyone who has the key, which may be the model file, can forge a token: validate the content.
    try:
        state = _read_fields(json.loads(payload), digest)
    except (ValueError, TypeError, RecursionError) as error:
        raise ResumeError(INVALID_CONTENT) from error
    return state


def max_token_bytes(keyword_count: int, gate_steps: int) -> int:
    """Return the length that no token exceeds. `gate_steps`: the steps in a block of the gate."""
    return _FIXED_BYTES + keyword_count * _KEYWORD_BYTES + gate_steps * _GATE_STEP_BYTES


def join_tokens(tokens: Sequence[bytes]) -> bytes:
    """Return the token of a stream from those of its models; a single one is the stream's."""
    if len(tokens) == 1:
        return tokens[0]
    return _JOINED + b"".join(len(token).to_bytes(4) + token for token in tokens)


def split_token(token: bytes, count: int) -> list[bytes]:
    """Return the tokens of a stream's models; empty ones, which are invalid, if there are not `count`."""
    if count == 1:
        return [token]
    tokens, position = [], len(_JOINED)
    for _ in range(count):
        start = position + 4
        position = start + int.from_bytes(token[position:start])
        tokens.append(token[start:position])
    return tokens if token.startswith(_JOINED) and position == len(token) else [b""] * count


def _read_fields(fields: Any, digest: str) -> ResumeState:
    found, replay_s, decided_sample, frame, candidate, blocked, *more = _list(fields)
    if found != digest:
        raise ResumeError(
            "The resume token belongs to another model, audio format or keyword selection. "
            "Send the configuration of the broken stream, or start a new stream."
        )
    gate, checks = [*more, None, None][: max(2, len(more))]
    frame = _count(frame)
    peak = None
    if candidate is not None:
        class_index, score, peak_frame, *more_of_it = _list(candidate)
        (rivals,) = more_of_it or [[]]
        peak = Candidate(
            _count(class_index),
            _score(score),
            _count(peak_frame, frame),
            tuple(_read_rival(pair) for pair in _list(rivals)),
        )
    return ResumeState(
        replay_s=_count(replay_s, MAX_OFFSET_S),
        decided_sample=_count(decided_sample),
        detector=DetectorSnapshot(frame, peak, tuple(_read_blocked(pair) for pair in _list(blocked))),
        gate=None if gate is None else _read_gate(gate),
        checks=NO_PROBLEMS if checks is None else _read_checks(checks),
    )


def _read_blocked(fields: Any) -> tuple[int, int]:
    class_index, until = _list(fields)
    return _count(class_index), _count(until)


def _read_rival(fields: Any) -> tuple[int, float]:
    class_index, score = _list(fields)
    return _count(class_index), _score(score)


def _read_checks(fields: Any) -> ChecksState:
    first_sound_s, silent_bytes, reasons = _list(fields)
    # Each reason at most once.
    if sorted(_list(reasons)) != [reason for reason in sorted(REASONS) if reason in reasons]:
        raise ValueError(f"{reasons!r:.40} are no reasons of notices")
    first_sound_s = None if first_sound_s is None else _count(first_sound_s)
    return ChecksState(first_sound_s, _count(silent_bytes), tuple(reasons))


def _read_gate(fields: Any) -> GateSnapshot:
    floors, open_blocks, powers, run_steps, gated_steps = _list(fields)
    state = GateState(
        _powers(floors) if floors != [] else (),
        _count(open_blocks),
        tuple(_powers(step) for step in _list(powers)),
    )
    return GateSnapshot(state, _count(run_steps, _MAX_STEPS_AHEAD), _count(gated_steps, _MAX_STEPS_AHEAD))


def _powers(values: Any) -> tuple[float, ...]:
    if len(_list(values)) != 3 or not all(type(value) is float and 0 <= value < 1e12 for value in values):
        raise ValueError(f"{values!r:.40} are not the powers of the gate's bands")
    return tuple(values)


def _list(value: Any) -> list[Any]:
    if type(value) is not list:
        raise ValueError(f"{value!r:.40} is not a list")
    return value


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
