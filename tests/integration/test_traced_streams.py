"""The spans of a stream whose connection breaks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from earmark_client import Detection, Resumed, Started
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, use_span
from support.cutting_proxy import CuttingProxy
from support.observed_streams import Stream, assert_same_events, demo, run, run_undisturbed
from support.restartable_server import RestartableServer
from support.trace_collector import Collector, attributes

if TYPE_CHECKING:
    from earmark_client import Event

PARENT = SpanContext(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, True, TraceFlags(1))


@pytest.mark.slow
@pytest.mark.parametrize("flavour", ["async", "sync"])
def test_the_span_of_a_resumed_stream_is_linked_to_the_one_that_broke(
    flavour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunks = demo()
    with Collector() as collector:
        for name, value in collector.environment.items():
            monkeypatch.setenv(name, value)
        with RestartableServer(None, "--traces") as server, CuttingProxy(server.port) as proxy:
            expected = run_undisturbed(server.address, chunks)
            alone = collector.next()
            assert (alone.parent_span_id, len(alone.links)) == (b"", 0)
            stream = Stream(chunks, speed=8.0)

            def cut(event: Event) -> None:
                if isinstance(event, Detection) and len(stream.of(Detection)) in (2, 5):
                    proxy.cut()

            stream.on_event = cut
            if flavour == "async":
                with use_span(NonRecordingSpan(PARENT)):
                    run(flavour, proxy.address, [stream])
            else:
                run(flavour, proxy.address, [stream])
            spans = [collector.next() for _ in range(3)]
    assert_same_events(stream, expected)
    assert len(stream.of(Resumed)) == 2
    (started,) = stream.of(Started)
    assert isinstance(started, Started)
    assert {attributes(span)["earmark.request_id"] for span in spans} == {started.request_id}
    first, second, third = sorted(spans, key=lambda span: span.start_time_unix_nano)
    assert not first.links
    for broken, resumed in ((first, second), (second, third)):
        (link,) = resumed.links
        assert (link.trace_id, link.span_id) == (broken.trace_id, broken.span_id)
    if flavour == "async":
        # Threads do not inherit the current span; tasks do.
        assert {span.trace_id for span in spans} == {PARENT.trace_id.to_bytes(16)}
        assert {span.parent_span_id for span in spans} == {PARENT.span_id.to_bytes(8)}
