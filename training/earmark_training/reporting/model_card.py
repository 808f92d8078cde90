"""The figures of a model card: the part between its two marks, written from an evaluation's document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from earmark_training.errors import ExportError
from earmark_training.reporting.tables import Table, tables_of

if TYPE_CHECKING:
    from pathlib import Path

    from earmark_spotter.metadata import ModelMetadata

BEGIN = "<!-- figures: written by scripts/update_model_card.py -->"
END = "<!-- end of figures -->"

_PUBLISHED = (
    ("BC-ResNet-8 (Kim et al. 2021, arXiv 2106.04140)", "321 k", "98.7%", "no"),
    ("ds_tc_resnet (Rybakov et al. 2020, arXiv 2005.06720)", "75 k", "98.0%", "yes"),
    ("CRNN (Rybakov et al. 2020), streamed", "", "96.3%", "yes"),
)


def update_card(path: Path, document: dict[str, Any]) -> None:
    """Write the figures of an evaluation into the model card, between its marks.

    Raises ExportError for a card without the marks.
    """
    text = path.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ExportError(f"{path} lacks the lines that its figures go between: {BEGIN} and {END}")
    path.write_text(f"{before}{BEGIN}\n\n{_figures(document)}\n\n{END}{after}")


def new_card(metadata: ModelMetadata, document: dict[str, Any]) -> str:
    """Return the model card of a model that has none, from what its file and its evaluation say."""
    words = ", ".join(f"*{name}*" for name in metadata.keyword_names)
    sources = "\n".join(f"- {s.name}: {s.license}; {s.attribution}" for s in metadata.training.sources)
    return (
        f"# Model card: `{metadata.name}` {metadata.version}\n\n"
        f"Listens for {words} in PCM at {metadata.sample_rate_hz} Hz; each score looks back on "
        f"{metadata.receptive_field_ms / 1000:.2f} s of audio. Every detection waits "
        f"{metadata.detector.hold_ms:.0f} ms after its score's peak to see whether a higher one follows.\n\n"
        f"Trained by the code at commit `{metadata.training.commit}` on:\n\n{sources}\n\n"
        f"## How well it hears\n\n{BEGIN}\n\n{_figures(document)}\n\n{END}\n"
    )


def _figures(document: dict[str, Any]) -> str:
    data = document["data"]
    figures = Table(
        "Every figure by its name, as it is in the model file",
        ("figure", "value"),
        tuple((f"`{name}`", f"{value:g}") for name, value in document["figures"].items()),
    )
    parts = [
        f"Measured by `earmark-train evaluate` on {data['what']}; seed {data['seed']}. {document['model']} "
        f"{document['version']}, SHA-256 `{document['sha256']}`.",
        *(table.markdown() for table in tables_of(document)),
    ]
    if "12" in document.get("clips", {}):
        parts.append(_beside_published(document).markdown())
    return "\n\n".join((*parts, figures.markdown()))


def _beside_published(document: dict[str, Any]) -> Table:
    ours = document["clips"]["12"]
    rows = (
        (f"{document['model']} {document['version']}, here", "", f"{ours['accuracy']:.1%}", "yes"),
        *_PUBLISHED,
    )
    note = (
        f"Not the same test: the published ones are on version 2's test set, after training on all of its "
        f"training data; ours is on {ours['clips']} clips of other speakers, and {ours['note']}"
    )
    header = ("12-class accuracy", "parameters", "right", "streams exactly")
    return Table("Beside the published figures", header, rows, note)
