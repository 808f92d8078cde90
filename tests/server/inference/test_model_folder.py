"""`--model-dir`: every model file in a folder is served, as the files come and go."""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import os
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from earmark.v1 import keyword_spotting_service_pb2 as rpcs
from earmark_server.inference import model_folder, model_registry
from earmark_server.reload import BadFileError
from earmark_server.settings import Settings, SettingsError
from support import tiny_model
from support.deadlines import DEADLINE_S
from support.harmful_models import crashing_model
from support.server_rig import chunks, collect, config, detections, failure, pcm, run, serving

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.server_rig import Rig


@pytest.fixture(autouse=True)
def _short_check_interval(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "earmark_server")
    monkeypatch.setattr(model_registry, "_CHECK_INTERVAL_S", 0.05)


def write(folder: Path, file: str, name: str, **changes: Any) -> None:
    document = {**tiny_model.metadata(), "name": name, **changes}
    tiny_model.build(folder / "part", document=document)
    (folder / "part").replace(folder / file)


async def models(rig: Rig) -> list[Any]:
    return (await rig.stub.ListModels(rpcs.ListModelsRequest(), timeout=DEADLINE_S)).models


async def served(rig: Rig) -> list[str]:
    return [m.name for m in await models(rig)]


async def until_served(rig: Rig, *names: str) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            if (await served(rig))[1:] == list(names):
                return
            await asyncio.sleep(0.02)


async def until_rejected(caplog: pytest.LogCaptureFixture, count: int) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            if sum(r.message == "model of the folder rejected" for r in caplog.records) >= count:
                return
            await asyncio.sleep(0.02)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "models"
    path.mkdir()
    return path


def settings(tiny_model_path: Path, folder: Path) -> dict[str, Any]:
    return {"model": (str(tiny_model_path),), "model_dir": str(folder)}


def test_files_of_the_folder_are_served_and_new_ones_are_picked_up(tiny_model_path: Path, folder: Path):
    write(folder, "a.onnx", "first")

    async def check() -> None:
        async with serving(**settings(tiny_model_path, folder)) as rig:
            assert (await served(rig))[1:] == ["first"]
            write(folder, "b.onnx", "second")
            await until_served(rig, "first", "second")
            events = await collect(rig.stream(config(model="second"), *chunks(pcm())))
            assert events[0].started.model == "second"
            assert len(detections(events)) == 4

    run(check)


