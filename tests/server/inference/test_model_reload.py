"""Hot reload of a model file: a valid file replaces the model, an invalid one is rejected."""

from __future__ import annotations

import asyncio
import errno
import gc
import hashlib
import logging
import os
import time
import weakref
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from earmark.v1 import keyword_spotting_service_pb2 as rpcs
from earmark_server.inference import model_registry, model_sandbox
from earmark_server.inference.kept_models import KeptModels
from earmark_server.reload import BadFileError
from earmark_server.server import StartError
from support import tiny_model
from support.deadlines import DEADLINE_S
from support.harmful_models import endless_model
from support.server_rig import (
    Rig,
    chunks,
    collect,
    config,
    detections,
    duration,
    failure,
    kinds,
    pcm,
    run,
    serving,
)

if TYPE_CHECKING:
    from pathlib import Path

SPOKEN = ["low", "mid", "high", "low"]


@pytest.fixture(autouse=True)
def _short_check_interval(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "earmark_server")
    monkeypatch.setattr(model_registry, "_CHECK_INTERVAL_S", 0.05)


def write(path: Path, **changes: Any) -> None:
    tiny_model.build(path.with_name("new.onnx"), document={**tiny_model.metadata(), **changes})
    path.with_name("new.onnx").replace(path)


async def logged(caplog: pytest.LogCaptureFixture, event: str) -> dict[str, Any]:
    """Wait for a log line and return its fields; each line is returned once."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            for record in caplog.records:
                if record.message == event:
                    caplog.records.remove(record)
                    return record.earmark
            await asyncio.sleep(0.01)


async def version(rig: Rig) -> str:
    listed = await rig.stub.ListModels(rpcs.ListModelsRequest(), timeout=DEADLINE_S)
    return listed.models[0].version


async def detected(rig: Rig) -> tuple[str, list[str]]:
    events = await collect(rig.stream(config(), *chunks(pcm())))
    return events[0].started.model_version, [one.keyword for one in detections(events)]


async def begin(rig: Rig, sent: list[Any], **fields: Any) -> tuple[Any, Any]:
    """Open a stream, send the first requests, and read its first event."""
    call = rig.stub.StreamingSpot(timeout=2 * DEADLINE_S)
    for request in (config(progress_interval=duration(0.1), **fields), *sent):
        await call.write(request)
    return call, (await call.read()).started


async def rest(call: Any) -> list[Any]:
    events = []
    while (event := await call.read()) is not grpc.aio.EOF:
        events.append(event)
    return events


def test_new_streams_use_the_new_model_and_open_ones_finish_with_the_old_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "m.onnx"
    write(path)
    audio = chunks(pcm())

    async def scenario() -> None:
        async with serving(path) as rig:
            uninterrupted = detections(await collect(rig.stream(config(), *audio)))
            old, started = await begin(rig, audio[:20])
            broken, _ = await begin(rig, audio[:20])
            resume, early = rpcs.ResumePoint(), []
            while (event := await broken.read()).progress.received_offset.ToMilliseconds() < 1500:
                early += detections([event])
            resume.resume_token = event.progress.resume_token
            resume.start_offset.CopyFrom(event.progress.replay_offset)
            broken.cancel()

            write(path, version="2.0.0")
            line = await logged(caplog, "model replaced")
            assert (line["model"], line["version"]) == ("tiny", "2.0.0")
            assert await detected(rig) == ("2.0.0", SPOKEN)
            assert await version(rig) == "2.0.0"

            # The open stream continues, and so does the broken one, with the same ids.
            for request in audio[20:]:
                await old.write(request)
            await old.done_writing()
            assert started.model_version == "1.0.0"
            assert detections(await rest(old)) == uninterrupted
            replay = audio[resume.start_offset.ToMilliseconds() // 100 :]
            events = await collect(rig.stream(config(resume=resume), *replay))
            assert events[0].started.model_version == "1.0.0"
            assert early + detections(events) == uninterrupted

    run(scenario)


@pytest.mark.slow
def test_the_old_model_is_unloaded_after_its_last_stream(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "m.onnx"
    write(path)

    async def scenario() -> None:
        async with serving(path, keep_replaced_s=0) as rig:
            stream, _ = await begin(rig, chunks(pcm())[:20])
            event = await stream.read()
            resume = rpcs.ResumePoint(
                start_offset=event.progress.replay_offset, resume_token=event.progress.resume_token
            )
            loaded = rig.server._service.loaded.result()
            old = weakref.ref(loaded.models.current[0])
            assert loaded.models.file_bytes == path.stat().st_size
            session = weakref.ref(old()._session)
            write(path, version="2.0.0")
            await logged(caplog, "model replaced")
            write(path, version="3.0.0")
            await logged(caplog, "model replaced")
            # The second model has no stream and is unloaded; the first one is in use.
            assert (await logged(caplog, "replaced model unloaded"))["sha256"] != old().sha256
            stream.cancel()
            assert (await logged(caplog, "replaced model unloaded"))["sha256"] == old().sha256
            async with asyncio.timeout(DEADLINE_S):
                while session() is not None:
                    gc.collect()
                    await asyncio.sleep(0.01)
            assert old() is None
            assert loaded.models.file_bytes == path.stat().st_size
            failed = await failure(rig.stream(config(resume=resume)))
            assert failed.reason == "BAD_RESUME_TOKEN"
            assert await detected(rig) == ("3.0.0", SPOKEN)

    run(scenario)


async def break_stream(rig: Rig, audio: list[Any]) -> tuple[rpcs.ResumePoint, list[Any]]:
    """Send a part of the audio, break the stream, and return the resume point and the detections."""
    call, _ = await begin(rig, audio[:20])
    resume, early = rpcs.ResumePoint(), []
    while (event := await call.read()).progress.received_offset.ToMilliseconds() < 1500:
        early += detections([event])
    resume.resume_token = event.progress.resume_token
    resume.start_offset.CopyFrom(event.progress.replay_offset)
    call.cancel()
    return resume, early


async def resumed(rig: Rig, resume: rpcs.ResumePoint, audio: list[Any]) -> tuple[str, list[Any]]:
    """Resume a stream; return the version of its model and the detections."""
    replay = audio[resume.start_offset.ToMilliseconds() // 100 :]
    events = await collect(rig.stream(config(resume=resume), *replay))
    return events[0].started.model_version, detections(events)


FEWER = {name: one for name, one in tiny_model.metadata()["keywords"].items() if name != "high"}


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"keywords": FEWER}, {"name": "other"}])
@pytest.mark.parametrize("has_state_dir", [False, True])
def test_a_stream_resumes_after_its_model_was_replaced_and_the_server_restarted(
    tmp_path: Path, changes: dict[str, Any], has_state_dir: bool
) -> None:
    path = tmp_path / "m.onnx"
    write(path)
    audio = chunks(pcm())
    options = {"state_dir": str(tmp_path / "state")} if has_state_dir else {}

    async def scenario() -> None:
        async with serving(path, **options) as rig:
            uninterrupted = detections(await collect(rig.stream(config(), *audio)))
            resume, early = await break_stream(rig, audio)
        write(path, version="2.0.0", **changes)
        async with serving(path, **options) as rig:
            version, rest = await resumed(rig, resume, audio)
            assert version == "1.0.0"
            assert early + rest == uninterrupted
            assert (await detected(rig))[0] == "2.0.0"

    run(scenario)


def test_a_stream_resumes_where_the_new_model_is_not_loaded_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, audio = tmp_path / "m.onnx", chunks(pcm())
    write(path)

    async def scenario() -> None:
        monkeypatch.setattr(model_registry, "_CHECK_INTERVAL_S", DEADLINE_S)
        async with serving(path) as late:
            write(path, version="2.0.0")
            async with serving(path) as early:
                resume, _ = await break_stream(early, audio)
            assert (await resumed(late, resume, audio))[0] == "2.0.0"

    run(scenario)


def test_a_damaged_copy_is_ignored_with_a_line_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, audio = tmp_path / "m.onnx", chunks(pcm())
    write(path)

    async def scenario() -> None:
        async with serving(path) as rig:
            resume, _ = await break_stream(rig, audio)
        (copy,) = (tmp_path / ".earmark-kept").iterdir()
        content = copy.read_bytes()
        copy.write_bytes(content[:-1])
        # The name of this one is right, but it is no model.
        garbage = b"garbage" * 1000
        copy.with_name(f"{hashlib.sha256(garbage).hexdigest()}.onnx").write_bytes(garbage)
        for each in copy.parent.iterdir():
            os.utime(each, (time.time() + 60,) * 2)
        write(path, version="2.0.0")
        async with serving(path) as rig:
            for _ in range(3):
                assert (await failure(rig.stream(config(resume=resume)))).reason == "BAD_RESUME_TOKEN"
            assert (await detected(rig)) == ("2.0.0", SPOKEN)
        problems = [one.earmark["problem"] for one in caplog.records if one.message == "kept model rejected"]
        assert len(problems) == 2
        assert any("is damaged" in one for one in problems)
        assert any("not an ONNX model" in one for one in problems)

    run(scenario)


def test_with_a_pinned_model_no_other_one_runs(tmp_path: Path) -> None:
    path, audio = tmp_path / "m.onnx", chunks(pcm())
    write(path)

    async def scenario() -> None:
        async with serving(path) as rig:
            resume, _ = await break_stream(rig, audio)
        write(path, version="2.0.0")
        async with serving(path, model_sha256=(hashlib.sha256(path.read_bytes()).hexdigest(),)) as rig:
            assert (await failure(rig.stream(config(resume=resume)))).reason == "BAD_RESUME_TOKEN"

    run(scenario)


def test_a_folder_that_cannot_be_used_is_logged_beside_the_model_and_an_error_as_state_dir(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "m.onnx"
    write(path)
    (tmp_path / ".earmark-kept").touch()

    async def scenario() -> None:
        async with serving(path) as rig:
            line = await logged(caplog, "models not kept")
            assert "File exists" in line["problem"]
            assert "--state-dir" in line["problem"]
            assert (await detected(rig)) == ("1.0.0", SPOKEN)
        with pytest.raises(StartError, match="state-file/models cannot be created: Not a directory"):
            async with serving(path, state_dir=str(tmp_path / "state-file")):
                pass

    (tmp_path / "state-file").touch()
    run(scenario)


def test_models_that_no_stream_uses_are_bounded_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_registry, "_MAX_UNUSED", 1)
    path = tmp_path / "m.onnx"
    write(path)

    async def scenario() -> None:
        async with serving(path) as rig:
            first = rig.server._service.loaded.result().models.current[0].sha256
            for number in (2, 3):
                write(path, version=f"{number}.0.0")
                await logged(caplog, "model replaced")
            assert (await logged(caplog, "replaced model unloaded"))["sha256"] == first

    run(scenario)


@pytest.mark.slow
def test_an_invalid_model_file_is_rejected_and_the_old_model_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.onnx"
    write(path)
    good = path.read_bytes()
    document = tiny_model.metadata()
    fewer = {name: one for name, one in document["keywords"].items() if name != "high"}
    bad = [
        (b"garbage" * 1000, "not an ONNX model"),
        (b"", "not an ONNX model"),
        (good[: len(good) // 2], "not an ONNX model"),
        (tiny_model.build(tmp_path / "o.onnx", document={**document, "name": "other"}).read_bytes(), "other"),
        (
            tiny_model.build(tmp_path / "o.onnx", document={**document, "keywords": fewer}).read_bytes(),
            "keywords",
        ),
        (endless_model(tmp_path / "o.onnx"), "did not load within"),
        (None, "No such file"),
    ]

    async def scenario() -> None:
        async with serving(path) as rig:
            for content, problem in bad:
                slow = problem == "did not load within"
                monkeypatch.setattr(model_sandbox, "_VALIDATION_TIMEOUT_S", 1 if slow else DEADLINE_S)
                if content is None:
                    path.unlink()
                else:
                    path.write_bytes(content)
                line = await logged(caplog, "new model rejected")
                assert problem in line["problem"], line
                assert await detected(rig) == ("1.0.0", SPOKEN)
            # The same content as before changes nothing; a valid new version is loaded.
            path.write_bytes(good)
            write(path, version="2.0.0")
            assert (await logged(caplog, "model replaced"))["version"] == "2.0.0"
            assert kinds(await collect(rig.stream(config())))[-1] == "ended"

    run(scenario)


def test_a_full_disk_is_logged_and_leaves_nothing_behind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.onnx"
    write(path)

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)

    async def scenario() -> None:
        async with serving(path, state_dir=str(tmp_path / "state")) as rig:
            line = await logged(caplog, "models not kept")
            assert "No space left on device" in line["problem"]
            assert (await detected(rig)) == ("1.0.0", SPOKEN)

    run(scenario)
    assert not list((tmp_path / "state" / "models").iterdir())


def test_a_new_model_that_could_not_be_read_is_read_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.onnx"
    write(path)
    read_file, failures = model_registry.read_file, [OSError(errno.EMFILE, "Too many open files")] * 3

    def fail_at_first(path: str, name: str) -> bytes:
        if failures:
            raise failures.pop()
        return read_file(path, name)

    monkeypatch.setattr(model_registry, "read_file", fail_at_first)

    async def scenario() -> None:
        async with serving(path):
            write(path, version="2.0.0")
            assert "Too many open files" in (await logged(caplog, "new model rejected"))["problem"]
            assert (await logged(caplog, "model replaced"))["version"] == "2.0.0"
            assert "new model rejected" not in caplog.messages

    run(scenario)


def test_a_copy_that_could_not_be_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path, audio = tmp_path / "m.onnx", chunks(pcm())
    write(path)
    monkeypatch.setattr(model_registry, "_RETRY_COPY_S", 0.0)
    read, failures = KeptModels.read, [MemoryError(), BadFileError("Too many open files")]

    def fail_at_first(self: KeptModels, sha256: str) -> bytes:
        if failures:
            raise failures.pop()
        return read(self, sha256)

    async def scenario() -> None:
        async with serving(path) as rig:
            resume, _ = await break_stream(rig, audio)
        write(path, version="2.0.0")
        monkeypatch.setattr(KeptModels, "read", fail_at_first)
        async with serving(path) as rig:
            for _ in range(2):
                assert (await failure(rig.stream(config(resume=resume)))).reason == "BAD_RESUME_TOKEN"
            assert (await resumed(rig, resume, audio))[0] == "1.0.0"

    run(scenario)
    assert caplog.messages.count("kept model rejected") == 2


def test_a_copy_that_could_not_be_kept_is_kept_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.onnx"
    write(path)
    monkeypatch.setattr(model_registry, "EXTEND_INTERVAL_S", 0.0)
    fsync, failures = os.fsync, [OSError(errno.ENOSPC, "No space left on device")] * 3

    def fail_at_first(descriptor: int) -> None:
        if failures:
            raise failures.pop()
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail_at_first)
    copies = tmp_path / "state" / "models"

    async def scenario() -> None:
        async with serving(path, state_dir=str(tmp_path / "state")), asyncio.timeout(DEADLINE_S):
            while not list(copies.glob("*.onnx")):  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    run(scenario)
    assert caplog.messages.count("models not kept") == 1
