"""A stream with several models has the events of as many streams of one model, in the order of the audio."""

from __future__ import annotations

import itertools
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from earmark_audio import Notice
from earmark_server.inference.events import Event, Finished, Progress, Scores
from earmark_server.inference.merged_session import MergedLane, MergedSession
from earmark_server.inference.pending_audio import End, Silence
from earmark_server.inference.session import Session, SpottingSession
from earmark_spotter import (
    AudioFormat,
    Detection,
    Encoding,
    ResumeError,
    ResumePoint,
    SpotterModel,
    resolve_settings,
)
from earmark_spotter.resume import split_token
from hypothesis import given, settings
from hypothesis import strategies as st
from support import tiny_model, tiny_models

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from earmark_spotter import StreamProgress

RATES_HZ = (16_000, 44_100)
NAMES = tuple(tiny_models.VARIANTS)
SECONDS = 14
SCORES = {"score_interval_ns": 60_000_000}


@pytest.fixture(autouse=True, scope="module")
def _model_files(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("models")
    model.paths = {name: tiny_models.build(folder, name) for name in NAMES}  # type: ignore[attr-defined]


@cache
def model(name: str) -> SpotterModel:
    return SpotterModel.load(model.paths[name])  # type: ignore[attr-defined]


@cache
def data(rate_hz: int) -> bytes:
    """Return words, pauses that a gate skips, digital silence, and a second that is clipped."""
    words = [(t, word) for t in (0.4, 1.1, 5.9, 7.3, 11.7, 13.9) for word in ("low",)]
    words += [(t, "mid") for t in (0.7, 2.05, 6.2, 10.4)] + [(t, "high") for t in (1.6, 7.31, 12.2)]
    samples = tiny_model.recording(words, SECONDS, rate_hz=rate_hz, noise=1e-3)
    samples[round(8.2 * rate_hz) : round(10.1 * rate_hz)] = 0
    samples[3 * rate_hz : 3 * rate_hz + 2000] = 1
    return (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()


def audio_format(rate_hz: int) -> AudioFormat:
    return AudioFormat(Encoding.LINEAR16, rate_hz)


def alone(name: str, rate_hz: int, **options: Any) -> SpottingSession:
    active = resolve_settings(model(name).metadata)
    return SpottingSession(model(name), audio_format(rate_hz), active, **options)


def merged(
    names: Sequence[str], rate_hz: int, resume: StreamProgress | None = None, **options: Any
) -> MergedSession:
    lanes: list[MergedLane] = []
    for i, name in enumerate(names):
        point = None
        if resume is not None:
            point = ResumePoint(resume.replay_offset_ns, split_token(resume.resume_token, len(names))[i])
        active = resolve_settings(model(name).metadata)
        first = lanes[0] if lanes else None
        lanes.append(
            MergedLane(model(name), audio_format(rate_hz), active, resume=point, first=first, **options)
        )
    return MergedSession(lanes)


class Runner:
    """Runs a session as the engine does."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._states = [lane.model.initial_states(1) for lane in session.lanes]

    def run(self, limit_s: float, runs: Callable[[Any], bool] = lambda _: True) -> list[Event]:
        """Run all that is ready, in rounds of `limit_s` at most, of some lanes; return the events."""
        events: list[Event] = []
        is_done = False
        while not is_done:
            is_done = True
            # The engine prepares all lanes before it runs any.
            work: list[Any] = []
            for i, lane in enumerate(self.session.lanes):
                if not runs(lane):
                    continue
                if steps := lane.prepare(limit_s):
                    if lane.starts_from_initial_state:
                        self._states[i] = lane.model.initial_states(1)
                    work.append((i, lane, lane.consume(steps)))
                elif lane.is_quiet:
                    events += self.session.collect(lane.skip_quiet())
                    is_done = False
            for i, lane, pcm in work:
                scores, self._states[i] = lane.model.step(pcm[np.newaxis], self._states[i])
                events += self.session.collect(lane.apply(scores[0]))
                is_done = False
        return events


def run_whole(session: Session, content: bytes) -> list[Event]:
    session.pending.append(content)
    session.pending.append(End.OF_AUDIO)
    return Runner(session).run(0.5)


def plain(events: Sequence[Event]) -> list[Any]:
    """Convert events to values that can be compared. Progress depends on when audio arrives."""
    found: list[Any] = []
    for event in events:
        match event:
            case Detection():
                place = (event.start_sample, event.end_sample, event.level_dbfs, event.snr_db)
                found.append((event.model, event.id.removeprefix(f"{event.model}/"), *place))
            case Scores():
                found.append((event.model, event.offset_ns, [round(float(one), 3) for one in event.values]))
            case Notice():
                found.append(event)
            case Finished():
                found.append(("finished", event.audio_ns))
    return found


@cache
def expected(name: str, rate_hz: int, with_scores: bool) -> list[Any]:
    """Return the events of one model in a stream of its own."""
    return plain(run_whole(alone(name, rate_hz, **SCORES if with_scores else {}), data(rate_hz)))


@cache
def in_one_chunk(names: tuple[str, ...], rate_hz: int, with_scores: bool) -> list[Any]:
    return plain(run_whole(merged(names, rate_hz, **SCORES if with_scores else {}), data(rate_hz)))


def of_model(events: list[Any], name: str) -> list[Any]:
    return [one for one in events if isinstance(one, tuple) and one[0] == name]


STREAMS = st.tuples(
    st.lists(st.sampled_from(NAMES), min_size=2, max_size=4, unique=True).map(tuple),
    st.sampled_from(RATES_HZ),
    st.booleans(),
)


@settings(max_examples=10, deadline=None)
@given(stream=STREAMS)
def test_each_model_detects_what_it_detects_alone(stream: tuple[tuple[str, ...], int, bool]) -> None:
    names, rate_hz, with_scores = stream
    events = in_one_chunk(names, rate_hz, with_scores)
    for name in names:
        alone_events = expected(name, rate_hz, with_scores)
        assert of_model(events, name) == of_model(alone_events, name)
        assert len(of_model(alone_events, name)) >= 3
    first = [one for one in expected(names[0], rate_hz, with_scores) if isinstance(one, Notice)]
    assert [one for one in events if isinstance(one, Notice)] == first
    assert first
    assert events[-1] == ("finished", SECONDS * 10**9)


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(
    stream=STREAMS,
    sizes=st.lists(st.integers(1500, 60_001), min_size=1, max_size=8),
    limits_s=st.sampled_from([0.2, 0.5, 1.0]),
)
def test_the_order_does_not_depend_on_the_chunks(
    stream: tuple[tuple[str, ...], int, bool], sizes: list[int], limits_s: float
) -> None:
    names, rate_hz, with_scores = stream
    session = merged(names, rate_hz, **SCORES if with_scores else {})
    runner, events = Runner(session), []
    content, start = data(rate_hz), 0
    for size in itertools.cycle(sizes):
        session.pending.append(content[start : start + size])
        start += size
        events += runner.run(limits_s)
        if start >= len(content):
            break
    session.pending.append(End.OF_AUDIO)
    events += runner.run(limits_s)
    assert plain(events) == in_one_chunk(names, rate_hz, with_scores)


def progresses(events: list[Event]) -> list[tuple[int, StreamProgress]]:
    return [(i, one.progress) for i, one in enumerate(events) if isinstance(one, Progress)]


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(
    stream=STREAMS,
    sizes=st.lists(st.integers(1500, 60_001), min_size=1, max_size=8),
    interval_ns=st.sampled_from([10**8, 7 * 10**8, 10**9, 3 * 10**9]),
    drained_after=st.integers(0, 40),
    pick=st.floats(0, 1),
)
def test_a_stream_resumes_from_any_progress(
    stream: tuple[tuple[str, ...], int, bool],
    sizes: list[int],
    interval_ns: int,
    drained_after: int,
    pick: float,
) -> None:
    names, rate_hz, _ = stream
    session = merged(names, rate_hz, progress_interval_ns=interval_ns)
    runner, events = Runner(session), []
    content, start = data(rate_hz), 0
    for count, size in enumerate(itertools.cycle(sizes)):
        session.pending.append(content[start : start + size])
        start += size
        events += runner.run(0.5)
        if count == drained_after:
            events += session.progress()
        if start >= len(content):
            break
    session.pending.append(End.OF_AUDIO)
    events += runner.run(0.5)
    for name in names:
        assert of_model(plain(events), name) == of_model(expected(name, rate_hz, False), name)
    found = progresses(events)
    assert len(found) >= SECONDS * 10**9 // (interval_ns + 10**8) - 2

    place, progress = found[round(pick * (len(found) - 1))]
    resumed = merged(names, rate_hz, progress, progress_interval_ns=interval_ns)
    replay = content[progress.replay_offset_ns * rate_hz // 10**9 * 2 :]
    again = [one for one in run_whole(resumed, replay) if not isinstance(one, Progress)]
    rest = [one for one in events[place:] if not isinstance(one, Progress)]
    for name in names:
        assert of_model(plain(again), name) == of_model(plain(rest), name)
    assert plain(again)[-1] == plain(rest)[-1]


def test_a_progress_is_not_delayed_by_silence() -> None:
    session = merged(("tiny", "slow", "gated"), 16_000, progress_interval_ns=10**9)
    session.pending.append(data(16_000))
    session.pending.append(Silence(3600 * 16_000))
    runner = Runner(session)
    events = runner.run(0.5)
    assert progresses(events)[-1][1].decided_offset_ns > 3600 * 10**9
    assert not any(lane.items for lane in session.lanes)
    assert len(events) < 400


def test_no_lane_is_decoded_far_ahead_of_another() -> None:
    """There is silence that one model skips and the other, with a longer receptive field, does not."""
    pause, sound = np.zeros(1200, "<i2"), np.frombuffer(data(16_000)[:16_000], "<i2")[:400]
    content = b"".join(pause.tobytes() + sound.tobytes() for _ in range(400))
    session = merged(("tiny", "slow"), 16_000)
    session.pending.append(content)
    longest = 0
    for _ in range(4000):
        for lane in session.lanes:
            if steps := lane.prepare(0.2):
                pcm = lane.consume(steps)
                scores, _ = lane.model.step(pcm[np.newaxis], lane.model.initial_states(1))
                session.collect(lane.apply(scores[0]))
            elif lane.is_quiet:
                session.collect(lane.skip_quiet())
        longest = max(
            longest, *(lane.part.ready_steps * lane.model.metadata.step_samples for lane in session.lanes)
        )
    assert longest < 16_000
    assert not session.pending


def test_a_token_of_other_models_is_rejected() -> None:
    session = merged(("tiny", "slow"), 16_000, progress_interval_ns=10**9)
    token = progresses(run_whole(session, data(16_000)))[3][1]
    for names in (("slow", "tiny"), ("tiny", "gated"), ("tiny", "slow", "gated")):
        with pytest.raises(ResumeError):
            merged(names, 16_000, token)
    with pytest.raises(ResumeError):
        alone("tiny", 16_000, resume=ResumePoint(token.replay_offset_ns, token.resume_token))


@given(st.binary(max_size=60), st.integers(2, 4))
def test_splitting_a_token_never_fails(content: bytes, count: int) -> None:
    assert len(split_token(content, count)) == count
    assert len(split_token(b"m1" + content, count)) == count


def arrivals(session: Session, chunk_samples: int) -> dict[Any, int]:
    """Return after which chunk of live audio each detection is released, if lanes run when they are due."""
    runner, content = Runner(session), data(16_000)
    found: dict[Any, int] = {}
    for number, start in enumerate(range(0, len(content), 2 * chunk_samples)):
        session.pending.append(content[start : start + 2 * chunk_samples])
        sent = (number + 1) * chunk_samples

        def runs(lane: Any, sent: int = sent) -> bool:
            return session.due_samples == 0 or sent >= lane.due_samples

        while events := runner.run(0.4, runs):
            for event in events:
                if isinstance(event, Detection):
                    found[event.model, event.id.removeprefix(f"{event.model}/")] = number
    return found


@pytest.mark.parametrize(
    ("names", "longest"), [(("tiny", "slow", "verified"), 0), (("gated", "tiny"), 1), (("slow", "gated"), 1)]
)
def test_a_detection_hardly_waits_for_other_models(names: tuple[str, ...], longest: int) -> None:
    """A gate decides on blocks of 200 ms, which can be longer than the peak hold."""
    together = arrivals(merged(names, 16_000), 1600)
    for name in names:
        for each, number in arrivals(alone(name, 16_000), 1600).items():
            assert together[each] - number <= longest
