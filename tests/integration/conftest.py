"""Fixtures of the integration tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page
    from support.virtual_microphone import Microphone


@pytest.fixture
def microphone() -> Iterator[Microphone]:
    from support.virtual_microphone import plugged_in

    with plugged_in() as microphone:
        yield microphone


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """The browser's microphone is the bundled recording in a loop."""
    import soundfile
    from playwright.sync_api import sync_playwright
    from support.paths import DEMO
    from support.web_page import DEVICE, GRANTED, launched

    microphone = tmp_path_factory.mktemp("browser") / "microphone.wav"
    soundfile.write(microphone, *soundfile.read(DEMO), subtype="PCM_16")
    with (
        sync_playwright() as drive,
        launched(drive.chromium, {GRANTED, DEVICE, f"--use-file-for-fake-audio-capture={microphone}"}) as one,
    ):
        yield one


@pytest.fixture(scope="module")
def web_address() -> Iterator[str]:
    """The address of the page of `earmark web`, with a server inside its process."""
    from support.web_page import web

    with web() as (address, _):
        yield address


@pytest.fixture
def page(chromium: Browser, web_address: str) -> Iterator[Page]:
    """The page, ready, in a tab of its own."""
    from support.web_page import opened, wait_for_status

    with opened(chromium, web_address) as page:
        wait_for_status(page, "Ready")
        yield page
