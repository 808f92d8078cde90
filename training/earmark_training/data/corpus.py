"""The corpus: folders of recordings, decoded once into one array with an index.

There are four kinds of recordings:

* clips: one word each, laid out `<word>/<speaker>_nohash_<n>.<wav|flac|ogg|opus>` as in Google Speech
  Commands (Warden 2018, arXiv 1804.03209). `validation_list.txt` and `testing_list.txt` decide the split;
  without them the data set's rule does, which hashes the speaker;
* speech: read sentences with transcripts, laid out as LibriSpeech (`*.trans.txt` beside the audio);
* noise: the `_background_noise_` folder of the clips, or synthetic noise in its place; and other folders of
  recordings;
* music: folders of recordings.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, cast

import numpy as np
from earmark_audio import AudioFileError, RecordingFile
from earmark_audio.endpointing import locate_word
from earmark_audio.progress import SILENT, Progress
from earmark_spotter import SpotterError, read_recording

from earmark_training.data.coloured_noise import write_noises
from earmark_training.errors import CorpusError
from earmark_training.output_files import replace_file, writing
from earmark_training.processes import worker_pool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

log = logging.getLogger(__name__)

SAMPLE_RATE_HZ = 16_000
NOISE_FOLDER = "_background_noise_"
_SUFFIXES = (".wav", ".flac", ".ogg", ".opus")
_SOUND_SUFFIXES = (*_SUFFIXES, ".oga", ".mp3")
_SPEECH_VALIDATION_PERCENT = 25
_NOISE_VALIDATION_FRACTION = 0.25
_SOUND_VALIDATION_PERCENT = 25
_LONGEST_SOUND_S = 60
_NAMED_FILES = 20

DECODING = "decoding"
"""The phase of `decode`."""

Split = Literal["training", "validation", "testing"]
Kind = Literal["clip", "speech", "noise", "music"]


@dataclass(frozen=True, slots=True)
class Recording:
    """One piece of audio in a prepared corpus."""

    kind: Kind
    split: Split
    text: str
    """The word of a clip, the transcript of speech, the name of a noise or of a piece of music."""
    start: int
    """Its first sample in the corpus's array."""
    length: int
    """Its number of samples."""
    word: tuple[int, int] | None = None
    """Start and end of the word in a clip, in samples from the clip's start; None if energy does not tell."""
    speaker: str = ""
    """The speaker's name in the data set; the folder of noise or music, empty for the noise of the clips."""


class HasLength(Protocol):
    """A piece of audio: a Recording, or anything else with a length in samples of 16 kHz."""

    @property
    def length(self) -> int:
        """The number of samples."""


def hours(pieces: Iterable[HasLength]) -> float:
    """Return the total length of pieces of audio in hours."""
    return sum(piece.length for piece in pieces) / SAMPLE_RATE_HZ / 3600


class Corpus:
    """A prepared corpus: all audio in one array of int16 at 16 kHz, and the list of its recordings.

    Raises CorpusError if the folder contains no corpus, or one that is not complete.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        index = folder / "index.json"
        if not index.is_file():
            raise CorpusError(f"{folder} contains no prepared corpus: run `earmark-train prepare` first")
        try:
            document = json.loads(index.read_bytes())
            self.recordings = [
                Recording(**{**r, "word": tuple(r["word"]) if r["word"] else None})
                for r in document["recordings"]
            ]
            self._audio: NDArray[np.int16] = np.memmap(folder / "audio.i16", np.int16, "r")
            is_complete = len(self._audio) == max(r.start + r.length for r in self.recordings)
        except (FileNotFoundError, LookupError, TypeError, ValueError):
            is_complete = False
        if not is_complete:
            raise CorpusError(f"{folder} contains no complete corpus: run `earmark-train prepare` again")

    def __reduce__(self) -> tuple[Callable[[Path], Corpus], tuple[Path]]:
        # Another process maps the files itself: the audio is too large to be pickled.
        return _open_once, (self.folder,)

    def select(self, kind: Kind, split: Split) -> list[Recording]:
        """Return the recordings of one kind and split, in a fixed order."""
        return [r for r in self.recordings if r.kind == kind and r.split == split]

    def clip_noises(self, split: Split) -> list[Recording]:
        """Return the noises of one split that came with the clips."""
        return [r for r in self.select("noise", split) if not r.speaker]

    def samples(self, recording: Recording) -> NDArray[np.float32]:
        """Return a recording's samples, float32 [length], full scale at 1."""
        piece = self._audio[recording.start : recording.start + recording.length]
        return piece.astype(np.float32) / np.float32(32768)

    @property
    def audio(self) -> NDArray[np.int16]:
        """All samples, int16 [total]."""
        return self._audio


