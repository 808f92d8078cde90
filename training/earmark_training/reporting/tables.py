"""The tables of an evaluation's document, as text, Markdown and HTML."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from earmark_training.reporting import html

if TYPE_CHECKING:
    from collections.abc import Iterator

_WIDTH = 100
_PROTOCOLS = {"own": "the model's own classes", "12": "12-class protocol", "35": "35-class protocol"}


@dataclass(frozen=True, slots=True)
class Table:
    """A table of texts with a title, and optionally a note below it."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def text(self) -> str:
        """Return the table for a terminal, with all columns but the first aligned to the right."""
        lines = (self.header, *self.rows)
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.header))]
        body = ["  ".join(map(_justify, line, widths, range(len(line)))).rstrip() for line in lines]
        note = textwrap.wrap(f"({self.note})", _WIDTH) if self.note else []
        return "\n  ".join((self.title, *body, *note))

    def markdown(self) -> str:
        """Return the table for a model card."""
        align = ("---", *["---:"] * (len(self.header) - 1))
        lines = [f"| {' | '.join(map(_literal, line))} |" for line in (self.header, align, *self.rows)]
        note = ("", f"{_literal(self.note[0].upper() + self.note[1:])}.") if self.note else ()
        return "\n".join((f"**{self.title}**", "", *lines, *note))

    def html(self) -> str:
        """Return the table for a report."""
        note = f"<p>{escape(self.note)}</p>" if self.note else ""
        return f"<h2>{escape(self.title)}</h2>{html.table(self.header, self.rows)}{note}"


def _literal(text: str) -> str:
    """Escape underscores, as in the name of a class, which are emphasis in Markdown."""
    return text if text.startswith("`") else text.replace("_", r"\_")


def _justify(cell: str, width: int, column: int) -> str:
    return cell.rjust(width) if column else cell.ljust(width)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def tables_of(document: dict[str, Any]) -> list[Table]:
    """Return the tables of the document that `evaluate` returned, in reading order."""
    return list(_tables(document))


def _tables(document: dict[str, Any]) -> Iterator[Table]:
    if "clips" in document:
        yield _clips(document["clips"])
    if document.get("conditions", {}).get("rows"):
        yield _conditions(document["conditions"])
    if "streams" in document:
        yield _streams(document["streams"], document["data"]["noise"])
    if "speech" in document:
        yield _speech(document["speech"])
    if recall_at := document.get("det_curve", {}).get("recall_at"):
        yield _det_curve(recall_at)
    if cross_validation := document.get("cross_validation"):
        yield _cross_validation(cross_validation)
    yield _keywords(document)
    yield _sounds(document["sounds"])
    if document.get("subsets", {}).get("subsets"):
        yield _subsets(document["subsets"])


def _recall_header(level: str) -> str:
    return "recall, clean" if level == "clean" else f"recall at {level.removesuffix('db')} dB SNR"


def _clips(protocols: dict[str, Any]) -> Table:
    rows = [
        (_PROTOCOLS[name], str(len(p["accuracy_by_class"])), str(p["clips"]), _percent(p["accuracy"]))
        for name, p in protocols.items()
    ]
    notes = [f"{_PROTOCOLS[name]}: {p['note']}" for name, p in protocols.items() if p["note"]]
    for name, p in protocols.items():
        if p["left_out"]:
            accuracy = _percent(p["accuracy_if_left_out_are_wrong"])
            notes.append(f"{_PROTOCOLS[name]}, with the clips left out counted as errors: {accuracy}")
    header = ("protocol", "classes", "clips", "accuracy")
    return Table("Classification of clips", header, tuple(rows), ". ".join(notes))


def _conditions(measured: dict[str, Any]) -> Table:
    rows = tuple(
        (
            r["condition"],
            f"{r['detected']} of {r['spoken']}" if "recall" in r else "",
            _percent(r.get("recall")),
            "{:.1%} to {:.1%}".format(*r["recall_interval"]) if "recall" in r else "",
            f"{r['alarms']} in {r['hours']:.2f} h" if "per_hour" in r else "",
            f"{r['per_hour']:.2f}" if "per_hour" in r else "",
            "{:.2f} to {:.2f}".format(*r["per_hour_interval"]) if "per_hour" in r else "",
        )
        for r in measured["rows"]
    )
    header = ("condition", "detected", "recall", "95% interval", "false alarms", "per hour", "95% interval")
    point = measured["operating_point"]
    note = "intervals: Wilson for recall, Poisson for false alarms"
    if point["mean_false_alarms_per_hour"] is not None:
        note += (
            f"; operating point: {point['mean_false_alarms_per_hour']:.2f} false alarms per hour, the mean "
            f"over read speech in these conditions: {'; '.join(point['conditions'])}"
        )
    return Table("In every condition", header, rows, note)


