"""Ctrl-C while a command uses a server."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

import pytest
from earmark_cli.interrupts import Interrupts
from support.deadlines import DEADLINE_S

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.skipif(os.name == "nt", reason="sends signals")


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def run(interrupts: Interrupts, block: Callable[[], object]) -> None:
    with interrupts:
        block()


@pytest.fixture
def closed() -> threading.Event:
    return threading.Event()


def test_the_client_is_closed_and_the_block_ends_with_the_interrupt(closed: threading.Event) -> None:
    def block() -> None:
        press_ctrl_c()
        # No exception here: the client's calls end with an error of theirs.
        assert closed.wait(DEADLINE_S)
        raise ConnectionError("the client was closed")

    with pytest.raises(KeyboardInterrupt) as raised:
        run(Interrupts(closed.set), block)
    assert isinstance(raised.value.__cause__, ConnectionError)


def test_a_block_that_has_just_ended_is_interrupted_all_the_same(closed: threading.Event) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(Interrupts(closed.set), press_ctrl_c)
    assert closed.is_set()


def test_a_block_that_waits_for_something_else_is_interrupted_in_the_end(closed: threading.Event) -> None:
    read, write = os.pipe()

    def block() -> None:
        threading.Timer(0.1, press_ctrl_c).start()
        os.read(read, 1)

    try:
        with pytest.raises(KeyboardInterrupt):
            run(Interrupts(closed.set), block)
    finally:
        os.close(read)
        os.close(write)
    assert closed.is_set()


def test_the_second_interrupt_does_not_wait_for_the_client() -> None:
    release = threading.Event()

    def block() -> None:
        press_ctrl_c()
        press_ctrl_c()
        pytest.fail("there was no interrupt")

    with pytest.raises(KeyboardInterrupt):
        run(Interrupts(release.wait), block)  # type: ignore[arg-type]
    release.set()


def test_the_first_interrupt_stops_the_source_if_there_is_one(closed: threading.Event) -> None:
    stopped = threading.Event()
    interrupts = Interrupts(closed.set, stop=stopped.set)
    assert not interrupts.happened
    run(interrupts, press_ctrl_c)
    assert interrupts.happened
    assert stopped.is_set()
    assert not closed.is_set()


def test_the_second_interrupt_closes_the_client_if_the_first_stopped_the_source(
    closed: threading.Event,
) -> None:
    def block() -> None:
        press_ctrl_c()
        press_ctrl_c()
        assert closed.wait(DEADLINE_S)

    with pytest.raises(KeyboardInterrupt):
        run(Interrupts(closed.set, stop=lambda: None), block)


def test_other_errors_and_the_handler_before_are_left_alone(closed: threading.Event) -> None:
    before = signal.getsignal(signal.SIGINT)

    def block() -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        run(Interrupts(closed.set), block)
    assert signal.getsignal(signal.SIGINT) is before
    assert not closed.is_set()


def test_an_ignored_interrupt_stays_ignored(closed: threading.Event) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        run(Interrupts(closed.set), press_ctrl_c)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not closed.is_set()
