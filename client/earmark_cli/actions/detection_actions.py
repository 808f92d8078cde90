"""The options for what happens at a detection, and the actions that they mean."""

from __future__ import annotations

import argparse
import shlex
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from earmark_cli.actions.after_detection import AfterDetection
from earmark_cli.actions.clip_folder import ClipFolder
from earmark_cli.actions.command_runner import CommandRunner
from earmark_cli.interrupts import before_termination
from earmark_cli.options import number, positive_seconds, whole_number
from earmark_cli.output.console import notice, printable
from earmark_cli.usage_error import UsageError, check_required

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from earmark_client.audio import AudioFormat, Silence
    from earmark_client.events import Detection

    from earmark_cli.output.labelled_recording import LabelledRecording

EXEC_AT_ONCE = 4
"""How many commands of --exec may run at once by default."""

_EXEC_TIMEOUT_S = 60.0
# How long to wait for the last commands before a notice says so, and for commands that were killed.
_QUIET_WAIT_S, _KILL_WAIT_S = 1.0, 10.0
# Before the keyword and, as far as it has been recorded by then, after it.
_CLIP_MARGIN_S = 1.5


def action_options() -> argparse.ArgumentParser:
    """Return a parent parser with the options of actions."""
    parser = argparse.ArgumentParser(add_help=False)
    actions = parser.add_argument_group("actions at a detection")
    actions.add_argument(
        "--exec",
        type=_command,
        metavar="COMMAND",
        help="run this command for each detection, without a shell: the detection is in the environment, as "
        "EARMARK_KEYWORD, EARMARK_MODEL, EARMARK_CONFIDENCE, EARMARK_START, EARMARK_END (seconds), "
        "EARMARK_ID, EARMARK_LEVEL_DBFS, EARMARK_SNR_DB, "
        "EARMARK_SOURCE and, with the options below, EARMARK_CLIP and EARMARK_RECORDING",
    )
    actions.add_argument(
        "--exec-at-once",
        type=whole_number(1, 1000),
        metavar="N",
        help=f"how many of these commands may run at once; others wait (default: {EXEC_AT_ONCE}; with "
        "--jobs each process has its share, at least 1)",
    )
    actions.add_argument(
        "--exec-timeout",
        type=positive_seconds,
        metavar="SECONDS",
        help=f"kill a command that runs for longer (default: {_EXEC_TIMEOUT_S:g})",
    )
    actions.add_argument(
        "--clips",
        type=Path,
        metavar="DIR",
        help="write the audio around each detection to a WAV file in this folder, with a JSON file beside it",
    )
    actions.add_argument(
        "--then-record",
        nargs=2,
        metavar=("SECONDS", "DIR"),
        help="write this much audio after each detection to a WAV file in this folder, for a speech "
        "recognizer for example",
    )
    return parser


