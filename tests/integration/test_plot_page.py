"""The page of `earmark plot` in a real browser: it draws, and its cursor follows the sound."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest
from support.paths import DEMO

if TYPE_CHECKING:
    from pathlib import Path

HERE = "http://127.0.0.1"

PROBE = """<script>
addEventListener("load", async () => {
  const wait = name => new Promise(done => sound.addEventListener(name, done, {once: true}));
  const seen = {length: sound.duration, curves: +plot.dataset.drawn};
  seen.left_at_0 = parseFloat(cursor.style.left);
  const ink = () => canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data
    .reduce((sum, value, i) => sum + (i % 4 == 3 && value > 0), 0) / canvas.width / canvas.height;
  seen.ink = ink();
  document.querySelectorAll("#detections button")[4].click();
  seen.at = sound.currentTime;
  await wait("seeked");
  seen.left = parseFloat(cursor.style.left);
  while (sound.currentTime < seen.at + 0.2) await wait("timeupdate");
  sound.pause();
  await new Promise(requestAnimationFrame);
  seen.left_later = parseFloat(cursor.style.left);
  seen.whole = [from, to];
  $("in").click(); $("in").click();
  seen.zoomed = [from, to];
  fetch("http://127.0.0.1:PORT/", {method: "POST", mode: "no-cors", body: JSON.stringify(seen)});
});
</script>"""


@pytest.mark.slow
def test_the_page_draws_plays_and_moves_its_cursor(tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no browser: on Debian, install chromium")
    page = tmp_path / "page.html"
    command = [sys.executable, "-m", "earmark_cli", "plot", str(DEMO), "-o", str(page)]
    subprocess.run(command, capture_output=True, timeout=60, check=True)
    reported: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            reported.put(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Listener) as listener:
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        # The only change is a script that reports what the page draws.
        text = page.read_text()
        assert "media-src data:" in text
        text = text.replace("media-src data:", f"media-src data:; connect-src {HERE}:{listener.server_port}")
        page.write_text(text.replace("</html>", PROBE.replace("PORT", str(listener.server_port)) + "</html>"))
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-audio-output"]
        arguments += ["--autoplay-policy=no-user-gesture-required", "--remote-debugging-port=0"]
        with subprocess.Popen(
            [chromium, *arguments, f"--user-data-dir={tmp_path / 'browser'}", page.as_uri()],
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as browser:
            try:
                seen = json.loads(reported.get(timeout=60))
            finally:
                os.killpg(browser.pid, signal.SIGKILL)
                listener.shutdown()
    assert seen["length"] == pytest.approx(22.88, abs=0.01)
    assert seen["curves"] == 13
    assert seen["ink"] > 0.15
    # "left" is spoken at 8.01 s; playback starts a moment before.
    assert seen["at"] == pytest.approx(7.7, abs=0.1)
    assert seen["left_at_0"] < seen["left"] < seen["left_later"]
    assert seen["whole"] == [0, 22.88]
    assert seen["zoomed"][1] - seen["zoomed"][0] == pytest.approx(22.88 / 4)
    assert seen["zoomed"][0] < seen["at"] < seen["zoomed"][1]
