"""The page of `earmark web` in a real browser: layout, keyboard, choosers, export."""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import soundfile
from support import tiny_models
from support.paths import DEMO, REPOSITORY
from support.ports import free_port
from support.web_page import SAID, opened, serving, wait_for_status, web, words

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser, Page

BUNDLED_MODEL = REPOSITORY / "server" / "earmark_spotter" / "models" / "default.onnx"


@pytest.mark.slow
def test_every_control_has_a_name_and_works_with_the_keyboard(page: Page) -> None:
    page.get_by_role("button", name="Try a sample").click()  # until then the export buttons are disabled
    wait_for_status(page, "13 detections")
    keywords = page.locator(".keyword label").all_inner_texts()
    page.get_by_label("Model").focus()
    names = ["Model"]
    while names[-1] != f"Threshold of {keywords[-1]}" and len(names) < 100:
        page.keyboard.press("Tab")
        names.append(
            page.evaluate(
                "(e => e.ariaLabel || e.labels?.[0]?.innerText || e.innerText)(document.activeElement)"
            ).strip()
        )
    actions = ["Model", "Listen", "Open a recording", "Try a sample", "Microphone", "Labels", "CSV", "JSON"]
    assert names[: len(actions)] == actions
    assert [name.split()[1] for name in names if name.startswith("Play ")] == SAID
    first = names.index(f"Threshold of {keywords[0]}")
    assert names[first : first + len(keywords)] == [f"Threshold of {keyword}" for keyword in keywords]
    assert "" not in names
    slider = page.get_by_role("slider", name="Threshold of yes")
    before = float(slider.input_value())
    slider.press("ArrowLeft")
    assert float(slider.input_value()) == pytest.approx(before - 0.01, abs=0.006)
    assert slider.get_attribute("aria-valuetext") == f"{float(slider.input_value()):.2f}"
    tree = page.locator("body").aria_snapshot()
    assert re.search(r"status: .*demo\.flac", tree)
    assert page.get_by_role("meter", name="Level of the microphone").count() == 1
    assert page.get_by_role("log", name="Detections").get_attribute("aria-live") == "off"


@pytest.mark.slow
@pytest.mark.parametrize(
    "size", [pytest.param((1280, 800), id="desktop"), pytest.param((390, 844), id="phone")]
)
def test_detections_are_visible_without_scrolling(page: Page, size: tuple[int, int]) -> None:
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.get_by_role("button", name="Listen").click()
    page.locator("#detections li").nth(1).wait_for()
    assert visible_detections(page) == len(words(page))
    page.get_by_role("button", name="Try a sample").click()
    wait_for_status(page, f"demo.flac: 22.9 s, {len(SAID)} detections.")
    assert words(page) == SAID
    assert visible_detections(page) >= 5


def visible_detections(page: Page) -> int:
    """Return the number of detections that are inside the window and inside their list."""
    assert page.evaluate("scrollY") == 0
    return page.evaluate(
        """() => {
          const limit = Math.min(innerHeight, log.getBoundingClientRect().bottom);
          const places = [...detections.children].map(one => one.getBoundingClientRect());
          return places.filter(one => one.top >= 0 && one.bottom <= limit).length;
        }"""
    )


@pytest.mark.slow
def test_nothing_leaves_its_column(page: Page) -> None:
    page.get_by_role("button", name="Try a sample").click()
    wait_for_status(page, f"{len(SAID)} detections")
    page.evaluate(
        """() => document.querySelectorAll("#detections b, .keyword label").forEach(one => {
          one.textContent = "a very long keyword indeed";
        })"""
    )
    for width in (1920, 1280, 1024, 961, 960, 700, 390, 320):
        page.set_viewport_size({"width": width, "height": 800})
        outside = page.evaluate(
            """() => [...document.querySelectorAll("main *, header *")].filter(one => {
              const parent = one.parentElement.getBoundingClientRect(), place = one.getBoundingClientRect();
              const hidden = one.closest(".visually-hidden, #chips, #file") || !place.width;
              return !hidden && (place.right > parent.right + 1 || place.left < parent.left - 1);
            }).map(one => one.outerHTML)"""
        )
        assert outside == [], width
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.slow
def test_detections_are_exported_as_labels_csv_and_json(page: Page) -> None:
    assert page.get_by_role("button", name="CSV").is_disabled()
    page.get_by_role("button", name="Try a sample").click()
    wait_for_status(page, f"{len(SAID)} detections")
    labels = [line.split("\t") for line in exported(page, "Labels", "demo-detections.txt").splitlines()]
    rows = list(csv.DictReader(io.StringIO(exported(page, "CSV", "demo-detections.csv"))))
    document = json.loads(exported(page, "JSON", "demo-detections.json"))
    assert [text.split()[0] for _, _, text in labels] == SAID
    assert [row["keyword"] for row in rows] == SAID
    assert [one["keyword"] for one in document["detections"]] == SAID
    for (start, end, _), row, one in zip(labels, rows, document["detections"], strict=True):
        assert (float(start), float(end)) == (float(row["start_s"]), float(row["end_s"]))
        assert (one["start_s"], one["end_s"]) == pytest.approx((float(start), float(end)), abs=0.001)
        assert one["confidence"] == pytest.approx(float(row["confidence"]), abs=0.0001)
    assert document["recording"] == "demo.flac"
    assert document["audio_s"] == pytest.approx(22.88, abs=0.01)
    assert document["model"] == "earmark-en"
    assert document["model_version"]


