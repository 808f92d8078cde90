"""What is fuzzed. A case is bytes, so that it can be kept; a target says what becomes of it.

Everywhere: the server lives, answers, and never says INTERNAL or UNKNOWN (service.py).
"""

from __future__ import annotations

import io
import json
import resource
import struct
import tempfile
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile
from earmark.v1 import keyword_spotting_pb2 as kinds
from earmark.v1 import keyword_spotting_service_pb2 as rpcs
from earmark_spotter import AudioFormat, Encoding, ModelError, SpotterModel, resolve_settings, resume
from earmark_spotter.stream import StreamState
from hypothesis import strategies as st
from mutations import messages, mutated
from service import METHODS, TIMEOUT_S
from support import tiny_model

from benchmarks.loadgen import http2_frames

if TYPE_CHECKING:
    from collections.abc import Callable

    from hypothesis.strategies import SearchStrategy
    from service import Service

SEEDS = Path(__file__).parent / "seeds"


@dataclass(frozen=True)
class Target:
    """`cases`: how new cases are drawn. `check`: fails for one that finds something."""

    name: str
    cases: SearchStrategy[bytes]
    check: Callable[[Service, bytes], None]

    @property
    def folder(self) -> Path:
        """The folder of what was found once."""
        return SEEDS / self.name

    def found(self) -> list[bytes]:
        """Give what was found once."""
        return [path.read_bytes() for path in sorted(self.folder.glob("*"))]


# Messages: a case is the number of an RPC, and a list of messages, each with its length before it.

_RPCS = ("StreamingSpot", "Spot", "Classify", "ListModels", "GetModel")
_REQUESTS = (
    rpcs.StreamingSpotRequest,
    rpcs.SpotRequest,
    rpcs.ClassifyRequest,
    rpcs.ListModelsRequest,
    rpcs.GetModelRequest,
)
_LINEAR16 = kinds.AudioFormat(encoding=kinds.ENCODING_LINEAR16, sample_rate_hertz=16_000)
_TONE = (10_000 * np.sin(np.arange(4000) / 4)).astype("<i2").tobytes()


def _joined(rpc: int, *requests: bytes) -> bytes:
    return bytes([rpc]) + b"".join(struct.pack("<I", len(one)) + one for one in requests)


def _parted(case: bytes) -> list[bytes]:
    """Take the messages apart; where a length says more than is there, it is what is there."""
    found, at = [], 1
    while at + 4 <= len(case):
        (length,) = struct.unpack_from("<I", case, at)
        found.append(case[at + 4 : at + 4 + length])
        at += 4 + length
    return found


def _message_seeds() -> list[bytes]:
    config = rpcs.StreamingConfig(
        audio_format=_LINEAR16,
        keywords=[kinds.KeywordSetting(keyword="yes", threshold=0.5)],
        request_id="seed",
    )
    config.score_interval.nanos = 10**8
    pause = rpcs.StreamingSpotRequest()
    pause.silence.nanos = 10**8
    stream = [rpcs.StreamingSpotRequest(config=config), rpcs.StreamingSpotRequest(audio=_TONE), pause]
    return [
        _joined(0, *(one.SerializeToString() for one in stream)),
        _joined(1, rpcs.SpotRequest(audio_format=_LINEAR16, audio=_TONE).SerializeToString()),
        _joined(2, rpcs.ClassifyRequest(audio_format=_LINEAR16, audio=_TONE).SerializeToString()),
        _joined(3, b""),
        _joined(4, rpcs.GetModelRequest(model="earmark-en").SerializeToString()),
    ]


@st.composite
def _any_messages(draw: st.DrawFn) -> bytes:
    rpc = draw(st.integers(0, len(_RPCS) - 1))
    some = st.lists(messages(_REQUESTS[rpc]), min_size=1, max_size=5 if rpc == 0 else 1)
    return _joined(rpc, *(one.SerializeToString() for one in draw(some)))


def _check_messages(service: Service, case: bytes) -> None:
    name, requests = _RPCS[case[0] % len(_RPCS) if case else 0], _parted(case)
    if name == "StreamingSpot":
        service.stream(requests)
    else:
        service.unary(name, requests[0] if requests else b"")


# Frames: a case is all that is said on a connection.


def _conversation(*, compressed: bool = False, encoding: str = "") -> bytes:
    request = rpcs.SpotRequest(audio_format=_LINEAR16, audio=_TONE[:1000]).SerializeToString()
    headers = http2_frames.request_headers("localhost", METHODS + "Spot")
    if encoding:
        headers += b"\x00\x0dgrpc-encoding" + bytes([len(encoding)]) + encoding.encode()
    prefixed = bytes([compressed]) + http2_frames.prefixed(request)[1:]
    return b"".join(
        (
            http2_frames.connection_preface(),
            http2_frames.frame(http2_frames.SETTINGS, http2_frames.ACK, 0, b""),
            http2_frames.frame(http2_frames.HEADERS, http2_frames.END_HEADERS, 1, headers),
            http2_frames.frame(http2_frames.DATA, 0, 1, prefixed[:100]),
            http2_frames.frame(http2_frames.PING, 0, 0, bytes(8)),
            http2_frames.frame(http2_frames.DATA, http2_frames.END_STREAM, 1, prefixed[100:]),
            http2_frames.frame(http2_frames.HEADERS, http2_frames.END_HEADERS, 3, headers),
            http2_frames.frame(http2_frames.RESET, 0, 3, http2_frames.CANCEL.to_bytes(4, "big")),
        )
    )


_FRAME_SEEDS = [
    _conversation(),
    _conversation(compressed=True),
    _conversation(compressed=True, encoding="gzip"),
    _conversation(encoding="nonsense"),
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
]


