# /// script
# requires-python = ">=3.11"
# dependencies = ["ray[data]>=2.40"]
# ///
"""Spot keywords in an archive of recordings, on one machine or many, with Ray Data.

    uv run --with-editable '.[server]' examples/ray_archive.py ARCHIVE OUT        # from a checkout

Writes Parquet files to OUT. Every WAV, FLAC, Ogg, Opus or MP3 file below ARCHIVE gets one row per
detection, or one row without a keyword if there is no detection or if the file cannot be read (`error`
states the cause). Run it again after an interruption, or after adding recordings: it processes only the
recordings that are not in OUT.

It uses the cores of this machine, or of the cluster that RAY_ADDRESS names. All machines of a cluster need
Earmark, and both folders under the same paths. Each core runs its own Spotter, without a server. Memory use
does not depend on the length of a recording.

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
        "path": pa.string(),  # relative to ARCHIVE
        "audio_s": pa.float64(),
        "error": pa.string(),
        "keyword": pa.string(),
        "confidence": pa.float64(),
        "start_s": pa.float64(),
        "end_s": pa.float64(),
        "detection_id": pa.string(),
    }
)


class ArchiveSpotter:
    """Spots keywords in recordings, with a model that is loaded once per core."""

    def __init__(self, archive: Path, model: Path | None) -> None:
        self._archive = archive
        self._model = SpotterModel.load(model)

    def __call__(self, batch: dict[str, Any]) -> pa.Table:
        """Return the rows of a batch of paths."""
        rows = [row for path in batch["item"] for row in self._rows(str(path))]
        return pa.Table.from_pylist(rows, schema=SCHEMA)

    def _rows(self, path: str) -> list[dict[str, object]]:
        audio_s, samples, detections = 0.0, 0, []
        try:
            with Recording(self._archive / path, block_s=10) as recording:
                rate_hz = recording.sample_rate_hz
                audio_format = AudioFormat(Encoding.LINEAR16, rate_hz)
                spotter = Spotter(self._model, audio_format=audio_format)
                for block in recording:
                    samples += len(block) // audio_format.frame_bytes
                    detections += spotter.feed(block)
                detections += spotter.flush()
                audio_s = samples / rate_hz
        except (RecordingError, SpotterError) as error:
            return [{"path": path, "error": str(error)}]
        model_rate_hz = self._model.metadata.sample_rate_hz
        return [
            {
                "path": path,
                "audio_s": audio_s,
                "keyword": one.keyword,
                "confidence": one.confidence,
                "start_s": one.start_sample / model_rate_hz,
                "end_s": one.end_sample / model_rate_hz,
                "detection_id": one.id,
            }
            for one in detections
        ] or [{"path": path, "audio_s": audio_s}]


def read_done(out: Path) -> set[str]:
    """Return the recordings that have rows. Deletes Parquet files that an interrupted run left incomplete."""
    done: set[str] = set()
    for part in out.glob("*.parquet"):
        try:
            done.update(pq.read_table(part, columns=["path"])["path"].to_pylist())
        except pa.ArrowInvalid:
            part.unlink()
    return done


def main() -> int:
    """Process the recordings that have no rows yet; return 0, or 2 for a wrong option."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0], epilog="The docstring of this file has the details."
    )
    parser.add_argument("archive", type=Path, help="folder of recordings, including its subfolders")
    parser.add_argument("out", type=Path, help="folder for Parquet files; created if it does not exist")
    parser.add_argument("--model", type=Path, help="model file (default: the bundled model)")
    parser.add_argument(
        "--files-per-part",
        type=int,
        default=64,
        metavar="N",
        help="recordings per Parquet file; an interruption loses unfinished files (default: 64)",
    )
    options = parser.parse_args()
    if not options.archive.is_dir():
        parser.error(f"{options.archive} is not a folder")
    if options.files_per_part < 1:
        parser.error("--files-per-part must be at least 1")
    archive, out = options.archive.resolve(), options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    recordings = {
        str(path.relative_to(archive)) for path in archive.rglob("*") if path.suffix.lower() in SUFFIXES
    }
    missing = sorted(recordings - read_done(out))
    print(f"{len(missing)} of {len(recordings)} recordings to process")
    if not missing:
        return 0
    import ray  # slow to import

    begin_s = time.monotonic()
    before = set(out.glob("*.parquet"))
    ray.init(include_dashboard=False, log_to_driver=False)
    cores = int(ray.cluster_resources()["CPU"])
    parts = math.ceil(len(missing) / options.files_per_part)
    (
        ray.data.from_items(missing, override_num_blocks=parts)
        .map_batches(
            ArchiveSpotter,
            fn_constructor_args=(archive, options.model and options.model.resolve()),
            batch_size=None,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(cores, parts)),
            num_cpus=1,
        )
        .write_parquet(str(out))
    )
    new = pq.read_table([str(one) for one in set(out.glob("*.parquet")) - before])
    lengths = new.group_by("path").aggregate([("audio_s", "max")])["audio_s_max"]
    audio_s, elapsed_s = sum(one or 0 for one in lengths.to_pylist()), time.monotonic() - begin_s
    print(
        f"{audio_s:.0f} s of audio, {len(new) - new['keyword'].null_count} detections, "
        f"{len(new) - new['error'].null_count} unreadable recordings, "
        f"in {elapsed_s:.1f} s ({audio_s / elapsed_s:.0f} x real time)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
