"""`earmark models`."""

from __future__ import annotations

import re

from support.earmark_command import earmark, json_lines


def test_a_model_is_described_in_three_lines(address: str) -> None:
    done = earmark("models", "--server", address)
    assert done.returncode == 0
    keywords, _, data = done.stdout.splitlines()
    assert keywords == "tiny 1.0.0 (default): low (0.60), mid (0.60), high (0.60)"
    assert "trained on " in data


def test_recall_and_false_alarms_of_the_bundled_model_stand_side_by_side() -> None:
    keywords, figures, data = earmark("models").stdout.splitlines()
    assert keywords.startswith("earmark-en ")
    assert re.fullmatch(
        r"  in clean speech [\d.]+% recall with [\d.]+ false alarms per hour; "
        r"in noise at 10 dB SNR [\d.]+% recall with [\d.]+ false alarms per hour",
        figures,
    )
    assert "Speech Commands" in data


def test_the_details_of_a_model(address: str) -> None:
    done = earmark("models", "--server", address, "--details")
    assert "SHA-256 " in done.stdout
    assert "receptive field 0.07 s" in done.stdout


def test_a_model_as_json(address: str) -> None:
    (line,) = json_lines(earmark("models", "--server", address, "--json").stdout)
    assert list(line) == [
        *("type", "time", "name", "version", "default", "keywords", "labels", "sample_rate_hz", "step_s"),
        *("receptive_field_s", "metrics", "training_sources", "training_commit", "sha256", "verified"),
    ]
