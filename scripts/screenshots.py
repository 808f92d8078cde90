"""Take the pictures of the page that docs/ has: `python scripts/screenshots.py`, then look at them.

Needs Debian's chromium; its microphone is the bundled recording.
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
DESKTOP, TELEPHONE = (1100, 940), (390, 844)
_WITHIN_MS = 60_000


def main() -> None:
    """Take them all."""
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("no browser: on Debian, apt install chromium")
    with tempfile.TemporaryDirectory() as folder:
        microphone = Path(folder) / "microphone.wav"
        soundfile.write(microphone, *soundfile.read(DEMO), subtype="PCM_16")
        command = [sys.executable, "-m", "earmark_cli", "web", "--port", "0"]
        with (
            subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server,
            sync_playwright() as drive,
        ):
            address = server.stderr.readline().split()[5]
            browser = drive.chromium.launch(
                executable_path=chromium,
                args=[
                    "--no-sandbox",
                    "--use-fake-ui-for-media-stream",
                    "--use-fake-device-for-media-stream",
                    f"--use-file-for-fake-audio-capture={microphone}",
                ],
            )
            for scheme in ("light", "dark"):
                for size, of in ((DESKTOP, ""), (TELEPHONE, "-telephone")):
                    page = open_page(browser, address, size, scheme)
                    listening(page)
                    page.screenshot(path=ROOT / f"docs/web-listening{of}-{scheme}.png")
                    page.locator("#file").set_input_files(DEMO)
                    page.locator("#detections button").nth(12).wait_for(timeout=_WITHIN_MS)
                    page.screenshot(path=ROOT / f"docs/web-recording{of}-{scheme}.png")
                    page.close()
            browser.close()
            server.terminate()


def open_page(browser: Browser, address: str, size: tuple[int, int], scheme: str) -> Page:
    """Open the page."""
    page = browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
    page.goto(address)
    return page


def listening(page: Page) -> None:
    """Press the button and wait for seven words."""
    page.get_by_role("button", name="Listen").click()
    page.locator("#detections li").nth(6).wait_for(timeout=_WITHIN_MS)


if __name__ == "__main__":
    main()
