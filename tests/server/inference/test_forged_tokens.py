"""A forged resume token is rejected, or its stream works and costs no more than others."""

from __future__ import annotations

import copy
import json
import math
import time
import tracemalloc
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from earmark_server.inference.events import Finished, Progress
from earmark_server.inference.pending_audio import End, Silence
from earmark_server.inference.session import SpottingSession
from earmark_spotter import (
    AudioFormat,
    Detection,
    Encoding,
    ResumeError,
    ResumePoint,
    SpotterModel,
    resolve_settings,
)
from earmark_spotter.resume import join_tokens, split_token
from support import tiny_model
from support.tokens import sealed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from earmark_server.inference.events import Event

RATE_HZ = 16_000
FORMAT = AudioFormat(Encoding.LINEAR16, RATE_HZ)
SECONDS = 10
WORDS = [(1.0, "low"), (4.6, "mid"), (5.4, "high"), (6.5, "low")]


def pcm() -> bytes:
    """Return words in a little noise, and a part that is clipped, so that tokens have a reason."""
    samples = tiny_model.recording(WORDS, SECONDS, noise=1e-3)
    samples[2 * RATE_HZ : 2 * RATE_HZ + 3000] = 1
    return (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "gated"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SpotterModel:
    document = tiny_model.metadata()
    if request.param:
        document["gate"] = {"margins_db": [4, 5, 6], "hold_ms": 400}
    return SpotterModel.load(tiny_model.build(tmp_path_factory.mktemp("model") / "m.onnx", document=document))


class Stream:
    """A stream as the engine runs it; `run_steps`: the steps of the model on which it ran."""

    def __init__(self, model: SpotterModel, resume: ResumePoint | None = None) -> None:
        self._model = model
        active = resolve_settings(model.metadata)
        self.session = SpottingSession(model, FORMAT, active, resume=resume, progress_interval_ns=100_000_000)
        self._state = model.initial_states(1)
        self.run_steps = 0

    def run(self, *items: bytes | Silence | End) -> list[Event]:
        events: list[Event] = []
        for item in items:
            self.session.pending.append(item)
        while True:
            if steps := self.session.prepare(0.4):
                self.run_steps += steps
                if self.session.starts_from_initial_state:
                    self._state = self._model.initial_states(1)
                scores, self._state = self._model.step(self.session.consume(steps)[np.newaxis], self._state)
                events += self.session.apply(scores[0])
            elif self.session.is_quiet:
                events += self.session.skip_quiet()
            else:
                return events


def genuine_tokens(model: SpotterModel) -> list[Progress]:
    """Return positions with all that tokens contain: a candidate, a refractory period, an open gate."""
    stream, data = Stream(model), pcm()
    events = [event for start in range(0, len(data), 640) for event in stream.run(data[start : start + 640])]
    return [event for event in events if isinstance(event, Progress) and event.progress.replay_offset_ns]


def parsed(token: bytes) -> list[Any]:
    fields: list[Any] = json.loads(token[18:])
    return fields


@pytest.fixture(scope="module")
def genuine(model: SpotterModel) -> list[tuple[int, list[Any]]]:
    """The replay offsets in ns and the fields of tokens of which each has something that others have not."""
    chosen: list[tuple[int, list[Any]]] = []
    shapes = set()
    for event in genuine_tokens(model):
        fields = parsed(event.progress.resume_token)
        gate = fields[6] if len(fields) > 6 and fields[6] else [[], 0, [], 0, 0]
        shape = (fields[4] is None, bool(fields[5]), len(fields) > 7, gate[1] > 0, bool(gate[2]))
        if shape not in shapes:
            shapes.add(shape)
            chosen.append((event.progress.replay_offset_ns, fields))
    assert all({shape[i] for shape in shapes} == {False, True} for i in range(2))
    assert any(shape[2] for shape in shapes)
    return chosen


WRONG: tuple[Any, ...] = (
    None,
    True,
    "",
    "CLIPPED",
    {},
    [],
    [[]],
    [None],
    -1,
    0,
    1,
    3,
    1000,
    1 << 40,
    (1 << 53) - 1,
    1 << 70,
    -0.5,
    0.5,
    3.0,
    1e-6,
    1e300,
    math.nan,
    math.inf,
)


def mutated(fields: list[Any]) -> Iterator[list[Any]]:
    """Yield the fields with every value in them replaced, repeated, or left out."""

    def places(value: Any, place: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
        for i, each in enumerate(value if isinstance(value, list) else ()):
            yield (*place, i)
            yield from places(each, (*place, i))

    for *outer, last in places(fields):
        changed = copy.deepcopy(fields)
        within = changed
        for i in outer:
            within = within[i]
        before = within[last]
        for value in (*WRONG, before * 2 if isinstance(before, list) else [before]):
            within[last] = value
            yield changed
        within[last : last + 1] = [before] * 2
        yield changed
        within[last : last + 2] = [before] * 500
        yield changed
        del within[last : last + 500]
        yield changed


def resumed(model: SpotterModel, replay_ns: int, fields: list[Any]) -> Stream:
    payload = json.dumps(fields, separators=(",", ":")).encode()
    return Stream(model, ResumePoint(replay_ns, sealed(payload, model.resume_key)))


def test_a_token_with_any_field_changed_is_rejected_or_its_stream_works(
    model: SpotterModel, genuine: list[tuple[int, list[Any]]]
) -> None:
    audio = pcm()[: 2 * 2 * RATE_HZ]
    rejections: Counter[str] = Counter()
    accepted = []
    for offset_ns, fields in genuine:
        for changed in mutated(fields):
            # Anyone can state the offset that the token has.
            is_offset = len(changed) > 1 and type(changed[1]) is int
            replay_ns = changed[1] * 10**9 if is_offset else offset_ns
            try:
                stream = resumed(model, replay_ns, changed)
            except ResumeError as error:
                rejections[error.reason] += 1
            else:
                accepted.append((changed, stream))
    assert rejections.keys() == {"BAD_RESUME_TOKEN"}
    assert rejections["BAD_RESUME_TOKEN"] > 10 * len(accepted)
    for changed, stream in accepted:
        *events, last = stream.run(audio, Silence(5 * RATE_HZ), audio, End.OF_AUDIO)
        assert isinstance(last, Finished), changed
        assert all(0 <= event.confidence <= 1 for event in events if isinstance(event, Detection)), changed
        tokens = [event.progress.resume_token for event in events if isinstance(event, Progress)]
        assert all(len(token) < 1000 for token in tokens), changed


def test_a_token_that_is_longer_than_any_genuine_one_is_rejected(
    model: SpotterModel, genuine: list[tuple[int, list[Any]]]
) -> None:
    offset_ns, fields = genuine[0]
    payload = json.dumps(fields).encode()
    Stream(model, ResumePoint(offset_ns, sealed(payload, model.resume_key)))
    with pytest.raises(ResumeError, match="damaged"):
        Stream(model, ResumePoint(offset_ns, sealed(payload + b" " * 5000, model.resume_key)))


def test_silence_before_a_forged_position_costs_no_inference(
    model: SpotterModel, genuine: list[tuple[int, list[Any]]]
) -> None:
    for offset_ns, fields in genuine:
        try:
            stream = resumed(model, offset_ns, [*fields[:3], 1 << 30, None, [], *fields[6:]])
        except ResumeError:
            continue
        audio = pcm()[:RATE_HZ]
        tracemalloc.start()
        try:
            stream.run(audio, Silence(3600 * RATE_HZ))
            assert tracemalloc.get_traced_memory()[1] < 10_000_000
        finally:
            tracemalloc.stop()
        assert stream.run_steps < 100


def test_a_joined_token_of_very_many_parts_is_not_read() -> None:
    forged = join_tokens([b""] * 1_000_000)
    started_s = time.process_time()
    assert split_token(forged, 2) == [b"", b""]
    assert time.process_time() - started_s < 0.5
    assert split_token(join_tokens([b"one", b"two"]), 2) == [b"one", b"two"]