# What gRPC itself says of a connection that breaks HTTP/2 or its own protocol, before a server sees a call.
_GRPCS_OWN = (
    "INTERNAL: Compression bit set but no encoding",
    "INTERNAL: Failed parsing HTTP/2",
    "INTERNAL: Error parsing '",
)


def _check_frames(service: Service, case: bytes) -> None:
    for status in service.connection(case):
        assert not status.startswith(("INTERNAL", "UNKNOWN")) or status.startswith(_GRPCS_OWN), status


# Recordings: a case is the number of the encoding that the file is said to have, and the file.


def _recording_seeds() -> list[bytes]:
    seeds = []
    for container, coding, stated in (
        ("WAV", "PCM_16", kinds.ENCODING_WAV),
        ("WAV", "IMA_ADPCM", 0),
        ("WAV", "FLOAT", 0),
        ("FLAC", "PCM_16", kinds.ENCODING_FLAC),
        ("FLAC", "PCM_24", 0),
        ("OGG", "OPUS", kinds.ENCODING_OGG_OPUS),
        ("OGG", "VORBIS", 0),
    ):
        for channels in (1, 2):
            buffer = io.BytesIO()
            samples = np.repeat(tiny_model.tone("low", 0.2)[:, np.newaxis], channels, axis=1)
            soundfile.write(buffer, samples, 16_000, format=container, subtype=coding)
            seeds.append(bytes([stated]) + buffer.getvalue())
    return seeds


def _check_recording(service: Service, case: bytes) -> None:
    stated = kinds.AudioFormat(encoding=case[0] % 9 if case else 0)
    request = rpcs.SpotRequest(audio_format=stated, audio=case[1:])
    service.unary("Spot", request.SerializeToString())
    service.unary("Classify", request.SerializeToString())


# Tokens: a case is the whole second at which the stream is said to go on (4 bytes), and a resume token.

_MODEL = SpotterModel.load()
_FORMAT = AudioFormat(Encoding.LINEAR16, 16_000)


def _token_seeds() -> list[bytes]:
    state = StreamState(_MODEL, _FORMAT, resolve_settings(_MODEL.metadata))
    return [struct.pack("<I", 0) + state.progress().resume_token]


@st.composite
def _forged(draw: st.DrawFn) -> bytes:
    """Draw a token that is sealed, as whoever has the model file can do it, with any values in it."""
    digest = resume.stream_digest(_MODEL, _FORMAT, resolve_settings(_MODEL.metadata))
    number = st.integers(-1, 40) | st.sampled_from((2**31, 2**53 - 1, 2**53, 2**70, 1.5, None, "1", True))
    peak = st.none() | st.lists(number | st.floats(0, 3), max_size=4)
    blocked = st.lists(st.lists(number, max_size=3), max_size=4)
    second = draw(st.integers(0, 40))
    seconds = st.just(second) | number
    fields = [
        draw(st.just(digest) | number),
        draw(seconds),
        draw(number),
        draw(number),
        draw(peak),
        draw(blocked),
    ]
    payload = json.dumps(fields, separators=(",", ":")).encode()
    return struct.pack("<I", second) + resume._sealed(payload, _MODEL.resume_key)


def _check_token(service: Service, case: bytes) -> None:
    config = rpcs.StreamingConfig(audio_format=_LINEAR16)
    config.resume.start_offset.seconds = int.from_bytes(case[:4], "little")
    config.resume.resume_token = case[4:]
    requests = [rpcs.StreamingSpotRequest(config=config), rpcs.StreamingSpotRequest(audio=_TONE)]
    reason, answers = service.stream(one.SerializeToString() for one in requests)
    assert reason in ("OK", "BAD_RESUME_TOKEN", "BAD_AUDIO"), reason
    assert reason != "OK" or rpcs.StreamingSpotResponse.FromString(answers[-1]).HasField("ended")


# Models: a case is a model file. It is loaded in a process of its own, as a server tries a new one.


def _model_seeds() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        return [tiny_model.build(Path(folder) / "tiny.onnx").read_bytes()]


@st.composite
def _lying(draw: st.DrawFn) -> bytes:
    """Draw a model with a field of its metadata that is something else."""
    place = document = tiny_model.metadata()
    while True:
        key = draw(st.sampled_from(list(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], dict | list) or not place[key] or draw(st.booleans()):
            break
        place = place[key]
    numbers = st.sampled_from((-1, 0, 1, 1.5, 2**31, 2**63, 10**400, 1e308))
    place[key] = draw(numbers | st.sampled_from((None, True, "", "yes", "\ud800", [], {}, [[]] * 1000)))
    with tempfile.TemporaryDirectory() as folder:
        return tiny_model.build(Path(folder) / "lying.onnx", document=document).read_bytes()


def _limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))


def _load(content: bytes) -> None:
    try:
        SpotterModel(content)
    except ModelError:
        return


class _Loader:
    """The process that models are loaded in; another one after one that had to be given up."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    def check(self, _: Service, case: bytes) -> None:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(1, get_context("spawn"), _limit_memory)
        try:
            self._pool.submit(_load, case).result(TIMEOUT_S)
        except (BrokenProcessPool, TimeoutError):
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None
            raise


TARGETS = (
    Target("messages", _any_messages() | mutated(_message_seeds()), _check_messages),
    Target("frames", mutated(_FRAME_SEEDS), _check_frames),
    Target("recordings", mutated(_recording_seeds()), _check_recording),
    Target("tokens", _forged() | mutated(_token_seeds()), _check_token),
    Target("models", _lying() | mutated(_model_seeds()), _Loader().check),
)