def _streams(levels: dict[str, Any], noise: str) -> Table:
    rows = []
    for name, s in levels.items():
        delay = s["delay_ms"]
        rows.append(
            (
                "no noise added" if name == "clean" else name.replace("db", " dB"),
                str(s["spoken"]),
                str(s["detected"]),
                _percent(s["detected"] / max(1, s["spoken"])),
                str(s["wrong"]),
                str(s["repeated"]),
                f"{delay['median']} ms" if delay else "",
                f"{delay['95th']} ms" if delay else "",
            )
        )
    header = ("SNR", "spoken", "detected", "recall", "wrong", "repeated", "median delay", "95th percentile")
    length = next(iter(levels.values()))["hours"]
    note = (
        f"{length:.1f} h at each SNR; noise: {noise}; delay: audio from the end of a word to the inference "
        "step that decides its detection"
    )
    return Table("Recall in synthetic streams", header, tuple(rows), note)


def _speech(speech: dict[str, Any]) -> Table:
    rows = [
        ("not in the transcript at that place", str(speech["alarms"]), f"{speech['per_hour']:.2f}"),
        (
            "not in the transcript at all",
            str(speech["alarms_if_excused_anywhere"]),
            f"{speech['per_hour_if_excused_anywhere']:.2f}",
        ),
    ]
    if noisy := speech.get("noisy"):
        condition = f"not at that place, at {noisy['snr_db']:g} dB SNR"
        rows.append((condition, str(noisy["alarms"]), f"{noisy['per_hour']:.2f}"))
    note = (
        f"{speech['hours']:.2f} h of read speech, {speech['utterances']} utterances; the first row is the "
        "reported rate"
    )
    header = ("detected keyword is", "false alarms", "per hour")
    return Table("False alarms in read speech", header, tuple(rows), note)


def _det_curve(recall_at: dict[str, dict[str, float]]) -> Table:
    levels = next(iter(recall_at.values()))
    return Table(
        "Recall with all thresholds moved together",
        ("false alarms per hour of read speech", *map(_recall_header, levels)),
        tuple((rate, *map(_percent, recall.values())) for rate, recall in recall_at.items()),
        "thresholds chosen on the same data: what the scores allow, not an estimate for other data",
    )


def _cross_validation(result: dict[str, Any]) -> Table:
    header = (
        "target, false alarms per hour",
        "measured",
        _recall_header("clean"),
        _recall_header("10db"),
    )
    row = (
        f"{result['fa_per_hour_asked']:g}",
        f"{result['per_hour']:.2f}",
        _percent(result["recall_clean"]),
        _percent(result["recall_10db"]),
    )
    return Table(
        "Thresholds chosen on half of the speakers, measured on the other half",
        header,
        (row,),
        f"both halves together; {result['alarms']} false alarms in {result['hours']:.1f} h",
    )


def _keywords(document: dict[str, Any]) -> Table:
    accuracy = document.get("clips", {}).get("own", {}).get("accuracy_by_class", {})
    streams = document.get("streams", {})
    recall = [streams.get(level, {}).get("recall_by_keyword", {}) for level in ("clean", "10db")]
    alarms = document.get("speech", {}).get("by_keyword", {}) if "speech" in document else None
    rows = tuple(
        (
            k,
            f"{threshold:.4g}",
            _percent(accuracy.get(k)),
            *(_percent(r.get(k)) for r in recall),
            "" if alarms is None else str(alarms.get(k, 0)),
        )
        for k, threshold in document["thresholds"].items()
    )
    header = (
        "keyword",
        "threshold",
        "clip accuracy",
        _recall_header("clean"),
        _recall_header("10db"),
        "false alarms",
    )
    return Table("By keyword", header, rows)


def _sounds(sounds: list[dict[str, Any]]) -> Table:
    rows = []
    for s in sounds:
        frequent = sorted(s["by_keyword"].items(), key=lambda item: -item[1])[:3]
        names = ", ".join(f"{k} {n}" for k, n in frequent)
        rows.append((s["sound"], f"{s['minutes']:g}", str(s["detections"]), f"{s['per_hour']:g}", names))
    header = ("sound", "minutes", "false alarms", "per hour", "most frequent")
    note = "the noise that is added to the streams, and synthetic sounds"
    return Table("False alarms without speech", header, tuple(rows), note)


def _subsets(subsets: dict[str, Any]) -> Table:
    rows = tuple(
        (
            s["subset"],
            str(s["clips"]),
            str(s["speakers"]),
            _percent(s["accuracy"]),
            f"{s['interval'][0]:.1%} to {s['interval'][1]:.1%}",
        )
        for s in subsets["subsets"]
    )
    note = ""
    if spread := subsets["speakers"]:
        note = (
            f"accuracy over the {spread['speakers']} speakers with ten clips or more: median "
            f"{_percent(spread['median'])}, 10th percentile {_percent(spread['tenth_percentile'])}, worst "
            f"{_percent(spread['worst'])}"
        )
    header = ("keyword clips", "clips", "speakers", "accuracy", "95% interval")
    return Table("Classification accuracy on subsets", header, rows, note)
