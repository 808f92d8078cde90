"""The model card: the part between two marker comments is generated from an evaluation."""

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
    """Replace the part of the model card between its markers by the results of an evaluation.

    Raises ExportError for a card without the markers.
    """
    text = path.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ExportError(
            f"{path} has no markers for the results of an evaluation: add the lines {BEGIN} and {END}"
        )
    path.write_text(f"{before}{BEGIN}\n\n{_results(document)}\n\n{END}{after}")


def new_card(metadata: ModelMetadata, document: dict[str, Any]) -> str:
    """Return a model card for a model that has none, from its metadata and its evaluation."""
    words = ", ".join(f"*{name}*" for name in metadata.keyword_names)
    sources = "\n".join(f"- {s.name}: {s.license}; {s.attribution}" for s in metadata.training.sources)
    return (
        f"# Model card: `{metadata.name}` {metadata.version}\n\n"
        f"Detects {words} in PCM at {metadata.sample_rate_hz} Hz. The receptive field of a score is "
        f"{metadata.receptive_field_ms / 1000:.2f} s. A detection is sent {metadata.detector.hold_ms:.0f} ms "
        "after the peak of its score (peak hold), in case a higher peak follows.\n\n"
        f"Trained by the code at commit `{metadata.training.commit}` on:\n\n"
        f"{sources or '- data that was not named: `earmark-train export --sources`'}\n\n"
        f"## Accuracy\n\n{BEGIN}\n\n{_results(document)}\n\n{END}\n"
    )


def _results(document: dict[str, Any]) -> str:
    data = document["data"]
    metrics = Table(
        "Metrics in the model file",
        ("metric", "value"),
        tuple((f"`{name}`", f"{value:g}") for name, value in document["figures"].items()),
    )
    parts = [
        f"Measured by `earmark-train evaluate` on {data['what']}; seed {data['seed']}. {document['model']} "
        f"{document['version']}, SHA-256 `{document['sha256']}`.",
        *(table.markdown() for table in tables_of(document)),
    ]
    if "12" in document.get("clips", {}):
        parts.append(_published_comparison(document).markdown())
    return "\n\n".join((*parts, metrics.markdown()))


def _published_comparison(document: dict[str, Any]) -> Table:
    ours = document["clips"]["12"]
    rows = (
        (f"{document['model']} {document['version']}", "", f"{ours['accuracy']:.1%}", "yes"),
        *_PUBLISHED,
    )
    note = (
        "the tests differ: the published results are on the test set of version 2, after training on all of "
        f"its training data; this one is on {ours['clips']} clips of other speakers, {ours['note']}"
    )
    header = ("model", "parameters", "12-class accuracy", "exact streaming")
    return Table("Comparison with published results", header, rows, note)