def exported(page: Page, button: str, name: str) -> str:
    with page.expect_download() as download:
        page.get_by_role("button", name=button).click()
    assert download.value.suggested_filename == name
    return download.value.path().read_bytes().decode()


@pytest.mark.slow
def test_live_detections_are_exported_with_the_time_at_which_the_stream_began(page: Page) -> None:
    page.get_by_role("button", name="Listen").click()
    page.locator("#detections li").first.wait_for()
    with page.expect_download() as download:
        page.get_by_role("button", name="JSON").click()
    document = json.loads(download.value.path().read_text())
    assert document["detections"]
    assert abs(datetime.now(UTC) - datetime.fromisoformat(document["started_at"])) < timedelta(minutes=2)
    assert re.fullmatch(r"microphone-[\dT-]+-detections.json", download.value.suggested_filename)


@pytest.mark.slow
def test_another_microphone_can_be_chosen_while_listening(page: Page) -> None:
    chooser = page.get_by_label("Microphone", exact=True)
    level = page.get_by_role("meter", name="Level of the microphone")
    assert level.evaluate("one => one.value") == -60
    page.get_by_role("button", name="Listen").click()
    wait_for_status(page, "Listening.")
    page.wait_for_function("() => microphone.length > 1")
    page.wait_for_function("() => level.value > -40")
    page.locator("#detections li").first.wait_for()
    chooser.select_option(index=1)
    page.wait_for_function("() => detections.children.length === 0")
    wait_for_status(page, "Listening.")
    page.locator("#detections li").first.wait_for()
    page.get_by_role("button", name="Stop").click()
    wait_for_status(page, "Ended: ")
    assert chooser.evaluate("one => one.selectedIndex") == 1
    assert level.evaluate("one => one.value") == -60


@pytest.mark.slow
def test_a_chosen_microphone_that_is_gone_is_reported(page: Page) -> None:
    page.evaluate("microphone.add(new Option('Unplugged', 'unplugged', true, true))")
    page.get_by_role("button", name="Listen").click()
    wait_for_status(page, "The chosen microphone is not connected: choose another one")
    assert page.get_by_role("button", name="Listen").is_enabled()


@pytest.mark.slow
def test_another_model_can_be_chosen(chromium: Browser, tiny_model_path: Path) -> None:
    port = free_port()
    with (
        serving(port, "--model", str(BUNDLED_MODEL), "--model", str(tiny_model_path)),
        web("--server", f"127.0.0.1:{port}") as (address, _),
        opened(chromium, address) as page,
    ):
        wait_for_status(page, "Ready")
        chooser = page.get_by_label("Model")
        assert chooser.locator("option").all_inner_texts()[0].startswith("earmark-en ")
        page.get_by_role("button", name="Try a sample").click()
        wait_for_status(page, f"{len(SAID)} detections")
        chooser.select_option(index=1)
        assert page.locator(".keyword label").all_inner_texts() == ["low", "mid", "high"]
        page.wait_for_function("() => !detections.innerText.includes('backward')")
        wait_for_status(page, "demo.flac: 22.9 s")
        page.get_by_role("button", name="Listen").click()
        wait_for_status(page, "Listening.")
        chooser.select_option(index=0)
        page.locator("#detections li", has_text="yes").wait_for()
        page.get_by_role("button", name="Stop").click()
        wait_for_status(page, "Ended: ")
        chooser.select_option(index=1)
        with page.expect_download() as download:  # the detections are those of the other model
            page.get_by_role("button", name="JSON").click()
        assert json.loads(download.value.path().read_text())["model"] == "earmark-en"


@pytest.mark.slow
def test_all_models_can_be_chosen(chromium: Browser, tmp_path: Path) -> None:
    port = free_port()
    models = [str(tiny_models.build(tmp_path, name)) for name in ("tiny", "slow")]
    options = [f"--model={path}" for path in (BUNDLED_MODEL, *models)]
    with (
        serving(port, *options),
        web("--server", f"127.0.0.1:{port}") as (address, _),
        opened(chromium, address) as page,
    ):
        wait_for_status(page, "Ready")
        page.get_by_label("Model").select_option("All models")
        labels = page.locator(".keyword label").all_inner_texts()
        # Keywords that several models have are named with their model.
        assert labels[0] == "yes"
        assert labels[-5:] == ["low (tiny)", "mid (tiny)", "high", "low (slow)", "mid (slow)"]
        page.get_by_role("button", name="Try a sample").click()
        wait_for_status(page, "demo.flac: 22.9 s")
        found = page.locator("#detections li b").all_inner_texts()
        assert [one for one in found if one in SAID] == SAID
        page.get_by_role("slider", name="Threshold of yes").fill("0.999")
        page.get_by_role("slider", name="Threshold of low (slow)").fill("0.99")
        page.wait_for_function("() => !detections.innerText.includes('yes')")
        wait_for_status(page, "demo.flac: 22.9 s")


@pytest.mark.slow
def test_the_javascript_example_of_the_documents_prints_the_detections(page: Page) -> None:
    text = (REPOSITORY / "docs" / "web.md").read_text()
    (example,) = re.findall(r"^```js\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    example = example.replace("localhost:8080", page.url.split("/")[2]).replace("console.log", "report")
    samples, _ = soundfile.read(DEMO, dtype="int16")
    found = page.evaluate(
        """([example, list]) => new Promise(resolve => {
          const found = [], report = (...values) => found.push(values);
          const run = new Function("samples", "report", `${example}; return socket`);
          run(Int16Array.from(list), report).onclose = () => resolve(found);
        })""",
        [example, samples.tolist()],
    )
    assert [one[0] for one in found] == SAID
