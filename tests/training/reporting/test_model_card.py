"""The model card's figures: those of an evaluation, and of the model that it is the card of."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from earmark_spotter import SpotterModel
from earmark_training.errors import ExportError
from earmark_training.reporting.model_card import BEGIN, END, update_card
from earmark_training.reporting.tables import Table

CARD = Path(__file__).parents[3] / "server/earmark_spotter/models/MODEL_CARD.md"


def document(accuracy: float) -> dict[str, Any]:
    """What `evaluate` writes, in small."""
    return {
        "model": "small",
        "version": "2",
        "sha256": "ab" * 32,
        "data": {"what": "some clips", "noise": "none", "seed": 7},
        "thresholds": {"yes": 0.5},
        "figures": {"clip_accuracy": accuracy},
        "speech": {
            "hours": 2.0,
            "utterances": 10,
            "alarms": 3,
            "per_hour": 1.5,
            "alarms_if_excused_anywhere": 1,
            "per_hour_if_excused_anywhere": 0.5,
            "by_keyword": {"yes": 3},
        },
        "sounds": [],
    }


def test_the_figures_are_written_between_the_marks(tmp_path: Path):
    card = tmp_path / "card.md"
    card.write_text(f"# Before\n{BEGIN}\nreplaced\n{END}\nafter\n")
    for accuracy in (0.5, 0.75):
        update_card(card, document(accuracy))
    text = card.read_text()
    assert text.startswith(f"# Before\n{BEGIN}\n\nMeasured by")
    assert text.endswith(f"{END}\nafter\n")
    assert "| `clip_accuracy` | 0.75 |" in text
    assert "| not in the transcript there | 3 | 1.50 |" in text
    assert "| not in the transcript anywhere | 1 | 0.50 |" in text
    assert "| yes | 0.5 |  |  |  | 3 |" in text
    assert "replaced" not in text
    assert "0.5 |\n" not in text.split("by its name")[1]


def test_a_card_without_marks_is_left_alone(tmp_path: Path):
    (tmp_path / "card.md").write_text("# Card\n")
    with pytest.raises(ExportError, match="lacks the lines"):
        update_card(tmp_path / "card.md", document(0.5))
    assert (tmp_path / "card.md").read_text() == "# Card\n"


def test_the_bundled_card_has_the_figures_of_the_bundled_model():
    model, card = SpotterModel.load(), CARD.read_text()
    advice = "run scripts/update_model_card.py with the model's metrics.json"
    assert f"SHA-256 `{model.sha256}`" in card, advice
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \|$", card, re.MULTILINE)
    written = {name: float(value) for name, value in rows}
    assert written == {m.name: pytest.approx(m.value, rel=1e-5) for m in model.metadata.metrics}
    for keyword, info in model.metadata.keywords.items():
        assert f"\n| {keyword} | {info.threshold:.4g} |" in card


def test_a_table_as_text_markdown_and_html():
    table = Table("Title", ("word", "count"), (("_unknown_", "1"), ("a<b", "20")), "so it is")
    assert table.text() == "Title\n  word       count\n  _unknown_      1\n  a<b           20\n  (so it is)"
    assert table.markdown() == (
        "**Title**\n\n| word | count |\n| --- | ---: |\n| \\_unknown\\_ | 1 |\n| a<b | 20 |\n\nSo it is."
    )
    assert "<td>a&lt;b</td><td>20</td>" in table.html()


def test_the_readme_has_the_figures_of_the_bundled_model():
    readme = (CARD.parents[3] / "README.md").read_text()
    figures = {figure.name: figure.value for figure in SpotterModel.load().metadata.metrics}
    rows = re.findall(r"^\| (clean|noise, .*) \| ([\d.]+%) \| (.+) \|$", readme, re.MULTILINE)
    found = {name: (recall, false_alarms) for name, recall, false_alarms in rows}
    clean, noisy = figures["false_alarms_per_hour"], figures["false_alarms_per_hour_10db"]
    assert found == {
        "clean": (f"{figures['stream_found_clean']:.1%}", f"{clean:.1f}"),
        "noise, 20 dB SNR": (f"{figures['stream_found_20db']:.1%}", "not measured"),
        "noise, 10 dB SNR": (f"{figures['stream_found_10db']:.1%}", f"{noisy:.1f}"),
        "noise, 5 dB SNR": (f"{figures['stream_found_5db']:.1%}", "not measured"),
        "noise, 0 dB SNR": (f"{figures['stream_found_0db']:.1%}", "not measured"),
    }
    assert f"is {figures['clip_accuracy']:.1%} over 18 classes" in readme
    assert f"decided {figures['delay_ms']:.0f} ms (median)" in readme
