"""What is installed: versions, extras, programs and devices."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass

from earmark_audio.extras import installed_packages, installed_version
from earmark_client.errors import EarmarkError
from earmark_client.microphone import input_devices

_CLIENT = ("grpcio", "protobuf", "numpy", "soundfile")
_EXTRAS = ("server", "mic", "formats", "plot", "web", "otel", "train")
_PROXIES = ("http_proxy", "https_proxy", "grpc_proxy", "no_proxy", "no_grpc_proxy")


@dataclass(frozen=True, slots=True)
class Installation:
    """The installation. A package that is missing has the version None."""

    version: str
    python: str
    platform: str
    client: dict[str, str | None]
    extras: dict[str, dict[str, str | None]]
    ffmpeg: str | None
    """The version of the program; None if it is not installed."""
    microphone: str
    """The default microphone, or why there is none."""
    variables: tuple[str, ...]
    """Names of the environment variables that Earmark reads. Their values may be secret."""


def describe_installation() -> Installation:
    """Return what is installed here."""
    variables = (name for name in os.environ if name.startswith("EARMARK_") or name.lower() in _PROXIES)
    return Installation(
        version=importlib.metadata.version("earmark"),
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
        client={name: installed_version(name) for name in _CLIENT},
        extras={extra: installed_packages(extra) for extra in _EXTRAS},
        ffmpeg=_ffmpeg(),
        microphone=_microphone(),
        variables=tuple(sorted(variables)),
    )


def _ffmpeg() -> str | None:
    if (path := shutil.which("ffmpeg")) is None:
        return None
    try:
        done = subprocess.run(
            [path, "-version"], stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return f"{path} does not run"
    first, *_ = done.stdout.decode(errors="replace").splitlines() or [f"{path} does not run"]
    return first.removeprefix("ffmpeg version ").partition(" ")[0]


def _microphone() -> str:
    try:
        devices = input_devices()
    except EarmarkError as error:
        return str(error)
    for device in devices:
        if device.default:
            return f"{device.name} ({device.channels} channels, {device.sample_rate_hz} Hz)"
    return "none" if not devices else f"no default, {len(devices)} devices"
