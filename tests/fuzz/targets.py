"""The fuzzing targets. A case is a byte string, so that it can be saved; a target interprets and checks it.

For every target, the server must survive, must answer, and must never return INTERNAL or UNKNOWN (see
fuzzed_server.py).
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
from fuzzed_server import METHODS, TIMEOUT_S
from hypothesis import strategies as st
from mutations import messages, mutated
from support import tiny_model

from benchmarks.loadgen import http2_frames

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuzzed_server import FuzzedServer
    from hypothesis.strategies import SearchStrategy

SEEDS = Path(__file__).parent / "seeds"


@dataclass(frozen=True)
class Target:
    """One kind of input: a strategy for new cases, and a check that fails if a case reveals a bug."""

    name: str
    cases: SearchStrategy[bytes]
    check: Callable[[FuzzedServer, bytes], None]

    @property
    def folder(self) -> Path:
        """The folder of the saved cases."""
        return SEEDS / self.name

    def saved_cases(self) -> list[bytes]:
        """Return the cases that once revealed a bug."""
        return [path.read_bytes() for path in sorted(self.folder.glob("*"))]


# Messages: a case is the number of an RPC, and a list of messages with length prefixes.

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


def _join(rpc: int, *requests: bytes) -> bytes:
    return bytes([rpc]) + b"".join(struct.pack("<I", len(one)) + one for one in requests)


def _split(case: bytes) -> list[bytes]:
    """Return the messages of a case. A length beyond the end of the case is cut to the end."""
    requests, at = [], 1
    while at + 4 <= len(case):
        (length,) = struct.unpack_from("<I", case, at)
        requests.append(case[at + 4 : at + 4 + length])
        at += 4 + length
    return requests


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
        _join(0, *(one.SerializeToString() for one in stream)),
        _join(1, rpcs.SpotRequest(audio_format=_LINEAR16, audio=_TONE).SerializeToString()),
        _join(2, rpcs.ClassifyRequest(audio_format=_LINEAR16, audio=_TONE).SerializeToString()),
        _join(3, b""),
        _join(4, rpcs.GetModelRequest(model="earmark-en").SerializeToString()),
    ]


@st.composite
def _any_messages(draw: st.DrawFn) -> bytes:
    rpc = draw(st.integers(0, len(_RPCS) - 1))
    drawn = st.lists(messages(_REQUESTS[rpc]), min_size=1, max_size=5 if rpc == 0 else 1)
    return _join(rpc, *(one.SerializeToString() for one in draw(drawn)))


def _check_messages(server: FuzzedServer, case: bytes) -> None:
    name, requests = _RPCS[case[0] % len(_RPCS) if case else 0], _split(case)
    if name == "StreamingSpot":
        server.call_streaming(requests)
    else:
        server.call_unary(name, requests[0] if requests else b"")


# Frames: a case is all bytes that are sent on a connection.


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


# Errors of gRPC itself for a violation of HTTP/2 or of its protocol, before the server receives a call.
_GRPC_ERRORS = (
    "INTERNAL: Compression bit set but no encoding",
    "INTERNAL: Failed parsing HTTP/2",
    "INTERNAL: Error parsing '",
)


def _check_frames(server: FuzzedServer, case: bytes) -> None:
    for status in server.send_raw(case):
        assert not status.startswith(("INTERNAL", "UNKNOWN")) or status.startswith(_GRPC_ERRORS), status


# Recordings: a case is the number of the declared encoding, and the file.


def _recording_seeds() -> list[bytes]:
    seeds = []
    for container, coding, declared in (
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
            seeds.append(bytes([declared]) + buffer.getvalue())
    return seeds


def _check_recording(server: FuzzedServer, case: bytes) -> None:
    declared = kinds.AudioFormat(encoding=case[0] % 9 if case else 0)
    request = rpcs.SpotRequest(audio_format=declared, audio=case[1:])
    server.call_unary("Spot", request.SerializeToString())
    server.call_unary("Classify", request.SerializeToString())


# Tokens: a case is the declared start offset in whole seconds (4 bytes), and a resume token.

_MODEL = SpotterModel.load()
_FORMAT = AudioFormat(Encoding.LINEAR16, 16_000)


def _token_seeds() -> list[bytes]:
    state = StreamState(_MODEL, _FORMAT, resolve_settings(_MODEL.metadata))
    return [struct.pack("<I", 0) + state.progress().resume_token]


@st.composite
def _forged(draw: st.DrawFn) -> bytes:
    """Draw a token with arbitrary values and a valid seal, as anybody with the model file could forge it."""
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


def _check_token(server: FuzzedServer, case: bytes) -> None:
    config = rpcs.StreamingConfig(audio_format=_LINEAR16)
    config.resume.start_offset.seconds = int.from_bytes(case[:4], "little")
    config.resume.resume_token = case[4:]
    requests = [rpcs.StreamingSpotRequest(config=config), rpcs.StreamingSpotRequest(audio=_TONE)]
    reason, responses = server.call_streaming(one.SerializeToString() for one in requests)
    assert reason in ("OK", "BAD_RESUME_TOKEN", "BAD_AUDIO"), reason
    assert reason != "OK" or rpcs.StreamingSpotResponse.FromString(responses[-1]).HasField("ended")


# Models: a case is a model file. It is loaded in a separate process, as the server's sandbox does.


def _model_seeds() -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        return [tiny_model.build(Path(folder) / "tiny.onnx").read_bytes()]


@st.composite
def _invalid_metadata(draw: st.DrawFn) -> bytes:
    """Draw a model with one field of its metadata replaced by another value."""
    place = document = tiny_model.metadata()
    while True:
        key = draw(st.sampled_from(list(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], dict | list) or not place[key] or draw(st.booleans()):
            break
        place = place[key]
    numbers = st.sampled_from((-1, 0, 1, 1.5, 2**31, 2**63, 10**400, 1e308))
    place[key] = draw(numbers | st.sampled_from((None, True, "", "yes", "\ud800", [], {}, [[]] * 1000)))
    with tempfile.TemporaryDirectory() as folder:
        return tiny_model.build(Path(folder) / "invalid.onnx", document=document).read_bytes()


def _limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))


def _load(content: bytes) -> None:
    try:
        SpotterModel(content)
    except ModelError:
        return


class _Loader:
    """Loads models in a process, and starts a new process after one that crashed or hung."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    def check(self, _: FuzzedServer, case: bytes) -> None:
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
    Target("models", _invalid_metadata() | mutated(_model_seeds()), _Loader().check),
)
