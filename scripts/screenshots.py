"""Make the screenshots of the web page in docs/: `python scripts/screenshots.py`. Review them afterwards.

Needs Debian's chromium. The browser's microphone plays the bundled recording.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import soundfile
from playwright.sync_api import sync_playwright

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "client/earmark_cli/samples/demo.flac"
DESKTOP, PHONE = (1280, 800), (390, 844)
_TIMEOUT_MS = 60_000


def main() -> None:
    """Make all screenshots."""
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("chromium is not installed: on Debian, apt install chromium")
    with tempfile.TemporaryDirectory() as folder:
        microphone = Path(folder) / "microphone.wav"
        soundfile.write(microphone, *soundfile.read(DEMO), subtype="PCM_16")
        command = [sys.executable, "-m", "earmark_cli", "web", "--port", "0"]
        with (
            subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server,
            sync_playwright() as playwright,
        ):
            address = server.stderr.readline().split()[5]
            browser = playwright.chromium.launch(
                executable_path=chromium,
                args=[
                    "--no-sandbox",
                    "--use-fake-ui-for-media-stream",
                    "--use-fake-device-for-media-stream",
                    f"--use-file-for-fake-audio-capture={microphone}",
                ],
            )
            for scheme in ("light", "dark"):
                for size, suffix in ((DESKTOP, ""), (PHONE, "-telephone")):
                    page = open_page(browser, address, size, scheme)
                    listen(page)
                    page.screenshot(path=ROOT / f"docs/web-listening{suffix}-{scheme}.png")
                    page.get_by_role("button", name="Try a sample").click()
                    page.get_by_role("button", name="Play ").nth(12).wait_for(timeout=_TIMEOUT_MS)
                    page.screenshot(path=ROOT / f"docs/web-recording{suffix}-{scheme}.png")
                    page.close()
            browser.close()
            server.terminate()


def open_page(browser: Browser, address: str, size: tuple[int, int], scheme: str) -> Page:
    """Return the page in a new browser tab."""
    page = browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
    page.goto(address)
    return page


def listen(page: Page) -> None:
    """Start the microphone, and wait for seven detections."""
    page.get_by_role("button", name="Listen").click()
    page.locator("#detections li").nth(6).wait_for(timeout=_TIMEOUT_MS)


if __name__ == "__main__":
    main()
