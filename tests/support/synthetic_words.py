"""Synthetic words of synthetic speakers: chords of gliding tones, through a filter that is the voice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import soundfile

if TYPE_CHECKING:
    from pathlib import Path

RATE = 16_000
COMPUTER = ((500.0, 900.0), (1400.0, 1100.0), (700.0, 700.0))  # three syllables: from and to, in Hz
BANANA = ((2600.0, 1800.0), (400.0, 400.0), (3000.0, 3400.0))
LEMON = ((1000.0, 1600.0), (2200.0, 2000.0))


def say(word: tuple[tuple[float, float], ...], person: int, seed: int, length_s: float = 1.6) -> np.ndarray:
    """Return a word in a little noise, float32 [n]; the same person always has the same voice."""
    voice, rng = np.random.default_rng(person), np.random.default_rng((person, seed))
    pitch = voice.uniform(0.9, 1.1)
    syllables = []
    for low, high in word:
        time = np.arange(int(rng.uniform(0.15, 0.19) * RATE)) / RATE
        glide = pitch * (low * time + (high - low) / (2 * time[-1]) * time**2)
        tones = sum(np.sin(2 * np.pi * h * glide) / h for h in (1, 2, 3))
        syllables.append(tones * np.hanning(len(time)) + 0.02 * rng.standard_normal(len(time)))
    said = np.concatenate(syllables)
    samples = 1e-3 * rng.standard_normal(int(length_s * RATE))
    start = int(rng.uniform(0.3, length_s - 0.4 - len(said) / RATE) * RATE)
    samples[start : start + len(said)] += said
    levels_db = np.interp(np.linspace(0, 8, len(samples) // 2 + 1), np.arange(9), voice.uniform(-20, 10, 9))
    samples = np.fft.irfft(np.fft.rfft(samples) * 10 ** (levels_db / 20), len(samples))
    return (0.4 * samples / np.abs(samples).max()).astype(np.float32)


def write_recordings(
    folder: Path, word: tuple[tuple[float, float], ...], count: int, *, one_person: bool = False
) -> Path:
    """Write one recording each of `count` people, or that many of one."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        samples = say(word, 0 if one_person else i, i)
        soundfile.write(folder / f"{i:02d}.wav", samples, RATE)
    return folder


def write_clips(folder: Path, words: dict[str, tuple[tuple[float, float], ...]], people: int) -> Path:
    """Write every word of every person as in Speech Commands; the last fifth of the people validates."""
    rng, validation = np.random.default_rng(6), []
    for i, (name, word) in enumerate(words.items()):
        (folder / name).mkdir(parents=True)
        for person in range(people):
            path = folder / name / f"{person:08x}_nohash_0.wav"
            soundfile.write(path, say(word, person, i), RATE)
            if person >= people * 4 // 5:
                validation.append(f"{name}/{path.name}\n")
    (folder / "validation_list.txt").write_text("".join(validation))
    (folder / "_background_noise_").mkdir()
    soundfile.write(folder / "_background_noise_" / "hiss.wav", 0.05 * rng.standard_normal(20 * RATE), RATE)
    return folder


def write_speech(folder: Path, speakers: int, utterances: int) -> Path:
    """Write continuous speech with other synthetic words, as in LibriSpeech."""
    rng = np.random.default_rng(5)
    for speaker in range(speakers):
        chapter = folder / str(speaker) / "1"
        chapter.mkdir(parents=True)
        lines = []
        for i in range(utterances):
            words = [rng.uniform(300, 3500, (2, 2)).tolist() for _ in range(4)]
            said = [say(tuple(map(tuple, w)), 100 + speaker, 10 * i + j, 1.4) for j, w in enumerate(words)]
            name = f"{speaker}-1-{i:04d}"
            soundfile.write(chapter / f"{name}.flac", np.concatenate(said), RATE)
            lines.append(f"{name} {'TWO COMPUTERS' if i == 0 else 'SO IT GOES'}")
        (chapter / f"{speaker}-1.trans.txt").write_text("\n".join(lines))
    return folder
