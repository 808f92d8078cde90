from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from earmark_spotter import SpotterModel
from earmark_training.errors import ExportError
from earmark_training.reporting.model_card import BEGIN, END, update_card

CARD = Path(__file__).parents[3] / "server/earmark_spotter/models/MODEL_CARD.md"


def document(accuracy: float) -> dict[str, Any]:
    """Return a small document as `evaluate` returns it."""
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


def test_results_are_written_between_the_markers(tmp_path: Path):
    card = tmp_path / "card.md"
    card.write_text(f"# Before\n{BEGIN}\nreplaced\n{END}\nafter\n")
    for accuracy in (0.5, 0.75):
        update_card(card, document(accuracy))
    text = card.read_text()
    assert text.startswith(f"# Before\n{BEGIN}\n\nMeasured by")
    assert text.endswith(f"{END}\nafter\n")
    assert "| `clip_accuracy` | 0.75 |" in text
    assert "| not in the transcript at that place | 3 | 1.50 |" in text
    assert "| not in the transcript at all | 1 | 0.50 |" in text
    assert "| yes | 0.5 |  |  |  | 3 |" in text
    assert "replaced" not in text
    assert "0.5 |\n" not in text.split("Metrics in the model file")[1]


def test_a_card_without_markers_is_rejected_and_not_changed(tmp_path: Path):
    (tmp_path / "card.md").write_text("# Card\n")
    with pytest.raises(ExportError, match="has no markers"):
        update_card(tmp_path / "card.md", document(0.5))
    assert (tmp_path / "card.md").read_text() == "# Card\n"


def test_the_card_of_the_bundled_model_has_its_metrics():
    model, card = SpotterModel.load(), CARD.read_text()
    advice = "run scripts/update_model_card.py with the model's metrics.json"
    assert f"SHA-256 `{model.sha256}`" in card, advice
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \|$", card, re.MULTILINE)
    written = {name: float(value) for name, value in rows}
    assert written == {m.name: pytest.approx(m.value, rel=1e-5) for m in model.metadata.metrics}
    for keyword, info in model.metadata.keywords.items():
        assert f"\n| {keyword} | {info.threshold:.4g} |" in card


def test_the_readme_has_the_figures_of_the_card_and_the_model():
    readme = (CARD.parents[3] / "README.md").read_text()
    rows = re.findall(r"^\| (\w.*?)(?: SNR)? \| ([\d.]+%) \| ([\d.]+) \|$", readme, re.MULTILINE)
    assert [name for name, *_ in rows][:2] == ["clean", "noise, 20 dB"]
    card = CARD.read_text()
    for name, recall, false_alarms in rows:
        row = rf"^\| {name} \| \d+ of \d+ \| {recall} \| [^|]* \| \d+ in 2\.33 h \| ([\d.]+) \|"
        measured = re.search(row, card, re.MULTILINE)
        assert measured, name
        assert f"{float(measured[1]):.1f}" == false_alarms
    metrics = {metric.name: metric.value for metric in SpotterModel.load().metadata.metrics}
    assert f"is {metrics['clip_accuracy']:.1%} over 20 classes" in readme
    assert f"decided {metrics['delay_ms']:.0f} ms (median)" in readme
