"""`earmark models`."""

from __future__ import annotations

from support.earmark_command import earmark, json_lines


def test_models_are_listed(address: str) -> None:
    done = earmark("models", "--server", address)
    assert done.returncode == 0
    assert done.stdout.startswith("tiny 1.0.0 (default)\n")
    assert "low (0.60), mid (0.60), high (0.60)" in done.stdout
    (line,) = json_lines(earmark("models", "--server", address, "--json").stdout)
    assert list(line) == [
        *("type", "time", "name", "version", "default", "keywords", "labels", "sample_rate_hz", "step_s"),
        *("receptive_field_s", "metrics", "training_sources", "training_commit", "sha256"),
    ]
