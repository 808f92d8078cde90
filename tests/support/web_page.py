"""`earmark web` in a process of its own, and a real browser to look at its page with."""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, BrowserType, Page

WITHIN_MS = 60_000


# A microphone that is none, and an answer to the question whether the page may have it.
DEVICE, GRANTED = "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"


@contextmanager
def launched(kind: BrowserType, arguments: set[str]) -> Iterator[Browser]:
    """Run Debian's Chromium with these arguments; the test is skipped where there is none."""
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
    """Run the command; gives the page's address."""
    command = [sys.executable, "-m", "earmark_cli", "web", "--port", "0", *map(str, arguments)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process.stderr.readline().split()[5], process
        finally:
            process.kill()


@contextmanager
def serving(port: int) -> Iterator[None]:
    """Run the service there; at the end it leaves its streams at once."""
    command = [sys.executable, "-m", "earmark_server", "--port", str(port), "--drain-grace-s", "0"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


@contextmanager
def opened(browser: Browser, address: str) -> Iterator[Page]:
    """Open the page; afterwards nothing must have been refused, or asked of another host."""
    page = browser.new_page()
    page.set_default_timeout(WITHIN_MS)
    asked, complaints = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(address)
    yield page
    page.close()
    assert [url for url in asked if not url.startswith((address, "blob:"))] == []
    # That the server is away, the browser tells too.
    assert [text for text in complaints if "Failed to load resource" not in text] == []


def says(page: Page, text: str) -> None:
    """Wait until the page says that all is so."""
    page.locator("#status", has_text=text).wait_for()


def words(page: Page) -> list[str]:
    """What the page's list has, from its top."""
    return page.locator("#detections b").all_inner_texts()
