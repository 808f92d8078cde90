"""`earmark listen --record`: the cue points, which libsndfile reads, and the Audacity labels."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from earmark_cli.output.labelled_recording import LabelledRecording
from earmark_client import RecordingError, Silence
from support.earmark_command import python_process
from support.sample_detections import NO, YES

RATE_HZ = 8000


def _cues(path: Path) -> list[tuple[int, str]]:
    """Return all cue points with their labels, read with SFC_GET_CUE of libsndfile (sndfile.h: SF_CUES)."""
    ffi, library = soundfile._ffi, soundfile._snd
    point = struct.Struct("<iIiiiI256s")
    cues = ffi.new("char[]", 4 + 100 * point.size)
    with soundfile.SoundFile(path) as file:
        assert library.sf_command(file._file, 0x10CE, cues, len(cues))
    data = bytes(ffi.buffer(cues))
    (count,) = struct.unpack_from("<I", data)
    points = list(point.iter_unpack(data[4:]))[:count]
    return [(offset, name.partition(b"\0")[0].decode()) for *_, offset, name in points]


def test_audio_and_detections_are_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    audio = rng.integers(-30_000, 30_000, 3 * RATE_HZ, "<i2")
    path = tmp_path / "audio.wav"
    with LabelledRecording(path, sample_rate_hz=RATE_HZ) as recording:
        blocks = [audio[:RATE_HZ].tobytes(), Silence(2.5), audio[RATE_HZ:].tobytes()]
        assert list(recording.record(blocks)) == blocks
        for detection in (NO, YES):
            recording.add_label(detection)
    written, rate_hz = soundfile.read(path, dtype="int16")
    expected = np.concatenate([audio[:RATE_HZ], np.zeros(5 * RATE_HZ // 2, np.int16), audio[RATE_HZ:]])
    assert rate_hz == RATE_HZ
    assert np.array_equal(written, expected)
    assert _cues(path) == [(4000, "no 0.98"), (10_000, "yes 1.00")]
    assert (tmp_path / "audio.txt").read_text() == "0.500\t0.900\tno 0.98\n1.250\t1.750\tyes 1.00\n"


def test_the_files_are_valid_before_they_are_closed(tmp_path: Path) -> None:
    path = tmp_path / "audio.wav"
    recording = LabelledRecording(path, sample_rate_hz=RATE_HZ)
    list(recording.record([bytes(2 * RATE_HZ), bytes(RATE_HZ)]))
    recording.add_label(NO)
    assert soundfile.info(path).frames == 1.5 * RATE_HZ
    assert path.with_suffix(".txt").read_text() == "0.500\t0.900\tno 0.98\n"
    recording.__exit__()


@pytest.mark.parametrize(("start_s", "end_s"), [(1e6, 1e6 + 1), (-2.0, -1.0), (0.5, 1e9), (2.0, 1.0)])
def test_offsets_outside_of_the_audio_become_cue_points_inside(
    tmp_path: Path, start_s: float, end_s: float
) -> None:
    path = tmp_path / "audio.wav"
    with LabelledRecording(path, sample_rate_hz=RATE_HZ) as recording:
        list(recording.record([bytes(6 * RATE_HZ)]))
        recording.add_label(replace(NO, start_s=start_s, end_s=end_s))
    ((offset, label),) = _cues(path)
    assert 0 <= offset <= 3 * RATE_HZ
    assert label == "no 0.98"


@pytest.mark.slow
@pytest.mark.parametrize("free_bytes", [0, 43, 44, 5000, 44 + 2 * RATE_HZ + 60])
def test_a_full_disk_is_reported_once_and_the_stream_continues(tmp_path: Path, free_bytes: int) -> None:
    """A limit on the size of files behaves like a full disk: one write is partial, the next one fails."""
    done = python_process(
        "import resource, sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "from pathlib import Path\n"
        "from earmark_cli.output.labelled_recording import LabelledRecording\n"
        "from support.sample_detections import NO, YES\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({free_bytes}, {free_bytes}))\n"
        f"path = Path({str(tmp_path / 'audio.wav')!r})\n"
        f"with LabelledRecording(path, sample_rate_hz={RATE_HZ}) as recording:\n"
        f"    blocks = [b'ab' * 1000] * {RATE_HZ // 1000} + [b''] + [b'cd' * {RATE_HZ}]\n"
        "    for block in recording.record(blocks):\n"
        "        recording.add_label(NO if block else YES)\n"
        "print('continued')\n"
    )
    assert (done.returncode, done.stdout) == (0, "continued\n"), done.stderr
    (line,) = done.stderr.splitlines()
    assert "audio.wav: File too large: the recording stops after" in line
    assert line.endswith(", the stream continues")
    if free_bytes > 44:
        written, _ = soundfile.read(tmp_path / "audio.wav", dtype="int16")
        assert len(written) == min(free_bytes // 2000 * 1000, RATE_HZ)
        assert set(written.tolist()) == {int.from_bytes(b"ab", "little")}


def test_no_file_is_overwritten(tmp_path: Path) -> None:
    existing = tmp_path / "existing.txt"
    existing.write_text("old")
    for name, sentence in [
        ("existing.wav", "existing.txt already exists: give --record another name"),
        ("existing.mp3", "give a name that ends in .wav"),
        ("absent/audio.wav", "cannot be written: No such file or directory"),
    ]:
        with pytest.raises(RecordingError, match=sentence):
            LabelledRecording(tmp_path / name, sample_rate_hz=RATE_HZ)
    assert list(tmp_path.iterdir()) == [existing]
    assert existing.read_text() == "old"


def test_the_recording_stops_at_the_size_limit_of_wav(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("earmark_cli.output.labelled_recording._MAX_AUDIO_BYTES", 5000)
    with LabelledRecording(tmp_path / "audio.wav", sample_rate_hz=RATE_HZ) as recording:
        assert len(list(recording.record([bytes(2000)] * 4))) == 4
    assert soundfile.info(tmp_path / "audio.wav").frames == 2000
    assert "cannot be larger than 4 GiB: the recording stops after 0.2 s" in capsys.readouterr().err
