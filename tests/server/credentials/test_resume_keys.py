"""The keys that sign resume tokens: which servers resume the streams of which others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from earmark_server.credentials.resume_keys import read_resume_keys
from earmark_server.settings import Settings, SettingsError
from grpc import StatusCode
from support.server_process import ServerProcess
from support.server_rig import chunks, collect, config, detections, failure, pcm, run, serving

if TYPE_CHECKING:
    from pathlib import Path

ONE, OTHER = "1" * 64, "2" * 64


def key_file(folder: Path, *keys: str) -> str:
    path = folder / "-".join(key[0] for key in keys)
    path.write_text("\n".join(keys) + "\n")
    return str(path)


@pytest.mark.parametrize(
    ("first", "second", "resumes"),
    [
        ([ONE], [ONE], True),
        ([ONE], [OTHER], False),
        ([ONE], [], False),
        ([], [ONE], False),
        ([ONE], [OTHER, ONE], True),
        ([OTHER, ONE], [ONE], False),
    ],
)
def test_another_server_resumes_a_stream_if_and_only_if_it_has_the_key(
    tiny_model_path: Path, tmp_path: Path, first: list[str], second: list[str], resumes: bool
) -> None:
    def file(keys: list[str]) -> str:
        return key_file(tmp_path, *keys) if keys else ""

    async def scenario() -> None:
        data = pcm()
        async with (
            serving(tiny_model_path, resume_key_file=file(first)) as one,
            serving(tiny_model_path, resume_key_file=file(second)) as other,
        ):
            events = await collect(one.stream(config(), *chunks(data)))
            progress = next(event.progress for event in events if event.HasField("progress"))
            resume = {"start_offset": progress.replay_offset, "resume_token": progress.resume_token}
            call = other.stream(config(resume=resume), *(chunks(data) if resumes else ()))
            if resumes:
                assert len(detections(await collect(call))) == 3
                return
            error = await failure(call)
            assert (error.code, error.reason) == (StatusCode.INVALID_ARGUMENT, "BAD_RESUME_TOKEN")

    run(scenario)


@pytest.mark.slow
def test_the_log_states_the_origin_of_the_signing_key(tiny_model_path: Path, tmp_path: Path) -> None:
    for options, expected in (([], "model"), ([f"--resume-key-file={key_file(tmp_path, ONE)}"], "file")):
        arguments = ("--port=0", f"--model={tiny_model_path}", "--log-format=json", *options)
        with ServerProcess(*arguments) as process:
            assert process.wait_for("serving")["resume_key"] == expected


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n \n",
        b"too short\n",
        b"f" * 31,
        b"f" * 257,
        b"f" * 64 + b"\ntoo short\n",
        b"two words " * 8,
        b"\xff" * 64,
        b"\0" * 64,
        (b"f" * 64 + b"\n") * 17,
    ],
)
def test_a_file_with_invalid_keys_is_rejected_and_not_quoted(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "keys"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=f"^--resume-key-file {path} must contain 1 to 16 keys") as caught:
        Settings(resume_key_file=str(path))
    assert "openssl rand -hex 32" in str(caught.value)
    for word in (b"short", b"words", b"ff"):
        assert word.decode() not in str(caught.value)


def test_a_missing_key_file_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        Settings(resume_key_file=str(tmp_path / "none"))
    with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
        Settings(resume_key_file=str(tmp_path))
    with pytest.raises(SettingsError, match=r"^--resume-key-file /dev/null must be a regular file"):
        Settings(resume_key_file="/dev/null")


def test_whitespace_around_keys_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_bytes(b"\n" + b"a" * 32 + b" \r\n\r\n\t" + b"b" * 256)
    assert read_resume_keys(str(path)) == (b"a" * 32, b"b" * 256)
