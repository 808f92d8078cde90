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


MARK = "".join(["what a", " client sent"])
"""Not as it stands in any source line, which a traceback may show."""

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
    assert "in test_json_is_one_object_a_line" in second["traceback"]
    assert second["traceback"].endswith("builtins.ValueError")


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_traceback_tells_where_and_what_kinds_of_errors_but_not_their_texts(form: str) -> None:
    stream = io.StringIO()
    logs.configure("info", form, stream)
    try:
        try:
            raise ValueError(MARK)
        except ValueError as cause:
            cause.add_note(MARK)
            raise RuntimeError([MARK]) from cause
    except RuntimeError as error:
        logs.log(LOGGER, logging.ERROR, "internal error", exc_info=error)
        # As a library would.
        logging.getLogger("library").exception("failed")
    said = stream.getvalue()
    assert MARK not in said
    assert said.count("builtins.RuntimeError") == said.count("builtins.ValueError") == 2
    assert said.count("in test_a_traceback_tells") == 4


def test_what_nobody_catches_is_logged_in_the_same_way() -> None:
    code = (
        "import asyncio, threading, sys; from earmark_server import logs; logs.configure('info', 'json')\n"
        "def fail(what): raise ValueError(what)\n"
        "async def main():\n"
        "    loop = asyncio.get_running_loop()\n"
        "    logs.log_what_nobody_catches(loop)\n"
        "    loop.call_soon(fail, sys.argv[1])\n"
        "    await asyncio.to_thread(lambda: None)\n"
        "    thread = threading.Thread(target=fail, args=[sys.argv[1]]); thread.start(); thread.join()\n"
        "    fail(sys.argv[1])\n"
        "asyncio.run(main())"
    )
    done = subprocess.run([sys.executable, "-c", code, MARK], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert MARK not in done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["uncaught error"] * 3
    assert all("in fail" in line["traceback"] for line in lines)


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
