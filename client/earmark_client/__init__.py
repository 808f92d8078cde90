"""The Earmark client: keyword spotting in live audio, over gRPC.

`Client` is for asyncio, `SyncClient` for synchronous code. All offsets and lengths are float seconds;
offsets count from the start of the stream's audio. All deliberate errors are subclasses of
`EarmarkError`.

    import asyncio
    from earmark_client import Client, Detection, Recording

    async def main() -> None:
        with Recording("speech.flac") as audio:
            async with Client("localhost:50051") as client:
                async for event in client.stream(audio, sample_rate_hz=audio.sample_rate_hz):
                    if isinstance(event, Detection):
                        print(event.keyword, event.start_s, event.end_s, event.confidence)

    asyncio.run(main())
"""

from typing import TYPE_CHECKING

from earmark_audio.lazy_names import lazy_names

if TYPE_CHECKING:
    from earmark_client.audio import Chunk, Encoding, KeywordSetting, Silence
    from earmark_client.audio_clip import AudioClip
    from earmark_client.channel_streams import stream_channels
    from earmark_client.client import Client
    from earmark_client.credentials import Tls
    from earmark_client.errors import (
        AccessError,
        ConnectionLostError,
        EarmarkError,
        IncompatibleServerError,
        InvalidRequestError,
        MicrophoneError,
        NotInstalledError,
        RecordingError,
        ServerBusyError,
        ServerDrainingError,
        ServerFaultError,
        ServerUnreachableError,
        TimedOutError,
        UnknownModelError,
        UntrustedServerError,
    )
    from earmark_client.events import (
        ActiveKeyword,
        ActiveModel,
        AudioWarning,
        Classification,
        ClassScore,
        Detection,
        Ended,
        Event,
        Health,
        ModelInfo,
        ModelMetric,
        Progress,
        Reconnecting,
        Resumed,
        Scores,
        SpotResult,
        Started,
        TrainingSource,
    )
    from earmark_client.microphone import InputDevice, Microphone, input_devices
    from earmark_client.recording import Recording
    from earmark_client.sync_client import SyncClient

__all__ = [
    "AccessError",
    "ActiveKeyword",
    "ActiveModel",
    "AudioClip",
    "AudioWarning",
    "Chunk",
    "ClassScore",
    "Classification",
    "Client",
    "ConnectionLostError",
    "Detection",
    "EarmarkError",
    "Encoding",
    "Ended",
    "Event",
    "Health",
    "IncompatibleServerError",
    "InputDevice",
    "InvalidRequestError",
    "KeywordSetting",
    "Microphone",
    "MicrophoneError",
    "ModelInfo",
    "ModelMetric",
    "NotInstalledError",
    "Progress",
    "Reconnecting",
    "Recording",
    "RecordingError",
    "Resumed",
    "Scores",
    "ServerBusyError",
    "ServerDrainingError",
    "ServerFaultError",
    "ServerUnreachableError",
    "Silence",
    "SpotResult",
    "Started",
    "SyncClient",
    "TimedOutError",
    "Tls",
    "TrainingSource",
    "UnknownModelError",
    "UntrustedServerError",
    "input_devices",
    "stream_channels",
]

_MODULES = (
    "events",
    "errors",
    "audio",
    "audio_clip",
    "recording",
    "microphone",
    "client",
    "channel_streams",
    "sync_client",
    "credentials",
)


# Importing this package is fast, and a program can set gRPC's environment variables after it: gRPC reads them
# during its import.
__getattr__ = lazy_names(__name__, __all__, _MODULES)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
