"""The tables of an evaluation: from its document to text, Markdown and HTML."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_WIDTH = 100
_NAMES = {"own": "the model's own classes", "12": "12-class protocol", "35": "35-class protocol"}


@dataclass(frozen=True, slots=True)
class Table:
    """A table of strings with a title, and perhaps a note below."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def text(self) -> str:
        """For a terminal: columns aligned, numbers to the right."""
        lines = (self.header, *self.rows)
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.header))]
        body = ["  ".join(map(_justify, line, widths, range(len(line)))).rstrip() for line in lines]
        note = textwrap.wrap(f"({self.note})", _WIDTH) if self.note else []
        return "\n  ".join((self.title, *body, *note))

    def markdown(self) -> str:
        """For a model card."""
        align = ("---", *["---:"] * (len(self.header) - 1))
        lines = [f"| {' | '.join(map(_literal, line))} |" for line in (self.header, align, *self.rows)]
        note = ("", f"{_literal(self.note[0].upper() + self.note[1:])}.") if self.note else ()
        return "\n".join((f"**{self.title}**", "", *lines, *note))

    def html(self) -> str:
        """For a report."""

        def row(cells: tuple[str, ...], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{escape(c)}</{tag}>" for c in cells) + "</tr>"

        note = f"<p>{escape(self.note)}</p>" if self.note else ""
        rows = "".join(row(r, "td") for r in self.rows)
        return f"<h2>{escape(self.title)}</h2><table>{row(self.header, 'th')}{rows}</table>{note}"


def _literal(text: str) -> str:
    """Keep Markdown from taking the underscores of a class's name for emphasis."""
    return text if text.startswith("`") else text.replace("_", r"\_")


def _justify(cell: str, width: int, column: int) -> str:
    return cell.rjust(width) if column else cell.ljust(width)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def tables_of(document: dict[str, Any]) -> list[Table]:
    """Return the tables of what `evaluate` measured, in the order in which they are read."""
    return list(_tables(document))


def _tables(d: dict[str, Any]) -> Iterator[Table]:
    if "clips" in d:
        yield _clips(d["clips"])
    if "streams" in d:
        yield _streams(d["streams"], d["data"]["noise"])
    if "speech" in d:
        yield _speech(d["speech"])
    if found := d.get("tradeoff", {}).get("found_at"):
        yield Table(
            "Found, with all thresholds moved together",
            (
                "false alarms per hour of read speech",
                *(f"found {_level(x)}" for x in next(iter(found.values()))),
            ),
            tuple((rate, *map(_percent, shares.values())) for rate, shares in found.items()),
            "thresholds looked up on the very data: what the scores could give, not what to expect elsewhere",
        )
    if cross := d.get("cross_validation"):
        yield Table(
            "Thresholds chosen on half of the speakers, measured on the other half",
            ("asked: false alarms per hour", "got", "found clean", "found at 10 dB"),
            (
                (
                    f"{cross['fa_per_hour_asked']:g}",
                    f"{cross['per_hour']:.2f}",
                    _percent(cross["found_clean"]),
                    _percent(cross["found_10db"]),
                ),
            ),
            f"both ways; {cross['alarms']} false alarms in {cross['hours']:.1f} h",
        )
    yield _keywords(d)
    yield _sounds(d["sounds"])
    if d.get("subsets", {}).get("subsets"):
        yield _subsets(d["subsets"])


def _level(name: str) -> str:
    return "clean" if name == "clean" else f"at {name.removesuffix('db')} dB"


def _clips(protocols: dict[str, Any]) -> Table:
    rows = [
        (_NAMES[name], str(len(p["accuracy_by_class"])), str(p["clips"]), _percent(p["accuracy"]))
        for name, p in protocols.items()
    ]
    notes = [f"{_NAMES[name]}: {p['note']}" for name, p in protocols.items() if p["note"]]
    for name, p in protocols.items():
        if p["left_out"]:
            notes.append(
                f"{_NAMES[name]} with the clips left out counted as wrong: "
                f"{_percent(p['accuracy_if_left_out_are_wrong'])}"
            )
    header = ("Clips put into the right class", "classes", "clips", "right")
    return Table("Clips", header, tuple(rows), ". ".join(notes))


def _streams(levels: dict[str, Any], noise: str) -> Table:
    rows = []
    for name, s in levels.items():
        delay = s["delay_ms"]
        rows.append(
            (
                "none added" if name == "clean" else name.replace("db", " dB"),
                str(s["spoken"]),
                str(s["found"]),
                _percent(s["found"] / max(1, s["spoken"])),
                str(s["wrong"]),
                str(s["repeated"]),
                f"{delay['median']} ms" if delay else "",
                f"{delay['95th']} ms" if delay else "",
            )
        )
    header = ("noise", "spoken", "found", "share", "wrong", "repeated", "delay, median", "95th percentile")
    length = next(iter(levels.values()))["hours"]
    note = (
        f"{length:.1f} h at each level; noise: {noise}; delay: audio heard from the word's end until its "
        "detection was decided"
    )
    return Table("Keywords in streams", header, tuple(rows), note)


def _speech(speech: dict[str, Any]) -> Table:
    rows = [
        ("not in the transcript there", str(speech["alarms"]), f"{speech['per_hour']:.2f}"),
        (
            "not in the transcript anywhere",
            str(speech["alarms_if_excused_anywhere"]),
            f"{speech['per_hour_if_excused_anywhere']:.2f}",
        ),
    ]
    if noisy := speech.get("noisy"):
        there = f"not there, with noise at {noisy['snr_db']:g} dB"
        rows.append((there, str(noisy["alarms"]), f"{noisy['per_hour']:.2f}"))
    note = (
        f"{speech['hours']:.2f} h of read speech, {speech['utterances']} utterances; the first count is the "
        "one that counts"
    )
    return Table(
        "False alarms in read speech", ("keyword detected that is", "alarms", "per hour"), tuple(rows), note
    )


def _keywords(d: dict[str, Any]) -> Table:
    right = d.get("clips", {}).get("own", {}).get("accuracy_by_class", {})
    found = [d.get("streams", {}).get(x, {}).get("found_by_keyword", {}) for x in ("clean", "10db")]
    alarms = d.get("speech", {}).get("by_keyword", {}) if "speech" in d else None
    rows = tuple(
        (
            k,
            f"{threshold:.4g}",
            _percent(right.get(k)),
            *(_percent(f.get(k)) for f in found),
            "" if alarms is None else str(alarms.get(k, 0)),
        )
        for k, threshold in d["thresholds"].items()
    )
    header = ("keyword", "threshold", "clips right", "found clean", "found at 10 dB", "false alarms")
    return Table("Keyword by keyword", header, rows)


def _sounds(sounds: list[dict[str, Any]]) -> Table:
    rows = []
    for s in sounds:
        heard = sorted(s["by_keyword"].items(), key=lambda item: -item[1])[:3]
        names = ", ".join(f"{k} {n}" for k, n in heard)
        rows.append((s["sound"], f"{s['minutes']:g}", str(s["detections"]), f"{s['per_hour']:g}", names))
    header = ("sound", "minutes", "detections", "per hour", "mostly")
    return Table("Where nobody speaks", header, tuple(rows), "the streams' noise, and sounds made up")


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
            f"of {spread['speakers']} speakers with ten clips or more, the median speaker has "
            f"{_percent(spread['median'])} right, one in ten {_percent(spread['tenth_percentile'])} or less, "
            f"the worst {_percent(spread['worst'])}"
        )
    header = ("keyword clips", "clips", "speakers", "right", "95% interval")
    return Table("Who is heard worse", header, rows, note)
