from __future__ import annotations

import io
import os
import subprocess
import sys
import time

import pytest
from earmark_audio import progress as module
from earmark_audio.progress import SILENT, Estimate, Progress

TITLE = "[1 of 2] decoding"


@pytest.fixture(autouse=True)
def no_prior(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PRIOR_S", 1e-9)


def estimate(**expected_s: float) -> Estimate:
    one = Estimate()
    one.plan(expected_s)
    return one


def test_the_estimate_of_the_whole_follows_the_measured_speed():
    one = estimate(first=10, second=30, third=60)
    one.start("first", 0)
    assert one.remaining_s(0.5, 10.0) == pytest.approx(10 + 2 * 90)  # half as fast as expected
    one.finish(20.0)
    one.start("second", 0)
    assert one.remaining_s(0.0, 1.0) == pytest.approx(2.1 * 90, rel=0.01)
    # The second phase is faster: its own rate counts for it, and the mean of both for the third one.
    assert one.remaining_s(0.5, 15.0) == pytest.approx(15 + 35 / 25 * 60)


def test_a_short_first_phase_says_little_about_the_speed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_PRIOR_S", 20.0)
    one = estimate(first=1, second=600)
    one.start("first", 0)
    one.finish(20.0)
    one.start("second", 0)
    assert one.remaining_s(0.0, 0.1) == pytest.approx(600 * 40 / 21, rel=0.01)


def test_there_is_no_estimate_before_anything_was_measured():
    one = estimate(first=10, second=30)
    one.start("first", 0)
    assert one.remaining_s(0.0, 100.0) is None
    assert one.remaining_s(0.01, 0.1) is None


def test_what_was_done_before_the_start_is_no_measurement():
    one = estimate(cached=100, training=100)
    one.start("cached", done_before=1.0)
    one.finish(0.01)
    one.start("training", 0)
    assert one.remaining_s(0.1, 10.0) == pytest.approx(90, rel=0.01)


def test_what_turns_out_to_be_done_before_is_no_measurement_either(monkeypatch: pytest.MonkeyPatch):
    now_s = 100.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now_s)
    progress = Progress(shown=False)
    progress.plan({"training": 100, "writing": 10})
    with progress.phase("training", total=200) as phase:
        now_s += 5.0  # the start of the workers
        phase.skip(80)
        phase.skip(20)
        assert phase.state() == "50%, 0:05, estimating"
        phase.update(50)
        now_s += 20.0
        # 25 s for half of the rest: as much for the other half, and as fast for the next phase.
        assert phase.state() == "75%, 0:25, about 35 s left in all"
        phase.set(200)
        assert phase.share == 1.0


def test_a_phase_outside_the_plan_is_estimated_by_itself():
    one = estimate(first=10)
    one.start("other", 0)
    assert one.remaining_s(0.25, 10.0) == pytest.approx(30)


def test_a_log_file_gets_plain_lines_also_while_an_item_takes_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(module, "_FIRST_LINE_S", 0.1)
    monkeypatch.setattr(module, "_LINE_INTERVAL_S", 0.1)
    monkeypatch.setattr(module, "_LONG_PHASE_S", 0.1)
    monkeypatch.setattr(module, "_MEASURED_S", 0.0)
    with Progress() as progress:
        progress.plan({"decoding": 1, "training": 2})
        for number in progress(range(2), desc="decoding", total=2, unit="files"):
            time.sleep(0.35 if number else 0.0)
    lines = capsys.readouterr().err.splitlines()
    assert "\x1b" not in "".join(lines)
    assert lines[0].startswith(f"{TITLE}: 1 of 2 files, 0:00, about ")
    assert lines[0].endswith(" left in all")
    assert len(lines) >= 3
    assert lines[-1] == f"{TITLE}: 2 files in 0:00"


def test_short_work_prints_nothing_on_a_pipe_and_silent_work_never(capsys: pytest.CaptureFixture[str]):
    assert list(Progress()(range(3), desc="short", total=3, unit="files")) == [0, 1, 2]
    with SILENT.phase("silent", total=1) as phase:
        phase.update()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1, "about 5 s"),
        (44, "about 45 s"),
        (400, "about 7 min"),
        (5000, "about 1 h 25 min"),
        (40_000, "about 11 h"),
    ],
)
def test_an_estimate_is_as_precise_as_it_deserves(seconds: float, text: str):
    assert module._roughly(seconds) == text


PROGRAM = """
import logging, sys, time
from earmark_audio.progress import Progress
with Progress() as progress:
    progress.plan({"decoding": 1, "reading [x]": 1})
    for i in progress(range(8), desc="decoding", total=8, unit="files"):
        time.sleep(0.1)
    with progress.phase("reading [x]", total=10) as phase:
        phase.update(5)
        phase.note = "epoch 2"
        print("a message", file=sys.stderr)
        time.sleep(0.5)
        raise ValueError
"""


def test_a_terminal_gets_a_bar_and_messages_above_it():
    import pty

    import pyte

    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "PYTHONIOENCODING": "utf-8"}
    screens, raw = [], io.BytesIO()
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stderr=slave, env=environment) as process:
        os.close(slave)
        screen = pyte.Screen(100, 24)
        stream = pyte.ByteStream(screen)
        while True:
            try:
                data = os.read(master, 65536)
            except OSError:
                break
            raw.write(data)
            stream.feed(data)
            screens.append("\n".join(line.rstrip() for line in screen.display))
        os.close(master)
        assert process.wait(30) == 1
    assert any("[1 of 2] decoding" in s and "of 8 files" in s for s in screens)
    assert any("a message\n" in s and "[2 of 2] reading [x]" in s and "50%, epoch 2" in s for s in screens)
    last = screens[-1].strip()
    assert "epoch 2" not in last  # the bar is gone
    assert last.endswith("ValueError")
    assert b"\x1b[?25h" in raw.getvalue()  # the cursor is visible again