def test_a_removed_model_finishes_its_streams_and_has_no_new_ones(tiny_model_path: Path, folder: Path):
    write(folder, "a.onnx", "first")

    async def check() -> None:
        async with serving(**settings(tiny_model_path, folder)) as rig:
            call = rig.stub.StreamingSpot(timeout=2 * DEADLINE_S)
            audio = list(chunks(pcm()))
            for request in (config(model="first"), *audio[: len(audio) // 2]):
                await call.write(request)
            assert (await call.read()).started.model == "first"
            (folder / "a.onnx").unlink()
            await until_served(rig)
            for request in audio[len(audio) // 2 :]:
                await call.write(request)
            await call.done_writing()
            events = []
            while (event := await call.read()) is not grpc.aio.EOF:
                events.append(event)
            assert len(detections(events)) == 4
            error = await failure(rig.stream(config(model="first"), *chunks(pcm())))
            assert error.code is grpc.StatusCode.NOT_FOUND
            write(folder, "a.onnx", "first")  # it may come back
            await until_served(rig, "first")

    run(check)


@pytest.mark.slow
def test_bad_files_and_names_that_are_taken_are_rejected_and_the_others_stay(
    tiny_model_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
):
    write(folder, "a.onnx", "first")
    (folder / "b.onnx").write_bytes(b"no model")
    (folder / "readme.txt").write_text("not a model either")

    async def check() -> None:
        async with serving(**settings(tiny_model_path, folder)) as rig:
            assert (await served(rig))[1:] == ["first"]
            write(folder, "c.onnx", "first")
            await until_rejected(caplog, 2)
            (folder / "a.onnx").write_bytes(b"truncated")
            await until_rejected(caplog, 3)
            assert (await served(rig))[1:] == ["first"]
            write(folder, "b.onnx", "second")  # repaired
            await until_served(rig, "first", "second")

    run(check)


def test_what_is_no_regular_file_is_rejected_with_the_cause_and_the_others_are_served(
    tiny_model_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
):
    os.mkfifo(folder / "a.onnx")
    (folder / "b.onnx").mkdir()
    (folder / "c.onnx").symlink_to("missing")
    (folder / "d.onnx").symlink_to("/dev/zero")
    write(folder, "e \udce9\n.onnx", "first")

    async def check() -> None:
        async with serving(**settings(tiny_model_path, folder)) as rig:
            write(folder, "f.onnx", "second")
            await until_served(rig, "first", "second")
            assert len(detections(await collect(rig.stream(config(model="second"), *chunks(pcm()))))) == 4

    run(check)
    problems = [r.earmark["problem"] for r in caplog.records if r.message == "model of the folder rejected"]
    assert problems == [
        f"The model file {folder}/a.onnx must be a regular file, not a pipe or a device.",
        f"The model file {folder}/b.onnx cannot be read: Is a directory.",
        f"The model file {folder}/c.onnx cannot be read: No such file or directory.",
        f"The model file {folder}/d.onnx must be a regular file, not a pipe or a device.",
    ]


def test_between_two_new_files_the_other_files_are_checked(
    tiny_model_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    write(folder, "a.onnx", "first")
    validated: list[list[str]] = []  # the models that were served when a file was validated

    async def check() -> None:
        async with serving(**settings(tiny_model_path, folder)) as rig:

            async def validate(_: bytes) -> None:
                if not validated:
                    write(folder, "c.onnx", "third")
                    write(folder, "d.onnx", "fourth")
                if len(validated) == 1:
                    (folder / "a.onnx").unlink()
                validated.append((await served(rig))[1:])

            monkeypatch.setattr(model_registry, "validate_model", validate)
            write(folder, "b.onnx", "second")
            await until_served(rig, "second", "third", "fourth")

    run(check)
    assert validated == [["first"], ["first", "second"], ["second", "third"]]


@pytest.mark.parametrize("through", ["the folder", "a link to the folder"])
def test_a_file_that_is_served_anyway_does_not_count(
    through: str, folder: Path, caplog: pytest.LogCaptureFixture
):
    write(folder, "a.onnx", "first")
    write(folder, "b.onnx", "second")
    (folder.parent / "link").symlink_to(folder)
    model = folder if through == "the folder" else folder.parent / "link"

    async def check() -> None:
        async with serving(model=(str(model / "b.onnx"),), model_dir=str(folder)) as rig:
            assert await served(rig) == ["second", "first"]
            write(folder, "c.onnx", "third")
            await until_served(rig, "first", "third")

    run(check)
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


def test_a_changed_file_may_have_another_model(tiny_model_path: Path, folder: Path):
    write(folder, "a.onnx", "first")

    async def check() -> None:
        async with serving(**settings(tiny_model_path, folder)) as rig:
            write(folder, "a.onnx", "other", version="2")
            await until_served(rig, "other")

    run(check)


def test_an_empty_folder_can_be_served_and_a_missing_one_is_an_error(tiny_model_path: Path, folder: Path):
    async def check() -> None:
        async with serving(**settings(tiny_model_path, folder)) as rig:
            assert len(await served(rig)) == 1

    run(check)
    with pytest.raises(SettingsError, match="--model-dir must be a folder"):
        Settings(model_dir=str(folder / "none"))
    with pytest.raises(SettingsError, match="contradict each other"):
        Settings(model_dir=str(folder), model_sha256=("0" * 64,))


def test_while_the_folder_cannot_be_read_its_models_stay(
    tiny_model_path: Path, folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    write(folder, "a.onnx", "first")
    attempts = 0

    def fail(_: str) -> list[str]:
        nonlocal attempts
        attempts += 1
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async def check() -> None:
        async with serving(**settings(tiny_model_path, folder)) as rig:
            with monkeypatch.context() as patch:
                patch.setattr(model_folder.os, "listdir", fail)
                async with asyncio.timeout(DEADLINE_S):
                    while attempts < 3:  # noqa: ASYNC110
                        await asyncio.sleep(0.02)
                assert (await served(rig))[1:] == ["first"]
            write(folder, "b.onnx", "second")
            await until_served(rig, "first", "second")

    run(check)
    assert caplog.messages.count("model folder cannot be read") == 1
    assert "model retired" not in caplog.messages


def test_a_folder_that_cannot_be_read_at_the_start_is_served_later(
    tiny_model_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    write(folder, "a.onnx", "first")
    listdir, failures = os.listdir, [OSError(errno.ESTALE, os.strerror(errno.ESTALE))]

    def fail_once(path: str) -> list[str]:
        if failures:
            raise failures.pop()
        return listdir(path)

    monkeypatch.setattr(model_folder.os, "listdir", fail_once)

    async def check() -> None:
        async with serving(**settings(tiny_model_path, folder)) as rig:
            await until_served(rig, "first")

    run(check)


@pytest.mark.parametrize("error", [BadFileError("It cannot be read: Too many open files."), MemoryError()])
def test_a_file_that_could_not_be_read_is_read_again(
    tiny_model_path: Path,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
):
    write(folder, "a.onnx", "first")
    read_file, failures = model_registry.read_file, [error] * 4

    def fail_at_first(path: str, name: str) -> bytes:
        if failures:
            raise failures.pop()
        return read_file(path, name)

    monkeypatch.setattr(model_registry, "read_file", fail_at_first)

    async def check() -> None:
        async with serving(**settings(tiny_model_path, folder)) as rig:
            await until_served(rig, "first")
            failures.extend([error] * 3)
            write(folder, "b.onnx", "second")
            await until_served(rig, "first", "second")

    run(check)
    assert caplog.messages.count("model of the folder rejected") == 2


def test_a_copy_with_the_same_name_is_served_once_the_other_file_is_gone(
    tiny_model_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
):
    write(folder, "a.onnx", "first")

    async def check() -> None:
        async with serving(**settings(tiny_model_path, folder)) as rig:
            write(folder, "b.onnx", "first", version="2.0.0")
            await until_rejected(caplog, 1)
            (folder / "a.onnx").unlink()
            async with asyncio.timeout(DEADLINE_S):
                while "2.0.0" not in [one.version for one in await models(rig)]:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)

    run(check)


def test_an_unexpected_error_does_not_end_the_checks_of_the_model_files(
    tiny_model_path: Path, folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    check_folder, failures = model_folder.ModelFolder.check, [RuntimeError("a fault")]

    def fail_once(self: model_folder.ModelFolder) -> Any:
        if failures:
            raise failures.pop()
        return check_folder(self)

    monkeypatch.setattr(model_folder.ModelFolder, "check", fail_once)

    async def check() -> None:
        async with serving(**settings(tiny_model_path, folder)) as rig:
            write(folder, "a.onnx", "first")
            await until_served(rig, "first")

    run(check)
    assert [str(one.exc_info[1]) for one in caplog.records if one.exc_info] == ["a fault"]


def problems(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.earmark["problem"] for r in caplog.records if r.message == "model of the folder rejected"]


def test_files_that_cannot_be_loaded_at_the_start_are_left_out_with_their_reasons(
    tiny_model_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
):
    (folder / "a.onnx").write_bytes(crashing_model(folder / "part"))
    (folder / "b.onnx").write_text("no model")
    write(folder, "c.onnx", "first")
    (folder / "d.onnx").write_bytes((folder / "c.onnx").read_bytes()[:-100])
    write(folder, "e.onnx", "second")
    write(folder, "f.onnx", "first")

    async def check() -> None:
        async with serving(**settings(tiny_model_path, folder)) as rig:
            assert (await served(rig))[1:] == ["first", "second"]

    run(check)
    crash, text, truncated, taken = problems(caplog)
    assert crash != text
    for problem in (text, truncated):
        assert problem.startswith("The file is not an ONNX model that this runtime can run:")
    assert taken.startswith(f"{folder}/f.onnx has the name first, as {folder}/c.onnx has.")


def test_a_model_that_takes_long_at_the_start_is_served_after_it(
    tiny_model_path: Path, folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    write(folder, "a.onnx", "first")
    write(folder, "b.onnx", "second")

    async def check() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(model_registry, "_START_TIMEOUT_S", 0)
            async with serving(**settings(tiny_model_path, folder)) as rig:
                await until_served(rig, "first", "second")

    run(check)
    assert problems(caplog) == ["The model did not load within 0 s."] * 2


def test_without_a_process_to_validate_models_the_server_starts(
    tiny_model_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    write(folder, "a.onnx", "first")

    def fail() -> None:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(model_registry, "ModelSandbox", fail)

    async def check() -> None:
        async with serving(**settings(tiny_model_path, folder)) as rig:
            await until_served(rig, "first")

    run(check)


def exchange(folder: Path, *files: str) -> None:
    """Rename files in a circle: each gets the name of the next one."""
    (folder / files[-1]).rename(folder / "part")
    for old, new in reversed(list(itertools.pairwise(files))):
        (folder / old).rename(folder / new)
    (folder / "part").rename(folder / files[0])


def exchange_two(folder: Path) -> None:
    exchange(folder, "a.onnx", "b.onnx")


def exchange_three(folder: Path) -> None:
    exchange(folder, "a.onnx", "b.onnx", "c.onnx")


def exchange_contents(folder: Path) -> None:
    first, second = (folder / "a.onnx").read_bytes(), (folder / "b.onnx").read_bytes()
    (folder / "a.onnx").write_bytes(second)
    (folder / "b.onnx").write_bytes(first)


def exchange_with_garbage(folder: Path) -> None:
    exchange(folder, "a.onnx", "garbage.onnx")


def rename(folder: Path) -> None:
    (folder / "a.onnx").rename(folder / "d.onnx")


def replace(folder: Path) -> None:
    (folder / "b.onnx").rename(folder / "a.onnx")


def shift(folder: Path) -> None:
    (folder / "c.onnx").rename(folder / "d.onnx")
    (folder / "b.onnx").rename(folder / "c.onnx")
    (folder / "a.onnx").rename(folder / "b.onnx")


def copy_and_change(folder: Path) -> None:
    """The model moves to another file, and its file has a new one."""
    (folder / "d.onnx").write_bytes((folder / "a.onnx").read_bytes())
    write(folder, "a.onnx", "fourth")


@pytest.mark.parametrize(
    "change",
    [
        exchange_two,
        exchange_three,
        exchange_contents,
        exchange_with_garbage,
        rename,
        replace,
        shift,
        copy_and_change,
    ],
)
def test_renamed_files_are_served_as_they_are_in_the_folder(
    tiny_model_path: Path,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path], None],
):
    async def validate(_: bytes) -> None:
        """Validate nothing: processes take long."""

    monkeypatch.setattr(model_registry, "validate_model", validate)
    (folder / "garbage.onnx").write_bytes(b"garbage")
    names = {b"garbage": ""}
    for file, name in (("a.onnx", "first"), ("b.onnx", "second"), ("c.onnx", "third")):
        write(folder, file, name)
        names[(folder / file).read_bytes()] = name

    def expected() -> dict[str, str]:
        found = {str(path): names.get(path.read_bytes(), "fourth") for path in folder.glob("*.onnx")}
        return {path: name for path, name in found.items() if name}

    async def check() -> None:
        async with serving(**settings(tiny_model_path, folder)) as rig:
            assert (await served(rig))[1:] == ["first", "second", "third"]
            change(folder)
            files = rig.server._service.loaded.result().models._names.served
            async with asyncio.timeout(DEADLINE_S):
                while expected() != {file.path: model.metadata.name for file, model in files.items()}:
                    if change in (exchange_two, exchange_three, exchange_contents):
                        assert sorted((await served(rig))[1:]) == ["first", "second", "third"]
                    await asyncio.sleep(0.01)
            assert sorted((await served(rig))[1:]) == sorted(expected().values())
            events = await collect(rig.stream(config(model="third"), *chunks(pcm())))
            assert len(detections(events)) == 4

    run(check)
    assert not any("has the name" in problem for problem in problems(caplog))
