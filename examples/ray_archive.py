# /// script
# requires-python = ">=3.11"
# dependencies = ["earmark[server]", "ray[data]>=2.40"]
# ///
"""Find the keywords of a whole archive of recordings, on one machine or many, with Ray Data.

    uv run --with-editable '.[server]' examples/ray_archive.py ARCHIVE OUT        # from a checkout

Every WAV, FLAC, Ogg, Opus or MP3 file below ARCHIVE gets rows in the Parquet files in OUT: one for each
detection, or a single one without a keyword where there is none, or where the file cannot be read (`error`
says why). Run it again after it was stopped, or when recordings were added: it does only those that are not
in OUT.

It runs on this machine's cores, or on the cluster that RAY_ADDRESS names, whose machines all need Earmark,
and the two folders under the same names. Each core listens for itself, without a server between: an archive
needs none of what a server is for. Memory does not grow with the length of a recording.

    duckdb -c "SELECT keyword, count(*) FROM 'OUT/*.parquet' WHERE keyword IS NOT NULL GROUP BY keyword"
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from earmark_client import Recording, RecordingError
from earmark_spotter import AudioFormat, Encoding, Spotter, SpotterError, SpotterModel

SUFFIXES = {".wav", ".flac", ".ogg", ".opus", ".mp3"}
SCHEMA = pa.schema(
    {
        "path": pa.string(),  # below ARCHIVE
        "audio_s": pa.float64(),
        "error": pa.string(),
        "keyword": pa.string(),
        "confidence": pa.float64(),
        "start_s": pa.float64(),
        "end_s": pa.float64(),
        "detection_id": pa.string(),
    }
)


class Listener:
    """Listens to recordings, with a model that is loaded once for each core."""

    def __init__(self, archive: Path, model: Path | None) -> None:
        self._archive = archive
        self._model = SpotterModel.load(model)

    def __call__(self, batch: dict[str, Any]) -> pa.Table:
        """Take a batch of paths, give their rows."""
        rows = [row for path in batch["item"] for row in self._rows(str(path))]
        return pa.Table.from_pylist(rows, schema=SCHEMA)

    def _rows(self, path: str) -> list[dict[str, object]]:
        heard, samples, found = 0.0, 0, []
        try:
            with Recording(self._archive / path, block_s=10) as recording:
                rate_hz = recording.sample_rate_hz
                form = AudioFormat(Encoding.LINEAR16, rate_hz)
                spotter = Spotter(self._model, audio_format=form)
                for block in recording:
                    samples += len(block) // form.frame_bytes
                    found += spotter.feed(block)
                found += spotter.flush()
                heard = samples / rate_hz
        except (RecordingError, SpotterError) as error:
            return [{"path": path, "error": str(error)}]
        own_hz = self._model.metadata.sample_rate_hz
        return [
            {
                "path": path,
                "audio_s": heard,
                "keyword": one.keyword,
                "confidence": one.confidence,
                "start_s": one.start_sample / own_hz,
                "end_s": one.end_sample / own_hz,
                "detection_id": one.id,
            }
            for one in found
        ] or [{"path": path, "audio_s": heard}]


def done_in(out: Path) -> set[str]:
    """Read which recordings have rows; a file that was being written when it was stopped is taken out."""
    done: set[str] = set()
    for part in out.glob("*.parquet"):
        try:
            done.update(pq.read_table(part, columns=["path"])["path"].to_pylist())
        except pa.ArrowInvalid:
            part.unlink()
    return done


def main() -> int:
    """Do what is missing; returns 0, 2 for a wrong option."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0], epilog="The file itself says more."
    )
    parser.add_argument("archive", type=Path, help="folder of recordings, searched to its depths")
    parser.add_argument("out", type=Path, help="folder for Parquet files; made if it is not there")
    parser.add_argument("--model", type=Path, help="model file (default: the one that comes with Earmark)")
    parser.add_argument(
        "--files-per-part",
        type=int,
        default=64,
        metavar="N",
        help="recordings whose rows are written together, or lost together if it is stopped (default: 64)",
    )
    options = parser.parse_args()
    if not options.archive.is_dir():
        parser.error(f"{options.archive} is no folder")
    if options.files_per_part < 1:
        parser.error("--files-per-part must be at least 1")
    archive, out = options.archive.resolve(), options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    there = {str(path.relative_to(archive)) for path in archive.rglob("*") if path.suffix.lower() in SUFFIXES}
    missing = sorted(there - done_in(out))
    print(f"{len(missing)} of {len(there)} recordings to do")
    if not missing:
        return 0
    import ray  # takes seconds

    begun_s = time.monotonic()
    before = set(out.glob("*.parquet"))
    ray.init(include_dashboard=False, log_to_driver=False)
    cores = int(ray.cluster_resources()["CPU"])
    parts = math.ceil(len(missing) / options.files_per_part)
    (
        ray.data.from_items(missing, override_num_blocks=parts)
        .map_batches(
            Listener,
            fn_constructor_args=(archive, options.model and options.model.resolve()),
            batch_size=None,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(cores, parts)),
            num_cpus=1,
        )
        .write_parquet(str(out))
    )
    new = pq.read_table([str(one) for one in set(out.glob("*.parquet")) - before])
    audio = new.group_by("path").aggregate([("audio_s", "max")])["audio_s_max"]
    heard_s, took_s = sum(one or 0 for one in audio.to_pylist()), time.monotonic() - begun_s
    print(
        f"{heard_s:.0f} s of audio, {len(new) - new['keyword'].null_count} detections, "
        f"{len(new) - new['error'].null_count} recordings that cannot be read, "
        f"took {took_s:.1f} s ({heard_s / took_s:.0f} times real time)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
