from __future__ import annotations

import io
import json
import logging
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from earmark_server import logs

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    root, own = logging.getLogger(), logging.getLogger("earmark_server")
    before = root.handlers[:], root.level, own.level
    yield
    root.handlers[:], level, own_level = before
    root.setLevel(level)
    own.setLevel(own_level)


LOGGER = logging.getLogger("earmark_server.somewhere")


def test_text_is_key_and_value() -> None:
    stream = io.StringIO()
    logs.configure("info", "text", stream)
    logs.log(LOGGER, logging.INFO, "call ended", audio_s=1.5, request_id='a "b" \n c', reason=None, empty="")
    (line,) = stream.getvalue().splitlines()
    assert line.startswith("time=20")
    assert line.endswith('level=info event="call ended" audio_s=1.5 request_id="a \\"b\\" \\n c" empty=""')


def test_json_is_one_object_a_line() -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    logs.log(LOGGER, logging.INFO, "call ended", audio_s=1.5, request_id="a\nb", reason=None)
    try:
        raise ValueError("why")
    except ValueError as error:
        logs.log(LOGGER, logging.ERROR, "internal error", exc_info=error, incident="1234")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first.pop("time").endswith("Z")
    assert first == {"level": "info", "event": "call ended", "audio_s": 1.5, "request_id": "a\nb"}
    assert second["incident"] == "1234"
    assert "ValueError: why" in second["traceback"]


def test_the_level_is_kept_and_libraries_are_quiet() -> None:
    stream = io.StringIO()
    logs.configure("warning", "text", stream)
    logs.log(LOGGER, logging.INFO, "unsaid")
    logging.getLogger("grpc").info("unsaid")
    logging.getLogger("grpc").warning("said")
    (line,) = stream.getvalue().splitlines()
    assert line.endswith("level=warning event=said logger=grpc")


def test_a_worker_writes_each_line_at_once_and_names_itself() -> None:
    code = (
        "import logging; from earmark_server import logs; logs.configure('info', 'json', worker=7);"
        "logs.log(logging.getLogger('earmark_server'), logging.INFO, 'long', value='x' * 50_000)"
    )
    # Here one write is one message.
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        subprocess.run([sys.executable, "-c", code], stderr=theirs, check=True)
        line = json.loads(ours.recv(1 << 20))
    assert (line["event"], line["worker"], len(line["value"])) == ("long", 7, 50_000)
