"""The option --model, given several times."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from earmark_server.embedded import serve_in_thread
from support import tiny_models
from support.earmark_command import earmark, json_lines
from support.environment import ADMIT_ALWAYS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BOTH = ("--model", "tiny", "--model", "slow")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("models")
    paths = tuple(str(tiny_models.build(folder, name)) for name in ("tiny", "slow"))
    with serve_in_thread(model=paths, **ADMIT_ALWAYS) as address:
        yield address


def test_text_names_the_model_of_each_keyword(address: str, recording: Path) -> None:
    done = earmark("spot", recording, "--server", address, *BOTH)
    assert (done.returncode, done.stderr) == (0, "")
    *detections, summary = done.stdout.splitlines()
    words = [line.split("s  ")[-1].rsplit(maxsplit=1)[0].strip() for line in detections]
    assert sorted(words) == ["high (tiny)", "low (slow)", "low (tiny)", "mid (slow)", "mid (tiny)"]
    assert "5 detections" in summary


def test_json_names_the_models(address: str, recording: Path) -> None:
    done = earmark("spot", recording, "--server", address, "--json", *BOTH)
    started, *detections, _ = json_lines(done.stdout)
    assert [one["name"] for one in started["models"]] == ["tiny", "slow"]
    assert {(one["model"], one["keyword"]) for one in detections} == {
        *(("tiny", word) for word in ("low", "mid", "high")),
        *(("slow", word) for word in ("low", "mid")),
    }


def test_keywords_and_thresholds_of_several_models(address: str, recording: Path) -> None:
    options = ("--keyword", "slow/low=0.7", "--keyword", "high", "--threshold", "0.65")
    done = earmark("spot", recording, "--server", address, "--json", *BOTH, *options)
    keywords = json_lines(done.stdout)[0]["keywords"]
    assert [(one["model"], one["keyword"], one["threshold"]) for one in keywords] == [
        ("tiny", "high", 0.65),
        ("slow", "low", 0.7),
    ]
    done = earmark("spot", recording, "--server", address, "--json", *BOTH, "--threshold", "0.65")
    keywords = json_lines(done.stdout)[0]["keywords"]
    assert len(keywords) == 5
    assert {one["threshold"] for one in keywords} == {0.65}


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("spot", "--model", "tiny", "--model", "nosuch"), 1, "has no model 'nosuch'"),
        (("spot", "--model", "tiny", "--model", "tiny"), 1, "the model tiny twice"),
        (("spot", *BOTH, "--keyword", "high"), 1, "no keyword of the model slow"),
        (("spot", *BOTH, "--keyword", "slow/high"), 1, "'high' is not among the keywords of slow"),
        (("classify", *BOTH), 2, "this command has one model: give the option once"),
        (("plot", *BOTH), 2, "this command has one model: give the option once"),
    ],
)
def test_what_cannot_be_meant(
    address: str, recording: Path, options: tuple[str, ...], code: int, message: str
) -> None:
    done = earmark(*options, recording, "--server", address)
    assert done.returncode == code
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
