"""The events of a session depend neither on the chunks of the audio nor on the engine's batches."""

from __future__ import annotations

import itertools
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from earmark_server.inference.events import ClipScores, Event, Finished, Progress, Scores
from earmark_server.inference.pending_audio import End, Silence
from earmark_server.inference.session import ClassificationSession, Session, SpottingSession
from earmark_spotter import (
    AudioFormat,
    Detection,
    Encoding,
    ResumePoint,
    Spotter,
    SpotterModel,
    classify,
    resolve_settings,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from support import tiny_model
from support.server_rig import WORDS, pcm

if TYPE_CHECKING:
    from pathlib import Path

FORMAT = AudioFormat(Encoding.LINEAR16, 16_000)
DATA = pcm()


@pytest.fixture(autouse=True, scope="module")
def _model_file(tiny_model_path: Path) -> None:
    model.path = tiny_model_path  # type: ignore[attr-defined]


@cache
def model() -> SpotterModel:
    return SpotterModel.load(model.path)  # type: ignore[attr-defined]


class SessionRunner:
    """Runs a session as the engine does."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.rounds = 0
        self._state = model().initial_states(1)

    def run(self, *limits_s: float) -> list[Event]:
        """Run all that is ready, in rounds of at most `limits_s`, cycled; return the events."""
        events: list[Event] = []
        for limit_s in itertools.cycle(limits_s):
            if steps := self.session.prepare(limit_s):
                scores, self._state = model().step(self.session.consume(steps)[np.newaxis], self._state)
                self.rounds += 1
                events += self.session.apply(scores[0])
            elif self.session.is_quiet:
                events += self.session.skip_quiet()
                self._state = model().initial_states(1)
            else:
                break
        return events


def run_session(session: Session, limits: list[int] | None = None) -> list[Event]:
    """Run all pending audio of a session; `limits`: the limits of the rounds in steps of 20 ms, cycled."""
    return SessionRunner(session).run(*(0.02 * limit for limit in limits or [50]))


def plain(events: list[Event]) -> list[Any]:
    """Convert events to values that can be compared, without the received offset, which depends on timing."""
    found: list[Any] = []
    for event in events:
        match event:
            case Detection():
                found.append((event.id, event.start_sample, event.end_sample))
            case Scores():
                found.append(("scores", event.offset_ns, [round(float(value), 3) for value in event.values]))
            case Progress():
                found.append(("progress", event.progress.decided_offset_ns, event.progress.replay_offset_ns))
            case Finished():
                found.append(("finished", event.audio_ns))
    return found


def spotting(**options: Any) -> SpottingSession:
    return SpottingSession(model(), FORMAT, resolve_settings(model().metadata), **options)


ALL_EVENTS = {"score_interval_ns": 60_000_000, "progress_interval_ns": 250_000_000}


@cache
def in_one_chunk() -> list[Any]:
    session = spotting(**ALL_EVENTS)
    session.pending.append(DATA)
    session.pending.append(End.OF_AUDIO)
    return plain(run_session(session))


def test_a_session_detects_the_same_as_the_library() -> None:
    spotter = Spotter(model())
    expected = [(one.id, one.start_sample, one.end_sample) for one in spotter.feed(DATA) + spotter.flush()]
    assert [one for one in in_one_chunk() if one[0] not in ("scores", "progress", "finished")] == expected
    assert len(expected) == len(WORDS)


@settings(max_examples=40, deadline=None)
@given(
    cuts=st.lists(st.integers(0, len(DATA)), max_size=60),
    limits=st.lists(st.integers(1, 60), min_size=1, max_size=5),
)
def test_events_do_not_depend_on_the_chunks(cuts: list[int], limits: list[int]) -> None:
    session = spotting(**ALL_EVENTS)
    places = [0, *sorted(cuts), len(DATA)]
    for start, stop in itertools.pairwise(places):
        session.pending.append(DATA[start:stop])
    session.pending.append(End.OF_AUDIO)
    assert plain(run_session(session, limits)) == in_one_chunk()
    assert not session.has_pending


@settings(max_examples=40, deadline=None)
@given(cuts=st.lists(st.integers(0, len(DATA)), max_size=80), intervals=st.sampled_from([{}, ALL_EVENTS]))
def test_waiting_until_a_stream_is_due_delays_no_detection_and_no_score(
    cuts: list[int], intervals: dict[str, int]
) -> None:
    def arrivals(*, wait: bool) -> tuple[list[tuple[int, Any]], int]:
        session, found = spotting(**intervals), []
        runner = SessionRunner(session)
        for start, stop in itertools.pairwise([0, *sorted(cuts), len(DATA)]):
            session.pending.append(DATA[start:stop])
            if wait and stop // 2 < session.due_samples:
                continue
            found += [(stop, one) for one in plain(runner.run(1.0)) if one[0] != "progress"]
        return found, runner.rounds

    (at_once, all_runs), (waiting, runs) = arrivals(wait=False), arrivals(wait=True)
    assert waiting == at_once
    assert runs <= all_runs


def test_audio_that_arrives_byte_by_byte() -> None:
    session, events = spotting(**ALL_EVENTS), []
    runner = SessionRunner(session)
    for i in range(len(DATA)):
        session.pending.append(DATA[i : i + 1])
        if i % 1000 == 0:
            events += runner.run(0.14)
    session.pending.append(End.OF_AUDIO)
    events += runner.run(1.0)
    assert plain(events) == in_one_chunk()


def test_audio_is_decoded_only_as_far_as_it_is_consumed() -> None:
    session = spotting()
    session.pending.append(b"\1\0" * 16_000 * 1000)
    assert session.prepare(0.1) == 5
    assert session._state.received_ns <= 0.5e9


def test_silences_add_up() -> None:
    word = tiny_model.tone("mid")
    samples = np.concatenate([np.zeros(8000, np.float32), word, np.zeros(16_000, np.float32)])
    in_full, in_pauses = spotting(), spotting()
    in_full.pending.append(samples)
    for _ in range(8000):
        in_pauses.pending.append(Silence(1))
    in_pauses.pending.append(word)
    in_pauses.pending.append(Silence(10_000))
    in_pauses.pending.append(Silence(6000))
    for session in (in_full, in_pauses):
        session.pending.append(End.OF_AUDIO)
    assert plain(run_session(in_pauses)) == plain(run_session(in_full))


@pytest.mark.parametrize("broken_s", [1.6, 2.35, 3.0])
def test_a_resumed_call_reports_only_events_after_the_resume_point(broken_s: float) -> None:
    session = spotting(**ALL_EVENTS)
    session.pending.append(DATA[: int(broken_s * 32_000)])
    before = run_session(session)
    (event,) = session.progress()
    assert isinstance(event, Progress)
    progress = event.progress
    point = ResumePoint(progress.replay_offset_ns, progress.resume_token)
    resumed = spotting(resume=point, **ALL_EVENTS)
    resumed.pending.append(DATA[progress.replay_offset_ns * 32_000 // 10**9 :])
    resumed.pending.append(End.OF_AUDIO)
    assert plain(before) + plain(run_session(resumed)) == in_one_chunk()


def test_no_scores_or_progress_are_reported_beyond_the_end_of_the_audio() -> None:
    session = spotting(score_interval_ns=20_000_000, progress_interval_ns=100_000_000)
    session.pending.append(DATA[: 2 * 4000])
    session.pending.append(End.OF_AUDIO)
    events = run_session(session)
    offsets = [event.offset_ns for event in events if isinstance(event, Scores)]
    assert offsets == [20_000_000 * i for i in range(1, 13)]
    assert sum(isinstance(event, Progress) for event in events) == 2
    assert isinstance(events[-1], Finished)
    assert session.processed_samples > 4000


@pytest.fixture(scope="module")
def verified(tmp_path_factory: pytest.TempPathFactory) -> SpotterModel:
    path = tmp_path_factory.mktemp("verified") / "verified.onnx"
    return SpotterModel.load(
        tiny_model.build(path, document=tiny_model.VERIFIED_METADATA, verifier=tiny_model.verifier())
    )


@settings(max_examples=20, deadline=None)
@given(
    limits=st.lists(st.integers(1, 60), min_size=1, max_size=5),
    seconds=st.floats(0.001, 2),
    is_verified=st.booleans(),
)
def test_a_clip_gets_the_same_scores_as_from_the_library(
    limits: list[int], seconds: float, is_verified: bool, verified: SpotterModel
) -> None:
    spotter_model = verified if is_verified else model()
    samples = tiny_model.recording([(0.1, "high"), (0.9, "low")], 2)[: round(seconds * 16_000)]
    session = ClassificationSession(
        spotter_model, AudioFormat(Encoding.FLOAT32, 16_000), resolve_settings(spotter_model.metadata)
    )
    session.pending.append(samples)
    session.pending.append(End.OF_AUDIO)
    (event,) = run_session(session, limits)
    assert isinstance(event, ClipScores)
    assert event.values == pytest.approx(classify(spotter_model, samples), abs=1e-4)
    assert not session.progress()