class DetectionActions:
    """The actions of one run of a command, by default none.

    `clips`: where to write the audio around a detection. `recordings`: where to write the audio after it,
    and how many seconds of it. `recording`: where to write all audio, labelled with the detections.
    """

    def __init__(
        self,
        *,
        runner: CommandRunner | None = None,
        clips: ClipFolder | None = None,
        recordings: tuple[ClipFolder, float] | None = None,
        recording: LabelledRecording | None = None,
    ) -> None:
        self._runner = runner
        self._clips = clips
        self._recordings = recordings
        self._recording = recording
        self._recorder: AfterDetection | None = None
        self._messages: list[str] = []

    def abort(self) -> None:
        """Release the files that are not complete, kill all commands, and wait until these have ended."""
        for folder in (self._clips, self._recordings and self._recordings[0]):
            if folder is not None:
                folder.release()
        if self._runner is not None:
            self._runner.kill()
            self._runner.wait(_KILL_WAIT_S)

    @property
    def keep_audio_s(self) -> float | None:
        """The audio around a detection that a stream must return."""
        return None if self._clips is None else _CLIP_MARGIN_S

    def begin(
        self, source: str, audio_format: AudioFormat, audio: Iterable[bytes | Silence]
    ) -> Iterable[bytes | Silence]:
        """Begin with the audio of a source; return the blocks to stream."""
        if self._recording is not None:
            audio = self._recording.record(audio)
        if self._recordings is None:
            return audio
        self._recorder = AfterDetection(*self._recordings, source, audio_format)
        return self._recorder.record(audio)

    def run(self, source: str, detection: Detection) -> None:
        """Run the actions for a detection in the audio of a source."""
        if self._recording is not None:
            self._recording.add_label(detection)
        variables = _variables(source, detection)
        if self._clips is not None and detection.audio is not None:
            try:
                path = self._clips.path(source, detection)
                self._clips.write(path, source, detection, detection.audio)
                variables["EARMARK_CLIP"] = str(path)
            except OSError as error:
                self._messages.append(
                    f"--clips: {self._clips.folder}: a file cannot be written: {error.strerror}"
                )
        if self._recorder is not None and (recorded := self._recorder.add(detection)) is not None:
            variables["EARMARK_RECORDING"] = str(recorded)
        if self._runner is not None:
            self._runner.run(variables)

    def discard_before(self, decided_s: float) -> None:
        """Discard the audio before an offset, after which all further detections end."""
        if self._recorder is not None:
            self._recorder.discard_before(decided_s)

    def end(self) -> None:
        """End the audio of a source."""
        if self._recorder is not None:
            self._recorder.end()
            self.print_messages()  # the next source has a recorder of its own

    def print_messages(self) -> None:
        """Print what the actions have to report. Called where nothing else is printed at the same time."""
        messages, self._messages = self._messages, []
        if self._recorder is not None:
            messages += [f"--then-record: {message}" for message in self._recorder.messages()]
        if self._runner is not None:
            messages += [f"--exec: {message}" for message in self._runner.messages()]
        for message in messages:
            notice(f"earmark: {message}")

    def close(self, *, interrupted: bool) -> None:
        """Wait for all commands to end; kill them after an interrupt."""
        self.print_messages()
        try:
            if self._runner is not None and not interrupted:
                if not self._runner.wait(_QUIET_WAIT_S):
                    count = self._runner.unfinished
                    notice(f"earmark: --exec: waiting for commands to end: {count}; Ctrl-C kills them")
                self._runner.wait()
        finally:
            self.abort()
            self.print_messages()


@contextmanager
def detection_actions(
    args: argparse.Namespace, *, recording: LabelledRecording | None = None
) -> Iterator[DetectionActions]:
    """Yield the actions that the options ask for."""
    runner = recordings = None
    if args.exec is None:
        check_required(args, ("exec_at_once", "exec_timeout"), "--exec COMMAND")
    else:
        runner = CommandRunner(
            args.exec,
            concurrency=args.exec_at_once or EXEC_AT_ONCE,
            timeout_s=args.exec_timeout or _EXEC_TIMEOUT_S,
        )
    if args.then_record is not None:
        seconds, folder = args.then_record
        length_s = number(seconds)
        if length_s is None or not 0 < length_s <= 3600:
            raise UsageError(f"--then-record: {seconds!r} is not a number of seconds above 0, up to 3600")
        recordings = ClipFolder(Path(folder)), length_s
    clips = None if args.clips is None else ClipFolder(args.clips)
    actions = DetectionActions(runner=runner, clips=clips, recordings=recordings, recording=recording)
    with before_termination(actions.abort):
        try:
            yield actions
        except BaseException as error:
            actions.close(interrupted=isinstance(error, KeyboardInterrupt))
            raise
        actions.close(interrupted=False)


def _variables(source: str, detection: Detection) -> dict[str, str]:
    """Return the environment variables that describe a detection."""
    levels = {"EARMARK_LEVEL_DBFS": detection.level_dbfs, "EARMARK_SNR_DB": detection.snr_db}
    return {
        **{name: f"{level:.1f}" for name, level in levels.items() if level is not None},
        # A server's keyword may contain control characters, and a variable no NUL.
        "EARMARK_KEYWORD": printable(detection.keyword),
        "EARMARK_MODEL": printable(detection.model),
        "EARMARK_CONFIDENCE": f"{detection.confidence:.4f}",
        "EARMARK_START": f"{detection.start_s:.4f}",
        "EARMARK_END": f"{detection.end_s:.4f}",
        "EARMARK_ID": printable(detection.id),
        "EARMARK_SOURCE": printable(source),
    }


def _command(text: str) -> list[str]:
    try:
        command = shlex.split(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {str(error).lower()}") from None
    if not command:
        raise argparse.ArgumentTypeError("the command is empty")
    return command
