"""Synthesized speech from installed programs: eSpeak NG, Flite and Festival.

Nothing is downloaded or linked: the programs run as processes, and their licences do not cover their output.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from earmark_audio.progress import SILENT, Progress

from earmark_training.keyword.voice_files import SynthesisError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_WORDS_PER_MINUTE = (110, 210)
_PITCH = (25, 80)
_STRETCH = (0.8, 1.4)
# Whispers, robots and jokes among eSpeak NG's variants.
_UNNATURAL_VARIANTS = re.compile(
    r"whisper|robo|uni|croak|demonic|announcer|fast|anikarobot|tweaky|gnat", re.I
)


@dataclass(frozen=True, slots=True)
class Voice:
    """A synthesizer's voice.

    `command` writes speech to the file {wav}. It reads the text from {text}, or from standard input.
    """

    name: str
    command: tuple[str, ...]

    @property
    def accepts_phonemes(self) -> bool:
        """Whether a text may contain eSpeak NG's phonemes, [[like this]]."""
        return self.command[0] == "espeak-ng"


def espeak_voice(name: str, words_per_minute: int, pitch: int = 50) -> Voice:
    """Return a voice of eSpeak NG: `name` is a language, or language+variant; pitch is 0 to 99."""
    options = ("-v", name, "-s", f"{words_per_minute}", "-p", f"{pitch}")
    return Voice(f"espeak-{name}", ("espeak-ng", *options, "-w", "{wav}", "{text}"))


def flite_voice(name: str, stretch: float | None = None) -> Voice:
    """Return a voice of Flite, with its durations multiplied by `stretch` if given."""
    slower = () if stretch is None else ("--setf", f"duration_stretch={stretch:.2f}")
    return Voice(f"flite-{name}", ("flite", "-voice", name, *slower, "-t", "{text}", "-o", "{wav}"))


def festival_voice(name: str, stretch: float | None = None) -> Voice:
    """Return a voice of Festival, with its durations multiplied by `stretch` if given."""
    slower = () if stretch is None else ("-eval", f"(Parameter.set 'Duration_Stretch {stretch:.2f})")
    return Voice(f"festival-{name}", ("text2wave", "-eval", f"(voice_{name})", *slower, "-o", "{wav}"))


def available_voices(language: str, count: int, *, seed: int) -> list[Voice]:
    """Return `count` voices, as varied as the installed synthesizers allow.

    `language` is a code such as en or de; Flite and Festival speak English only. Raises SynthesisError if no
    installed synthesizer speaks it.
    """
    rng = np.random.default_rng(seed)
    bases, variants = _espeak_names(language)
    english = language.split("-", 1)[0] == "en"
    flite, festival = (_flite_names(), _festival_names()) if english else ([], [])
    if not bases and not flite and not festival:
        raise SynthesisError(
            f"no synthesizer that speaks {language!r} is installed: install espeak-ng (and flite and "
            "festival for English; on Debian: apt-get install espeak-ng flite festival)"
        )
    # eSpeak NG has by far the most voices: it speaks twice as often as each of the others.
    kinds = [kind for kind, names in (("espeak", bases), ("espeak", bases), ("flite", flite)) if names]
    kinds += ["festival"] * bool(festival)
    voices = []
    for i in range(count):
        kind = kinds[i % len(kinds)]
        stretch = float(rng.uniform(*_STRETCH))
        if kind == "flite":
            voices.append(flite_voice(flite[rng.integers(len(flite))], stretch))
        elif kind == "festival":
            voices.append(festival_voice(festival[rng.integers(len(festival))], stretch))
        else:
            name = bases[rng.integers(len(bases))]
            if variants:
                name += f"+{variants[rng.integers(len(variants))]}"
            speed, pitch = int(rng.integers(*_WORDS_PER_MINUTE)), int(rng.integers(*_PITCH))
            voices.append(espeak_voice(name, speed, pitch))
    return voices


def is_available(language: str) -> bool:
    """Return whether an installed synthesizer speaks a language."""
    english = language.split("-", 1)[0] == "en"
    return bool(_espeak_names(language)[0] or (english and (_flite_names() or _festival_names())))


def synthesize(
    lines: Sequence[tuple[Voice, str]],
    folder: Path,
    *,
    progress: Progress = SILENT,
    desc: str = "synthesizing",
) -> list[Path]:
    """Synthesize every (voice, text) into a WAV file in the folder; return the files in order.

    Raises SynthesisError if a program fails.
    """
    folder.mkdir(parents=True, exist_ok=True)

    def run(number: int) -> Path:
        voice, text = lines[number]
        path = folder / f"{number:05d}.wav"
        # With a full stop: without one, Festival leaves out the last word.
        command = [part.format(wav=path, text=f"{text}.") for part in voice.command]
        done = subprocess.run(
            command, input=f"{text}.\n".encode(), capture_output=True, check=False, timeout=60
        )
        if done.returncode or not path.is_file():
            raise SynthesisError(
                f"`{' '.join(command)}` failed: {done.stderr.decode(errors='replace').strip()[:200]}"
            )
        return path

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(progress(pool.map(run, range(len(lines))), desc=desc, total=len(lines), unit="lines"))


def phonemes(text: str, language: str) -> list[list[str]]:
    """Return the phonemes of each word of a text, in eSpeak NG's notation.

    A stress mark (' or ,) stands before its vowel. Return an empty list if eSpeak NG is not installed.
    """
    if not shutil.which("espeak-ng"):
        return []
    out = _output(["espeak-ng", "-q", "-x", "--sep=_", "-v", language, text])
    return [[p for p in word.split("_") if p.strip("',")] for word in out.split()]


def _espeak_names(language: str) -> tuple[list[str], list[str]]:
    """Return eSpeak NG's own voices for a language, and the variants that each can be combined with."""
    if not shutil.which("espeak-ng"):
        return [], []
    # Columns: priority, language, age and sex, name, file. Voices in mb/ need MBROLA, which is rarely there.
    rows = [line.split() for line in _output(["espeak-ng", f"--voices={language}"]).splitlines()[1:]]
    bases = [row[1] for row in rows if len(row) > 4 and not row[4].startswith(("mb/", "!v/"))]
    rows = [line.split() for line in _output(["espeak-ng", "--voices=variant"]).splitlines()[1:]]
    files = [row[4].removeprefix("!v/") for row in rows if len(row) > 4]
    return sorted(set(bases)), sorted(f for f in files if not _UNNATURAL_VARIANTS.search(f))


def _flite_names() -> list[str]:
    if not shutil.which("flite"):
        return []
    _, _, names = _output(["flite", "-lv"]).partition(":")
    return [n for n in names.split() if not n.endswith("_time")]  # voices that only tell the time of day


def _festival_names() -> list[str]:
    if not shutil.which("festival") or not shutil.which("text2wave"):
        return []
    return re.findall(r"[\w-]+", _output(["festival", "-b", "(print (voice.list))"]))


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, check=False, timeout=60)
    return done.stdout.decode(errors="replace")
