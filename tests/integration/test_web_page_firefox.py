"""The page of `earmark web` in Firefox, driven by WebDriver BiDi; its microphone is PulseAudio's."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
import soundfile
from support.deadlines import DEADLINE_S
from support.paths import DEMO
from support.web_page import web
from websockets.sync.client import connect

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.virtual_microphone import Microphone
    from websockets.sync.client import ClientConnection

SAID = [one["keyword"] for one in json.loads(DEMO.with_suffix(".json").read_text())["said"] if one["keyword"]]


class Page:
    """A page in Firefox, controlled by WebDriver BiDi."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._id = socket, 0
        self.complaints: list[str] = []
        self.ask("session.new", capabilities={})
        self.ask("session.subscribe", events=["log.entryAdded"])
        self.context = self.ask("browsingContext.getTree")["contexts"][0]["context"]

    def ask(self, method: str, **params: Any) -> Any:
        self._id += 1
        self._socket.send(json.dumps({"id": self._id, "method": method, "params": params}))
        while (reply := json.loads(self._socket.recv(DEADLINE_S))).get("id") != self._id:
            if reply.get("params", {}).get("level") in {"error", "warn"}:
                self.complaints.append(reply["params"]["text"])
        assert reply["type"] == "success", reply
        return reply["result"]

    def value(self, expression: str) -> Any:
        """Return the value of an expression, or a reference to an element; `$` finds an element by its id."""
        target = {"context": self.context}
        expression = expression.replace("$(", "document.getElementById(")
        # As after a key press: a page may not start sound by itself.
        asked = {"awaitPromise": True, "userActivation": True, "resultOwnership": "root"}
        reply = self.ask("script.evaluate", expression=expression, target=target, **asked)
        assert reply["type"] == "success", reply
        return reply["result"] if "sharedId" in reply["result"] else reply["result"].get("value")

    def until(self, expression: str) -> None:
        deadline_s = time.monotonic() + DEADLINE_S
        while not self.value(expression):
            assert time.monotonic() < deadline_s, (expression, self.value("$('status').innerText"))


@pytest.fixture
def page(microphone: Microphone, tmp_path: Path) -> Iterator[Page]:
    firefox = shutil.which("firefox-esr") or shutil.which("firefox")
    if firefox is None:
        pytest.skip("no Firefox: on Debian, apt install firefox-esr")
    (tmp_path / "user.js").write_text('user_pref("media.navigator.permission.disabled", true);\n')
    command = [firefox, "--headless", "--no-remote", "--profile", tmp_path, "--remote-debugging-port", "0"]
    own = {**os.environ, **microphone.own}
    log = tmp_path / "log"
    with (
        log.open("w") as stream,
        subprocess.Popen(command, stdout=stream, stderr=stream, env=own) as browser,
        web() as (address, _),
    ):
        try:
            deadline_s = time.monotonic() + DEADLINE_S
            while not (found := re.search(r"BiDi listening on (ws://\S+)", log.read_text())):
                assert time.monotonic() < deadline_s, log.read_text()
                time.sleep(0.05)
            with connect(f"{found[1]}/session", max_size=None, open_timeout=DEADLINE_S) as socket:
                page = Page(socket)
                page.ask("browsingContext.navigate", context=page.context, url=address, wait="complete")
                yield page
                assert page.complaints == []
        finally:
            browser.kill()


@pytest.mark.slow
def test_firefox_shows_detections_of_speech_and_recordings(page: Page, microphone: Microphone) -> None:
    page.until("$('status').innerText.startsWith('Ready')")
    page.value("$('listen').click()")
    page.until("$('status').innerText.startsWith('Listening.')")
    microphone.play(soundfile.read(DEMO, dtype="int16")[0][:48_000])
    page.until("$('detections').innerText.includes('yes') && $('detections').innerText.includes('no')")
    assert page.value("+$('canvas').dataset.seconds") > 2
    page.until("$('microphone').length > 1")
    page.until("$('level').value > -60")
    page.value("$('listen').click()")
    page.until("$('status').innerText.startsWith('Ended: ')")
    page.ask("input.setFiles", context=page.context, element=page.value("$('file')"), files=[str(DEMO)])
    page.until(f"$('status').innerText.includes('demo.flac: 22.9 s, {len(SAID)} detections.')")
    assert page.value("($('sample').click(), $('status').innerText)").startswith("Loading")
    page.until(f"$('status').innerText.includes('demo.flac: 22.9 s, {len(SAID)} detections.')")
    assert page.value("[...$('detections').querySelectorAll('b')].map(e => e.innerText).join()") == ",".join(
        SAID
    )
