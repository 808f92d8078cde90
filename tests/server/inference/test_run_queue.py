"""The run queue: live streams do not wait for those that send faster, and clients share what is left."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
from earmark_server.inference.run_queue import RunQueue
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from earmark_server.inference.engine_slot import EngineSlot


@dataclass
class Slot:
    client: str
    is_live: bool
    queued_s: float = 0.0

    @property
    def handle(self) -> SimpleNamespace:
        return SimpleNamespace(client=self.client, pace=SimpleNamespace(is_live=self.is_live))


def queue(*slots: Slot) -> RunQueue:
    made = RunQueue()
    for slot in slots:
        made.append(cast("EngineSlot", slot))
    return made


def popped(made: RunQueue) -> list[Slot]:
    return [cast("Slot", made.pop()) for _ in range(len(made))]


def test_live_streams_come_before_the_others() -> None:
    fast = [Slot("greedy", is_live=False) for _ in range(250)]
    live = [Slot("other", is_live=True, queued_s=float(i)) for i in range(6)]
    made = queue(*fast, *live)
    assert made.oldest_live_s == 0.0
    assert popped(made) == [*live, *fast]
    assert made.oldest_live_s == float("inf")
    with pytest.raises(IndexError):
        made.pop()


def test_one_in_eight_is_not_live() -> None:
    made = queue(
        *(Slot("a", is_live=True) for _ in range(70)), *(Slot("b", is_live=False) for _ in range(10))
    )
    kinds = [slot.is_live for slot in popped(made)]
    assert kinds == [*([True] * 7 + [False]) * 10]


def test_live_streams_can_be_removed_alone() -> None:
    fast, live = Slot("a", is_live=False), Slot("b", is_live=True)
    made = queue(fast, live)
    assert made.pop_live() is cast("EngineSlot", live)
    assert made.pop_live() is None
    assert popped(made) == [fast]


def test_clients_take_turns() -> None:
    greedy = [Slot("greedy", is_live=False, queued_s=float(i)) for i in range(100)]
    modest = [Slot("modest", is_live=False, queued_s=float(i)) for i in range(3)]
    order = popped(queue(*greedy, *modest))
    assert order[:6] == [greedy[0], modest[0], greedy[1], modest[1], greedy[2], modest[2]]
    assert order[6:] == greedy[3:]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans())))
def test_each_stream_is_removed_once_and_in_the_order_of_its_kind(added: list[tuple[str, bool]]) -> None:
    slots = [Slot(client, live, float(i)) for i, (client, live) in enumerate(added)]
    order = popped(queue(*slots))
    assert sorted(slot.queued_s for slot in order) == [slot.queued_s for slot in slots]
    for kind in {(slot.client, slot.is_live) for slot in slots if not slot.is_live} | {("", True)}:
        times = [slot.queued_s for slot in order if slot.is_live == kind[1] and kind[0] in ("", slot.client)]
        assert times == sorted(times)
