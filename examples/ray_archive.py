# /// script
# requires-python = ">=3.11"
# dependencies = ["ray[data]>=2.40"]
# ///
"""Spot keywords in an archive of recordings, on one machine or many, with Ray Data.

    uv run --with-editable '.[server]' examples/ray_archive.py ARCHIVE OUT        # from a checkout

Writes Parquet files to OUT. Every WAV, FLAC, Ogg, Opus or MP3 file below ARCHIVE gets one row per
detection, or one row without a keyword if there is no detection or if the file cannot be read (`error`
states the cause). Run it again after an interruption, or after adding recordings: it processes only the
recordings that are not in OUT. ARCHIVE and OUT are folders, or addresses of object storage such as
s3://bucket/recordings.

It uses the cores of this machine, or of the cluster that RAY_ADDRESS names; examples/README.md shows how to
start one. Each core runs its own Spotter, without a server. Memory use does not depend on the length of a
recording. Ray takes half a minute to start, so for less than an hour of audio per core
`earmark spot --jobs N` is faster.

    duckdb -c "SELECT keyword, count(*) FROM 'OUT/*.parquet' WHERE keyword IS NOT NULL GROUP BY keyword"
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.fs
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


class Folder(NamedTuple):
    """A folder of a file system, which may be object storage."""

    system: pyarrow.fs.FileSystem
    path: str

    @classmethod
    def parse(cls, address: str) -> Folder:
        """Return the folder at a path or an address; pyarrow.ArrowInvalid for an unknown kind of storage."""
        uri = address if "://" in address else Path(address).resolve().as_uri()
        return cls(*pyarrow.fs.FileSystem.from_uri(uri))

    def files(self) -> list[str]:
        """Return all files below the folder, by their path in it."""
        selector = pyarrow.fs.FileSelector(self.path, recursive=True, allow_not_found=True)
        found = (one.path for one in self.system.get_file_info(selector) if one.is_file)
        return [str(PurePosixPath(path).relative_to(self.path)) for path in found]


class ArchiveSpotter:
    """Spots keywords in recordings, with a model that is loaded once per core."""

    def __init__(self, archive: Folder, model: Path | None) -> None:
        self._archive = archive
        self._model = SpotterModel.load(model)

    def __call__(self, batch: dict[str, Any]) -> pa.Table:
        """Return the rows of a batch of paths."""
        rows = [row for path in batch["item"] for row in self._rows(str(path))]
        return pa.Table.from_pylist(rows, schema=SCHEMA)

    def _rows(self, path: str) -> list[dict[str, object]]:
        audio_s, samples, detections = 0.0, 0, []
        try:
            with (
                self._archive.system.open_input_file(f"{self._archive.path}/{path}") as file,
                Recording(file, block_s=10, name=path) as recording,
            ):
                rate_hz = recording.sample_rate_hz
                audio_format = AudioFormat(Encoding.LINEAR16, rate_hz)
                spotter = Spotter(self._model, audio_format=audio_format)
                for block in recording:
                    samples += len(block) // audio_format.frame_bytes
                    detections += spotter.feed(block)
                detections += spotter.flush()
                audio_s = samples / rate_hz
        except (RecordingError, SpotterError, OSError) as error:
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


def parts_in(out: Folder) -> set[str]:
    """Return the paths of the Parquet files in a folder."""
    return {f"{out.path}/{name}" for name in out.files() if name.endswith(".parquet")}


def read_done(out: Folder) -> set[str]:
    """Return the recordings that have rows. Deletes Parquet files that an interrupted run left incomplete."""
    done: set[str] = set()
    for part in parts_in(out):
        try:
            done.update(pq.read_table(part, columns=["path"], filesystem=out.system)["path"].to_pylist())
        except pa.ArrowInvalid:
            out.system.delete_file(part)
    return done


def main() -> int:
    """Process the recordings that have no rows yet; return 0, or 2 for a wrong option."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0], epilog="The docstring of this file has the details."
    )
    parser.add_argument("archive", help="folder of recordings, including its subfolders, or its address")
    parser.add_argument("out", help="folder for Parquet files, or its address; created if it does not exist")
    parser.add_argument("--model", type=Path, help="model file (default: the bundled model)")
    parser.add_argument(
        "--files-per-part",
        type=int,
        default=64,
        metavar="N",
        help="recordings per Parquet file; an interruption loses unfinished files (default: 64)",
    )
    options = parser.parse_args()
    if options.files_per_part < 1:
        parser.error("--files-per-part must be at least 1")
    try:
        archive, out = Folder.parse(options.archive), Folder.parse(options.out)
        if archive.system.get_file_info(archive.path).type != pyarrow.fs.FileType.Directory:
            parser.error(f"{options.archive} is not a folder")
        out.system.create_dir(out.path)
    except (pa.ArrowInvalid, OSError) as error:
        parser.error(str(error))
    recordings = {name for name in archive.files() if PurePosixPath(name).suffix.lower() in SUFFIXES}
    missing = sorted(recordings - read_done(out))
    print(f"{len(missing)} of {len(recordings)} recordings to process")
    if not missing:
        return 0
    # Under `uv run`, Ray would start each of its processes with `uv run` too, which waits for ever.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    import ray  # slow to import

    begin_s = time.monotonic()
    before = parts_in(out)
    new_cluster = {} if os.environ.get("RAY_ADDRESS") else {"include_dashboard": False}
    ray.init(log_to_driver=False, **new_cluster)
    cores, machines = int(ray.cluster_resources()["CPU"]), len(ray.nodes())
    print(f"{cores} cores, {machines} machine{'s' if machines > 1 else ''}", flush=True)
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
        .write_parquet(out.path, filesystem=out.system)
    )
    new = pa.concat_tables(pq.read_table(one, filesystem=out.system) for one in parts_in(out) - before)
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
