"""The page of `earmark web` in a real browser with a recording as its microphone."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
import soundfile
from support.paths import DEMO
from support.ports import free_port
from support.web_page import DEVICE, GRANTED, SAID, launched, opened, serving, wait_for_status, web, words

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser, Page


def test_spoken_keywords_appear_in_the_page(page: Page) -> None:
    page.get_by_role("button", name="Listen").click()
    wait_for_status(page, "Listening.")
    page.locator("#detections li", has_text="yes").wait_for()
    page.locator("#chips .chip", has_text="yes").wait_for()
    assert [word for word in reversed(words(page)) if word in {"no", "yes"}][:2] == ["no", "yes"]
    seconds = float(page.locator("#canvas").get_attribute("data-seconds"))
    assert seconds > 2
    page.get_by_role("button", name="Stop").click()
    wait_for_status(page, "Ended: ")
    assert page.get_by_role("button", name="Listen").is_enabled()


@pytest.mark.slow
def test_a_threshold_moved_during_speech_applies_at_once(page: Page) -> None:
    page.get_by_role("button", name="Listen").click()
    wait_for_status(page, "Listening.")
    # Its score is 0.87 where it is spoken, after seven seconds.
    page.get_by_role("slider", name="Threshold of go").press("End")
    page.locator("#detections li", has_text="left").first.wait_for()
    assert "stop" in words(page)
    assert "go" not in words(page)


@pytest.mark.slow
def test_a_recording_shows_its_detections_and_plays_from_each_of_them(page: Page) -> None:
    page.locator("#file").set_input_files(DEMO)
    wait_for_status(page, f"demo.flac: 22.9 s, {len(SAID)} detections.")
    assert words(page) == SAID
    page.get_by_role("button", name="Play left").click()
    page.wait_for_function("() => sound.currentTime > 8.1")
    left = page.evaluate("new DOMMatrix(cursor.style.transform).e / plot.clientWidth")
    assert left == pytest.approx(8.1 / 22.88, abs=0.1)
    page.evaluate("sound.pause()")
    page.get_by_role("button", name="Zoom in").click()
    page.locator("#plot").click(position={"x": 1, "y": 100})
    page.wait_for_function("() => sound.currentTime < 8")


@pytest.mark.slow
def test_a_recording_is_processed_again_with_other_thresholds(page: Page) -> None:
    page.locator("#file").set_input_files(DEMO)
    wait_for_status(page, f"{len(SAID)} detections")
    page.get_by_role("slider", name="Threshold of go").press("End")
    wait_for_status(page, f"{len(SAID) - 1} detections")
    assert "go" not in words(page)
    page.get_by_role("button", name="Reset thresholds").click()
    wait_for_status(page, f"{len(SAID)} detections")
    assert words(page) == SAID


@pytest.mark.slow
def test_a_threshold_that_changes_just_before_an_analysis_ends_applies(page: Page) -> None:
    page.evaluate(
        """() => {
          const slider = document.getElementById("threshold-go");
          const Real = WebSocket;
          window.WebSocket = class extends Real {
            set onmessage(receive) {
              super.onmessage = message => {
                if (JSON.parse(message.data).event === "ended" && slider.value < 0.999) {
                  slider.value = 0.999;
                  slider.oninput();
                }
                receive(message);
              };
            }
          };
        }"""
    )
    page.locator("#file").set_input_files(DEMO)
    wait_for_status(page, f"{len(SAID) - 1} detections")
    assert "go" not in words(page)


@pytest.mark.slow
def test_a_recording_can_be_dropped(page: Page) -> None:
    data = page.evaluate_handle(
        """bytes => {
          const data = new DataTransfer();
          data.items.add(new File([Uint8Array.from(bytes)], "dropped.flac"));
          return data;
        }""",
        list(DEMO.read_bytes()),
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": data})
    wait_for_status(page, f"dropped.flac: 22.9 s, {len(SAID)} detections.")


@pytest.mark.slow
def test_other_formats_are_opened(page: Page, tmp_path: Path) -> None:
    speech, rate_hz = soundfile.read(DEMO)
    for suffix in ("wav", "ogg", "mp3"):
        path = tmp_path / f"speech.{suffix}"
        soundfile.write(path, speech, rate_hz)
        page.locator("#file").set_input_files(path)
        wait_for_status(page, re.compile(rf"speech\.{suffix}: 2\d\.\d s, {len(SAID)} detections"))


def test_channels_that_cancel_each_other_are_noticed(page: Page, tmp_path: Path) -> None:
    speech, rate_hz = soundfile.read(DEMO)
    soundfile.write(tmp_path / "opposite.wav", np.stack([speech, -speech], axis=1), rate_hz)
    page.locator("#file").set_input_files(tmp_path / "opposite.wav")
    wait_for_status(page, re.compile("0 detections.*The channels cancel each other"))


@pytest.mark.slow
def test_a_file_that_is_not_a_recording_is_reported(page: Page, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("no sound")
    page.locator("#file").set_input_files(path)
    wait_for_status(page, "notes.txt is not a recording")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("without", "status"),
    [
        (GRANTED, "The browser blocks the microphone: allow it for this page"),
        (DEVICE, "There is no microphone: connect one"),
    ],
)
def test_a_page_without_a_microphone_states_the_remedy(
    chromium: Browser, web_address: str, without: str, status: str
) -> None:
    with (
        launched(chromium.browser_type, {GRANTED, DEVICE} - {without}) as other,
        opened(other, web_address) as page,
    ):
        wait_for_status(page, "Ready")
        page.get_by_role("button", name="Listen").click()
        wait_for_status(page, status)
        assert page.get_by_role("button", name="Listen").is_enabled()


@pytest.mark.slow
def test_a_page_without_tls_reports_that_there_is_no_microphone(chromium: Browser) -> None:
    led_here = {"--host-resolver-rules=MAP kws.example.org 127.0.0.1"}
    with (
        web("--name", "kws.example.org") as (address, _),
        launched(chromium.browser_type, led_here) as other,
        opened(other, address.replace("127.0.0.1", "kws.example.org")) as page,
    ):
        wait_for_status(
            page,
            "Browsers allow the microphone only on localhost and over https",
        )
        assert page.get_by_role("button", name="Listen").is_disabled()
        page.locator("#file").set_input_files(DEMO)
        wait_for_status(page, f"{len(SAID)} detections")


@pytest.mark.slow
def test_the_page_shows_when_its_server_stops_and_returns(chromium: Browser) -> None:
    port = free_port()
    with web("--server", f"127.0.0.1:{port}") as (address, process), opened(chromium, address) as page:
        wait_for_status(page, "No server: no Earmark server answers at")
        assert page.get_by_role("button", name="Listen").is_disabled()
        with serving(port):
            wait_for_status(page, "Ready")
            page.get_by_role("button", name="Listen").click()
            wait_for_status(page, "Listening.")
            page.locator("#detections li").first.wait_for()
        wait_for_status(page, "Reconnecting: ")
        count = len(words(page))
        with serving(port):
            wait_for_status(page, "Resumed after ")
            page.wait_for_function(f"() => detections.children.length > {count}")
            process.kill()
            wait_for_status(page, "is earmark web still running?")


@pytest.mark.slow
def test_the_page_says_what_to_do_when_its_server_returns_with_another_model(
    chromium: Browser, tiny_model_path: Path
) -> None:
    port = free_port()
    with web("--server", f"127.0.0.1:{port}") as (address, _), opened(chromium, address) as page:
        with serving(port):
            wait_for_status(page, "Ready")
            page.get_by_role("button", name="Listen").click()
            wait_for_status(page, "Listening.")
        with serving(port, "--model", str(tiny_model_path)):
            wait_for_status(page, "The server has another model now: save the detections if you need them")