@functools.cache
def _open_once(folder: Path) -> Corpus:
    """Return the corpus of a folder, which a worker process unpickles once per job but opens only once."""
    return Corpus(folder)


def clip_speaker(file_name: str) -> str:
    """Return the speaker of a clip: the file's name up to `_nohash_`."""
    return re.sub(r"_nohash_.*$", "", Path(file_name).stem)


def speaker_split(file_name: str) -> Split:
    """Return the split of a clip by the rule of the Speech Commands data set: 10% validation, 10% testing.

    The rule hashes the file name up to `_nohash_`, so all clips of a speaker are in the same split and stay
    there when clips are added (Warden 2018, section 4; the data set's README has the reference code).
    """
    limit = 2**27 - 1
    digest = hashlib.sha1(clip_speaker(file_name).encode()).hexdigest()
    percent = (int(digest, 16) % (limit + 1)) * (100.0 / limit)
    if percent < 10:
        return "validation"
    return "testing" if percent < 20 else "training"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to be decoded into a Recording; most fields are those of the recording."""

    path: Path
    kind: Kind
    split: Split
    text: str
    speaker: str = ""
    max_s: float | None = None
    """Of speech that is longer, the beginning of this many seconds is used."""


def find_clips(folder: Path) -> Iterator[SourceFile]:
    """Yield the clips and noises below `folder`; list files decide the split if there are any."""
    lists: dict[str, Split] = {}
    splits: tuple[Split, ...] = ("validation", "testing")
    for split in splits:
        path = folder / f"{split}_list.txt"
        if path.is_file():
            # By line, since a word may be a phrase.
            names = (os.path.splitext(line.strip())[0] for line in _lines(path, "names of clips"))
            lists |= dict.fromkeys((Path(name).as_posix() for name in names if name), split)
    for path in _files(p for p in folder.glob("*/*") if p.suffix.lower() in _SUFFIXES):
        word = path.parent.name
        if word == NOISE_FOLDER:
            yield SourceFile(path, "noise", "training", path.stem)
            continue
        key = f"{word}/{path.stem}"
        split = lists.get(key, "training") if lists else speaker_split(path.name)
        yield SourceFile(path, "clip", split, word, clip_speaker(path.name))


def speech_split(speaker: str) -> Split:
    """Return the split of a speaker of read speech: 25% of them are for validation."""
    percent = int(hashlib.sha1(speaker.encode()).hexdigest(), 16) % 100
    return "validation" if percent < _SPEECH_VALIDATION_PERCENT else "training"


def find_speech(folder: Path) -> Iterator[SourceFile]:
    """Yield the utterances below `folder` with their transcripts; 25% of the speakers are for validation."""
    for path, speaker, transcript in read_transcripts(folder):
        audio = [p for s in _SUFFIXES if (p := path.with_name(path.name + s)).is_file()]
        if audio:
            yield SourceFile(audio[0], "speech", speech_split(speaker), transcript, speaker)


def find_sounds(folder: Path, kind: Literal["noise", "music"]) -> Iterator[SourceFile]:
    """Yield the sound files below `folder`, a quarter of the recordings for validation.

    Pieces of one recording, whose names differ by a last letter (`1-100032-A`), are in the same split.
    """
    for path in _files(p for p in folder.rglob("*") if p.suffix.lower() in _SOUND_SUFFIXES):
        source = re.sub(r"-[A-Z]$", "", path.stem)
        percent = int(hashlib.sha1(source.encode()).hexdigest(), 16) % 100
        split: Split = "validation" if percent < _SOUND_VALIDATION_PERCENT else "training"
        yield SourceFile(path, kind, split, path.stem, folder.name)


def synthetic_noises(out: Path) -> list[SourceFile]:
    """Write noise into the folder `out` and return it, in place of the noise of clips that have none."""
    return [SourceFile(path, "noise", "training", path.stem) for path in write_noises(out)]


def read_transcripts(folder: Path) -> Iterator[tuple[Path, str, str]]:
    """Yield the utterances that the `*.trans.txt` files below a folder list, in LibriSpeech's layout.

    Each is (path of the audio without its suffix, speaker, transcript in lower case). Raises CorpusError if a
    list is not text.
    """
    for listing in _files(folder.rglob("*.trans.txt")):
        speaker = listing.name.split("-", 1)[0]
        for line in _lines(listing, "transcripts"):
            name, *transcript = line.split(maxsplit=1)
            if "/" not in name and name not in (".", ".."):  # the audio is beside the list
                yield listing.with_name(name), speaker, " ".join(transcript).lower()


def _lines(path: Path, content: str) -> list[str]:
    """Return the lines of a list that are not blank. Raises CorpusError if it is not text."""
    try:
        # An editor of Windows may have put a byte order mark before the first one.
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{path} is not a list of {content} in UTF-8: {error}") from error
    return [line for line in lines if line.strip()]


def _files(paths: Iterable[Path]) -> list[Path]:
    """Return the files to read, sorted: no hidden ones, as macOS writes a `._name` beside every `name`.

    Folders, named pipes and devices are left out: opening a pipe waits for a writer. A link to a file that is
    missing is not: its reader says so.
    """
    return sorted(
        p for p in paths if not p.name.startswith(".") and (os.path.isfile(p) or not os.path.exists(p))
    )


def read_audio(path: Path) -> NDArray[np.float32]:
    """Read a whole audio file, as mono float32 [n] at 16 kHz. Raises CorpusError if it cannot be decoded."""
    try:
        mono, rate = read_recording(path, programs=True)
    except SpotterError as error:
        raise CorpusError(f"{path} cannot be read: {error}") from error
    if rate != SAMPLE_RATE_HZ:
        import soxr

        mono = soxr.resample(mono, rate, SAMPLE_RATE_HZ)
    return mono


def audio_seconds(path: Path) -> float:
    """Return the length of an audio file in seconds: as stated, else as decoded.

    Raises CorpusError if it cannot be decoded.
    """
    try:
        with RecordingFile(path) as file:
            if file.declared_s is not None:
                return file.declared_s
            return sum(len(block) for block in file.blocks()) / file.sample_rate_hz
    except (AudioFileError, OSError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: AudioFileError | OSError) -> CorpusError:
    """Return the error of a file that cannot be read: that of the system would name the file again."""
    why = error.strerror if isinstance(error, OSError) else None
    return CorpusError(f"{path} cannot be read: {why or error}")


def _read_or_error(
    file: SourceFile,
) -> tuple[NDArray[np.int16], tuple[int, int] | None] | CorpusError:
    try:
        return _read(file)
    except CorpusError as error:
        return error


def _read(file: SourceFile) -> tuple[NDArray[np.int16], tuple[int, int] | None]:
    if file.kind == "clip":
        mono = read_audio(file.path)
        return _to_int16(mono), locate_word(mono, SAMPLE_RATE_HZ)
    if file.kind == "speech" or not file.speaker:
        return _read_long(file.path, file.max_s), None
    return _read_long(file.path, _LONGEST_SOUND_S, middle=True), None


def _read_long(path: Path, max_s: float | None, *, middle: bool = False) -> NDArray[np.int16]:
    """Read an audio file block by block, as mono int16 [n] at 16 kHz: it may be as long as a day.

    Of a file of more than `max_s` seconds, this length is read: the beginning, or the `middle`. Raises
    CorpusError if it cannot be decoded.
    """
    total_s = audio_seconds(path) if middle else 0.0
    pcm = bytearray()
    try:
        with RecordingFile(path) as file:
            rate = file.sample_rate_hz
            length = sys.maxsize if max_s is None else int(max_s * rate)
            start = max(0, round(total_s * rate) - length) // 2
            resample = _resampler(rate)
            position = 0
            for block in file.mono():
                piece = block[max(0, start - position) : max(0, start + length - position)]
                pcm += _to_int16(resample(piece, last=False)).tobytes()
                position += len(block)
                if position >= start + length:
                    break
            pcm += _to_int16(resample(np.zeros(0, np.float32), last=True)).tobytes()
    except (AudioFileError, OSError) as error:
        raise _unreadable(path, error) from error
    return np.frombuffer(pcm, np.int16)


def _resampler(rate: int) -> Callable[..., NDArray[np.float32]]:
    """Return a function of float32 samples and whether they are the `last`, which returns them at 16 kHz."""
    if rate == SAMPLE_RATE_HZ:
        return lambda samples, last: samples
    import soxr

    stream = soxr.ResampleStream(rate, SAMPLE_RATE_HZ, 1, dtype="float32")
    return cast("Callable[..., NDArray[np.float32]]", stream.resample_chunk)


def _to_int16(samples: NDArray[np.float32]) -> NDArray[np.int16]:
    return np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)


def prepare(
    clips: Path,
    speech: list[Path],
    out: Path,
    *,
    noise: Sequence[Path] = (),
    music: Sequence[Path] = (),
    progress: Progress = SILENT,
) -> Corpus:
    """Decode the clips, their noise and the speech into `out`, and return the Corpus.

    `noise` and `music` are further folders of recordings, of which at most the middle minute is used.
    Clips that come without noise get synthetic noise. Raises CorpusError if a folder contains no usable
    recordings, and OutputError if the corpus cannot be written.
    """
    files = list(find_clips(clips))
    if not any(f.kind == "clip" for f in files):
        raise CorpusError(
            f"{clips} contains no clips laid out as <word>/<speaker>_nohash_<n>.<wav|flac|ogg|opus>"
        )
    if not any(f.kind == "noise" for f in files):
        log.warning(
            "%s contains no %s folder with recordings of noise: synthetic noise is used in its place",
            clips,
            NOISE_FOLDER,
        )
        files += synthetic_noises(out)
    for folder in speech:
        files += find_speech_or_raise(folder)
    kinds: tuple[Literal["noise", "music"], ...] = ("noise", "music")
    for kind, folders in zip(kinds, (noise, music), strict=True):
        for folder in folders:
            sounds = list(find_sounds(folder, kind))
            if not sounds:
                raise CorpusError(f"{folder} contains no sound files ({', '.join(_SOUND_SUFFIXES)})")
            files += sounds
    return decode(files, out, progress=progress)


def find_speech_or_raise(folder: Path) -> list[SourceFile]:
    """Return the utterances below `folder`. Raises CorpusError if there are none."""
    utterances = list(find_speech(folder))
    if not utterances:
        raise CorpusError(f"{folder} contains no utterances with *.trans.txt transcripts beside them")
    return utterances


def decode(files: Sequence[SourceFile], out: Path, *, progress: Progress = SILENT) -> Corpus:
    """Decode the files into `out` and return the Corpus.

    Raises CorpusError, which names them all, if files are damaged, and OutputError if the corpus cannot be
    written. The last quarter of each noise of the clips is for validation, regardless of the file's split.
    """
    out.mkdir(parents=True, exist_ok=True)
    # The index of older audio must not remain beside new audio, if this is interrupted.
    (out / "index.json").unlink(missing_ok=True)
    recordings: list[Recording] = []
    damaged: list[str] = []
    position = 0
    path = out / "audio.i16"
    sizes = [file.path.stat().st_size if file.path.is_file() else 0 for file in files]
    with (
        worker_pool(None) as pool,
        writing(path),
        path.open("wb") as audio,
        progress.phase(DECODING, total=sum(sizes)) as phase,
    ):
        decoded = pool.map(_read_or_error, files, chunksize=max(1, min(64, len(files) // 50)))
        for number, (file, size, result) in enumerate(zip(files, sizes, decoded, strict=True), 1):
            # By size, because an hour of music takes as long as thousands of words.
            phase.note = f"file {number:,} of {len(files):,}"
            phase.update(size)
            if isinstance(result, CorpusError):
                damaged.append(str(result))
                continue
            if damaged:
                continue  # there will be no corpus: the other files are only checked
            samples, word = result
            audio.write(samples.data)  # an error of `tofile` does not say why it cannot be written
            for split, start, length in _split_noise(file, len(samples)):
                recordings.append(
                    Recording(file.kind, split, file.text, position + start, length, word, file.speaker)
                )
            position += len(samples)
    if damaged:
        more = len(damaged) - _NAMED_FILES
        raise CorpusError("\n".join(damaged[:_NAMED_FILES]) + (f"\nand {more} more" if more > 0 else ""))
    document = {"recordings": [asdict(r) for r in recordings]}
    replace_file(out / "index.json", json.dumps(document).encode())
    return Corpus(out)


def _split_noise(file: SourceFile, length: int) -> Iterator[tuple[Split, int, int]]:
    """Yield (split, start, length): the last quarter of a noise of the clips validates, others stay whole."""
    if file.kind != "noise" or file.speaker:
        yield file.split, 0, length
        return
    cut = int(length * (1 - _NOISE_VALIDATION_FRACTION))
    yield "training", 0, cut
    yield "validation", cut, length - cut
