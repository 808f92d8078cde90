"""Models for streams of several: the tiny model under other names, with other steps, settings and rates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from support import tiny_model

if TYPE_CHECKING:
    from pathlib import Path

VARIANTS: dict[str, dict[str, Any]] = {
    # The tiny model itself.
    "tiny": {},
    # Longer steps, a longer peak hold and receptive field, fewer keywords.
    "slow": {
        "step_samples": 1600,
        "receptive_field_samples": 24_000,
        "detector": {"hold_ms": 240, "separation_ms": 100},
        "keywords": ("low", "mid"),
    },
    "gated": {"step_samples": 640, "gate": {"margins_db": [4.0, 5.0, 6.0], "hold_ms": 400}},
    "verified": {"verifier": tiny_model.VERIFIED_METADATA["verifier"], "step_samples": 960},
    # At 8 kHz, its words are tones of 250, 750 and 1500 Hz.
    "narrow": {"sample_rate_hz": 8000, "step_samples": 640, "receptive_field_samples": 2000},
}


def build(folder: Path, name: str) -> Path:
    """Write a variant to NAME.onnx in a folder."""
    document = tiny_model.metadata() | {"name": name} | VARIANTS[name]
    if isinstance(keywords := document["keywords"], tuple):
        document["keywords"] = {word: tiny_model.METADATA["keywords"][word] for word in keywords}
    verifier = tiny_model.verifier() if "verifier" in document else None
    return tiny_model.build(folder / f"{name}.onnx", document=document, verifier=verifier)
