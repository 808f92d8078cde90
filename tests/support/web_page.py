"""`earmark web` in a separate process, and a real browser for its page."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from support.paths import DEMO

if TYPE_CHECKING:
    import re
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, BrowserType, Page

WITHIN_MS = 120_000

SAID = [one["keyword"] for one in json.loads(DEMO.with_suffix(".json").read_text())["said"] if one["keyword"]]
"""The keywords in the bundled recording."""


# Drawing sixty frames a second without a graphics card would occupy most of a core.
FEW_FRAMES = "requestAnimationFrame = draw => setTimeout(() => draw(performance.now()), 100)"

# A fake microphone, and the permission to use it.
DEVICE, GRANTED = "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"


@contextmanager
def launched(kind: BrowserType, arguments: set[str]) -> Iterator[Browser]:
    """Run Debian's Chromium with these arguments; skip the test where there is none."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no browser: on Debian, apt install chromium")
    always = ["--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required"]
    browser = kind.launch(executable_path=chromium, args=[*always, *arguments], timeout=WITHIN_MS)
    try:
        yield browser
    finally:
        browser.close()


@contextmanager
def web(*arguments: str | Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run the command; yield the address of the page."""
    command = [sys.executable, "-m", "earmark_cli", "web", "--port", "0", *map(str, arguments)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process.stderr.readline().split()[5], process
        finally:
            process.kill()


@contextmanager
def serving(port: int, *arguments: str) -> Iterator[None]:
    """Run the service on a port; at the end it drains without a grace period."""
    command = [
        sys.executable,
        "-m",
        "earmark_server",
        "--port",
        str(port),
        "--drain-grace-s",
        "0",
        *arguments,
    ]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


@contextmanager
def opened(browser: Browser, address: str) -> Iterator[Page]:
    """Open the page; afterwards no request may have failed or gone to another host."""
    page = browser.new_page()
    page.set_default_timeout(WITHIN_MS)
    page.add_init_script(FEW_FRAMES)
    asked, complaints = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(address)
    yield page
    page.close()
    assert [url for url in asked if not url.startswith((address, "blob:"))] == []
    # The browser also reports that the server is unreachable.
    assert [text for text in complaints if "Failed to load resource" not in text] == []


def wait_for_status(page: Page, text: str | re.Pattern[str]) -> None:
    """Wait until the page's status contains a text."""
    page.locator("#status", has_text=text).wait_for()


def words(page: Page) -> list[str]:
    """Return the entries of the page's list, from its top."""
    return page.locator("#detections b").all_inner_texts()
