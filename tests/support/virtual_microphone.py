"""A virtual microphone: a real audio server whose only source is a pipe that a test fills in real time.

Needs PulseAudio and its connection to PortAudio: on Debian the packages pulseaudio,
libasound2-plugins and libportaudio2.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from support.environment import clean_environment

if TYPE_CHECKING:
    from collections.abc import Iterator

RATE_HZ = 16_000
BLOCK = RATE_HZ // 10


class Microphone:
    """A private PulseAudio with a pipe as the microphone: silence, and the samples that a test plays."""

    def __init__(self, folder: Path) -> None:
        self._pipe = folder / "microphone"
        self._socket = folder / "native"
        # ALSA's default device, which PortAudio opens, is this PulseAudio and no device of the machine.
        (folder / ".asoundrc").write_text("pcm.!default { type pulse }\nctl.!default { type pulse }\n")
        self.own = {
            "HOME": str(folder),
            "XDG_RUNTIME_DIR": str(folder),
            "PULSE_SERVER": f"unix:{self._socket}",
        }
        self.environment = clean_environment(**self.own)
        self._played = np.zeros(0, "<i2")
        self._lock = threading.Lock()
        self._over = threading.Event()

    @contextmanager
    def open(self) -> Iterator[None]:
        command = ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--log-target=stderr"]
        command += ["-L", f"module-native-protocol-unix socket={self._socket} auth-anonymous=1"]
        command += ["-L", f"module-pipe-source file={self._pipe} format=s16le rate={RATE_HZ} channels=1"]
        command += ["-L", "module-null-sink"]  # Firefox processes no sound without anything to play it
        with subprocess.Popen(command, env=self.environment, stderr=subprocess.PIPE) as daemon:
            self.unplug = daemon.kill
            log: list[bytes] = []
            assert daemon.stderr is not None
            reading = threading.Thread(target=log.extend, args=[daemon.stderr])
            reading.start()
            feeding = threading.Thread(target=self._feed)
            try:
                deadline_s = time.monotonic() + 20
                while not (self._socket.exists() and self._pipe.exists()):
                    assert daemon.poll() is None, b"".join(log).decode()
                    assert time.monotonic() < deadline_s, b"".join(log).decode()
                    time.sleep(0.02)
                feeding.start()
                yield
            finally:
                self._over.set()
                # First, because nothing reads a source without a recorder: writing to it may block.
                daemon.terminate()
                daemon.wait(10)
                if feeding.ident is not None:
                    feeding.join()
                reading.join()

    def unload(self) -> None:
        """Pull out the microphone alone: the audio server goes on."""
        modules = [line.split("\t") for line in self._pactl("list", "short", "modules").splitlines()]
        for number, name, *_ in modules:
            if name in {"module-null-sink", "module-pipe-source"}:  # the sink's monitor would take its place
                self._pactl("unload-module", number)

    def load(self) -> None:
        """Plug the microphone in again."""
        settings = f"file={self._pipe} format=s16le rate={RATE_HZ} channels=1"
        self._pactl("load-module", "module-pipe-source", *settings.split())
        threading.Thread(target=self._feed, daemon=True).start()

    def _pactl(self, *words: str) -> str:
        command = ["pactl", *words]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True)
        return done.stdout

    def play(self, samples: np.ndarray) -> None:
        with self._lock:
            self._played = np.concatenate([self._played, samples.astype("<i2")])

    def _feed(self) -> None:
        descriptor = os.open(self._pipe, os.O_WRONLY)
        due_s = time.monotonic()
        while not self._over.wait(max(0.0, due_s - time.monotonic())):
            with self._lock:
                block, self._played = self._played[:BLOCK], self._played[BLOCK:]
            try:
                os.write(descriptor, np.pad(block, (0, BLOCK - len(block))).tobytes())
            except BrokenPipeError:  # unplugged
                break
            due_s += 0.1
        os.close(descriptor)


@contextmanager
def plugged_in() -> Iterator[Microphone]:
    """Yield a microphone; skip the test where there can be none."""
    if shutil.which("pulseaudio") is None:
        pytest.skip("no pulseaudio: on Debian, install pulseaudio, libasound2-plugins and libportaudio2")
    try:
        import sounddevice  # noqa: F401
    except (ImportError, OSError) as error:
        pytest.skip(f"no sounddevice or no PortAudio: {error}")
    # Not pytest's folder: the path of a socket must be short.
    with tempfile.TemporaryDirectory(prefix="earmark-") as folder:
        microphone = Microphone(Path(folder))
        with microphone.open():
            listed = subprocess.run(
                [sys.executable, "-m", "earmark_cli", "listen", "--list-devices"],
                capture_output=True,
                text=True,
                timeout=30,
                env=microphone.environment,
                check=False,
            )
            if "default" not in listed.stdout:
                pytest.skip("PortAudio does not see PulseAudio: on Debian, install libasound2-plugins")
            yield microphone
