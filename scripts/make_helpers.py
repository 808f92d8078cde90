"""Make the clips of the helpers, which own keywords are trained beside, with the voices of Kokoro-82M.

    python scripts/make_helpers.py VOICES [--out FILE]

The result is an archive of Opus files, with an index: the helper that each one belongs to, and where in it
the helper is said, or the phonemes of the words that sound like the helper.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import zipfile
from pathlib import Path

import soundfile
from earmark_audio.progress import Progress
from earmark_training.keyword.helpers import HELPERS, INDEX
from earmark_training.keyword.kokoro import Kokoro, default_cache
from earmark_training.keyword.neural_speech import read_confusables, read_keyword
from earmark_training.keyword.pronunciation import accents, pronounce

_SEED = 1
_COMPRESSION = 0.95  # about 19 kbit/s


def main() -> int:
    """Run the script."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("voices", type=Path, metavar="VOICES", help="folder of the voices' files")
    parser.add_argument(
        "--out", type=Path, default=Path("training/earmark_training/keyword/helpers.zip"), metavar="FILE"
    )
    args = parser.parse_args()
    reader, index = Kokoro(args.voices, default_cache()), []
    pronounced = pronounce(HELPERS, "en")
    with Progress() as progress, zipfile.ZipFile(args.out, "w") as archive:
        for helper, words in zip(HELPERS, pronounced, strict=True):
            read = read_keyword(
                reader, [words, *accents(helper, "en")], "en",
                keywords=[words], seed=_SEED, progress=progress, desc=helper,
            )  # fmt: skip
            for number, clip in enumerate(read):
                name = f"{helper}/{number:03d}.opus"
                archive.writestr(_entry(name), _opus(clip.path))
                index.append({"file": name, "helper": helper, "place": clip.word})
            similar = read_confusables(
                reader, helper, words, "en",
                keywords=pronounced, seed=_SEED, progress=progress, desc=f"like {helper}",
            )  # fmt: skip
            for number, (phonemes, path) in enumerate(similar):
                name = f"{helper}-similar/{number:03d}.opus"
                archive.writestr(_entry(name), _opus(path))
                index.append({"file": name, "helper": helper, "phonemes": phonemes})
        archive.writestr(_entry(INDEX), json.dumps(index))
    print(f"{args.out}: {len(index)} clips, {args.out.stat().st_size / 1e6:.1f} MB")
    return 0


def _entry(name: str) -> zipfile.ZipInfo:
    """Return an entry whose date is always the same."""
    return zipfile.ZipInfo(name)


def _opus(path: Path) -> bytes:
    samples, rate = soundfile.read(path, dtype="float32")
    content = io.BytesIO()
    soundfile.write(content, samples, rate, format="OGG", subtype="OPUS", compression_level=_COMPRESSION)
    return content.getvalue()


if __name__ == "__main__":
    sys.exit(main())
