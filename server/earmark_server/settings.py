"""The server's settings: each one declared once, with what it allows; command_line.py reads them."""

from __future__ import annotations

import ipaddress
import math
import os
import re
import sys
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, get_type_hints

from earmark_server.credentials.resume_keys import read_resume_keys

if TYPE_CHECKING:
    from dataclasses import Field

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")


class SettingsError(ValueError):
    """A setting has a value that it cannot take; the message says what is allowed."""


def _setting(
    default: Any,
    help_text: str,
    *,
    unit: str = "",
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """Declare one setting: its default, what it is for, its unit, and what it allows."""
    about = {"help": help_text, "unit": unit, "low": low, "high": high, "choices": choices}
    return field(default=default, metadata=about)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a server runs. Making one checks every value and raises SettingsError for a wrong one."""

    host: str = _setting(
        "127.0.0.1", "address to listen on; other than loopback only with a certificate, or --insecure"
    )
    port: int = _setting(
        50051, "port to listen on; 0 picks a free one, which the log names", low=0, high=65535
    )
    insecure: bool = _setting(
        False, "listen on a host other than loopback although nothing is encrypted and anybody may connect"
    )
    tls_certificate: str = _setting(
        "",
        "PEM file of the server's certificate and those that lead to its authority; with it everything is "
        "encrypted. Certificates, keys and tokens are read again when their files change: new connections "
        "get the new ones, open streams go on; files that cannot be used are logged, and the old ones stay. "
        "Replace a file by moving another one there",
    )
    tls_key: str = _setting("", "PEM file of that certificate's key, without a password")
    tls_client_ca: str = _setting(
        "",
        "PEM file of authorities: every client, health checks too, must have a certificate that one of them "
        "signed; its common name names the caller in the log",
    )
    token_file: str = _setting(
        "",
        "text file of who may call: lines of a name and the SHA-256 of its token, made by --new-token; every "
        "call must then have a token. The names show in the log. Streams of a token that is taken out are "
        "ended within seconds",
    )
    open_health: bool = _setting(False, "answer the health service without a token")
    model: tuple[str, ...] = _setting(
        (),
        "path of a model file; may be repeated (in the environment: separated by "
        f"'{os.pathsep}'), the first is the default one; none: the model that comes with Earmark",
    )
    keep_replaced_s: float = _setting(
        120.0,
        "a model file that is written anew, with the same name and keywords, is taken over for new streams; "
        "how long the model before it is kept after its last stream, for broken streams to resume on (later "
        "they are refused with BAD_RESUME_TOKEN)",
        unit="seconds",
        low=0,
        high=86_400,
    )
    model_sha256: tuple[str, ...] = _setting(
        (),
        "SHA-256 that a model file must have, in hexadecimal, as the log tells it; a file that differs is "
        "refused, at the start and when it is replaced. Given once for each --model, in the same order",
    )
    workers: int = _setting(
        1,
        "server processes that share the port, each with its own model, threads and limits, and "
        "connections; about one for each core; more than 1 only on Linux",
        low=1,
        high=256,
    )
    threads: int = _setting(1, "threads that one run of a model may use", low=1, high=256)
    max_streams: int = _setting(
        1000,
        "streams open at once in one worker; one more is refused with TOO_MANY_STREAMS",
        low=1,
        high=100_000,
    )
    max_streams_per_client: int = _setting(
        0,
        "of those, streams of one client: of one credential, or without credentials of one address (of one "
        "/64 network in IPv6); one more is refused with TOO_MANY_STREAMS; 0: no limit, as it has to be "
        "behind a proxy, whose address is everybody's",
        low=0,
        high=100_000,
    )
    max_load: float = _setting(
        0.75,
        "share of the engine's time that live streams may take before one more is refused with OVERLOADED; "
        "recordings at full speed take what is left, and do not count",
        low=0.05,
        high=1,
    )
    max_lag_s: float = _setting(
        0.1,
        "how long all audio may have to wait to be listened to before one more stream is refused with "
        "OVERLOADED",
        unit="seconds",
        low=0.01,
        high=60,
    )
    max_calls: int = _setting(
        64,
        "Spot and Classify calls at once in one worker; one more is refused with OVERLOADED",
        low=1,
        high=100_000,
    )
    max_message_bytes: int = _setting(
        16 * 1024 * 1024,
        "longest message taken from a client, so also the longest recording for Spot and Classify",
        unit="bytes",
        low=1024,
        high=1 << 30,
    )
    max_recording_s: float = _setting(
        300.0,
        "longest recording that Spot and Classify take; of a file with more samples a second than stereo at "
        "48 kHz so much less",
        unit="seconds",
        low=1,
        high=36_000,
    )
    max_pending_s: float = _setting(
        2.0,
        "audio of one stream that may wait to be listened to; beyond it the stream is not read",
        unit="seconds",
        low=0.5,
        high=600,
    )
    max_rate: float = _setting(
        0.0,
        "how many times faster than it is spoken a stream's audio is read, counted from its beginning, so "
        "that a client that sends faster is slowed; 0: as fast as it is listened to",
        low=0,
        high=100_000,
    )
    rate_burst_s: float = _setting(
        30.0,
        "audio that a stream may send at any speed before --max-rate slows it, as a stream does that is "
        "resumed",
        unit="seconds",
        low=0,
        high=86_400,
    )
    max_stream_s: float = _setting(
        0.0,
        "longest stream, in audio, what was sent before it was resumed included; a longer one is ended with "
        "STREAM_TOO_LONG once all before was listened to; 0: no limit",
        unit="seconds",
        low=0,
        high=1e9,
    )
    max_keywords: int = _setting(
        256, "keywords that one request may name; more are refused with BAD_CONFIG", low=1, high=10_000
    )
    idle_timeout_s: float = _setting(
        60.0,
        "a call that sends nothing of what is waited for, for this long, is ended with IDLE_STREAM",
        unit="seconds",
        low=0.05,
        high=86_400,
    )
    slow_reader_timeout_s: float = _setting(
        30.0,
        "a stream that reads nothing of what waits for it, for this long, is ended with SLOW_READER; until "
        "then it is not listened to once 256 events wait, or what fits into its connection",
        unit="seconds",
        low=0.05,
        high=86_400,
    )
    max_metadata_bytes: int = _setting(
        8192,
        "longest metadata of a call, names and values and 32 bytes for each of them; a call with more is "
        "refused with RESOURCE_EXHAUSTED",
        unit="bytes",
        low=1024,
        high=1 << 20,
    )
    max_calls_per_connection: int = _setting(
        1000,
        "calls of any kind at once on one connection; more of them wait in the client",
        low=1,
        high=1_000_000,
    )
    handshake_timeout_s: float = _setting(
        20.0,
        "how long a new connection may take to begin with TLS and HTTP/2 before it is closed",
        unit="seconds",
        low=0.1,
        high=600,
    )
    keepalive_s: float = _setting(
        60.0,
        "a connection on which nothing came for this long is asked for a sign of life (an HTTP/2 ping)",
        unit="seconds",
        low=1,
        high=86_400,
    )
    keepalive_timeout_s: float = _setting(
        20.0,
        "how long that may take before the connection is given up, and its streams are ended",
        unit="seconds",
        low=0.1,
        high=600,
    )
    min_ping_interval_s: float = _setting(
        10.0,
        "how often a client may ask for a sign of life; a connection that goes on asking more often is "
        "closed with GOAWAY, ENHANCE_YOUR_CALM",
        unit="seconds",
        low=0,
        high=86_400,
    )
    drain_grace_s: float = _setting(
        30.0,
        "how long open streams may go on after SIGTERM or SIGINT before they are ended",
        unit="seconds",
        low=0,
        high=3600,
    )
    max_connection_age_s: float = _setting(
        0.0,
        "age of a connection, to within 10%, at which its streams are told to go on over a new one, so that "
        "servers that were added get their share; it takes no new calls from a little before, and what is "
        "left on it after --drain-grace-s is ended; 0: never, else at least 1",
        unit="seconds",
        low=0,
        high=604_800,
    )
    resume_key_file: str = _setting(
        "",
        "text file of keys for resume tokens, one a line, 32 to 256 characters: the first signs, all are "
        "accepted; servers that take up each other's streams need the same. Without one each model file is "
        "its own key: servers with the same model take up each other's streams, and who has the file can "
        "make up tokens, which can spoil no stream but his own",
    )
    stall_timeout_s: float = _setting(
        2.0,
        "when the engine makes no progress for this long while audio waits, health turns NOT_SERVING, and "
        "streams are ended with ENGINE_STALLED, to be resumed elsewhere",
        unit="seconds",
        low=0.1,
        high=600,
    )
    stall_exit_s: float = _setting(
        10.0,
        "how long the engine or the event loop may stay so before the process exits with code 70, to be "
        "started again by its supervisor",
        unit="seconds",
        low=0,
        high=86_400,
    )
    health_port: int = _setting(
        0,
        "port on which the health service alone answers too, in plain text and without a token, for probes "
        "that can do no TLS, as those of Kubernetes; 0: none; of several workers, each has the next one",
        low=0,
        high=65535,
    )
    metrics_port: int = _setting(
        0,
        "port for Prometheus to fetch /metrics from; 0: none; of several workers, each has the next one",
        low=0,
        high=65535,
    )
    metrics_host: str = _setting("127.0.0.1", "address for it to listen on; plain HTTP, for whoever asks")
    traces: bool = _setting(
        False,
        "send an OpenTelemetry span of each call over OTLP/HTTP to where OTEL_EXPORTER_OTLP_ENDPOINT and the "
        "other OTEL_ variables say; needs earmark[otel]",
    )
    reflection: bool = _setting(True, "let clients ask which services there are")
    log_level: str = _setting(
        "info", "least severe lines to log", choices=("debug", "info", "warning", "error")
    )
    log_format: str = _setting(
        "text", "form of the log lines: text is key=value, json one object a line", choices=("text", "json")
    )

    def __post_init__(self) -> None:
        hints = get_type_hints(Settings)
        for one in fields(self):
            _check(one, hints[one.name], getattr(self, one.name))
        if self.workers > 1 and sys.platform != "linux":
            raise SettingsError(
                f"workers must be 1 here, but is {self.workers}: several share a port by SO_REUSEPORT, which "
                f"gives each of them its part of the connections on Linux, but not on {sys.platform}."
            )
        _check_models(self)
        _check_access(self)
        for name, port in (("health_port", self.health_port), ("metrics_port", self.metrics_port)):
            if port and port + self.workers > 65536:
                raise SettingsError(
                    f"{name} must leave a port for each of {self.workers} workers, but is {port}."
                )
        if 0 < self.max_rate < 1:
            raise SettingsError(
                f"max_rate must be 0 (no limit) or at least 1, but is {self.max_rate:g}: no stream could be "
                "listened to as it is spoken."
            )

    def address(self, port: int) -> str:
        """Host and a port as gRPC writes them, IPv6 in brackets."""
        return f"[{self.host}]:{port}" if ":" in self.host else f"{self.host}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address; of names, only `localhost` is trusted to be."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def allowed(one: Field[Any]) -> str:
    """Tell what a setting may be; empty where anything of its type may."""
    low, high, choices = one.metadata["low"], one.metadata["high"], one.metadata["choices"]
    if choices:
        return " or ".join((", ".join(choices[:-1]), choices[-1]))
    return "" if low is None else f"{low} to {high}"


def _check(one: Field[Any], hint: Any, value: Any) -> None:
    if not _has_type(value, hint):
        raise SettingsError(f"{one.name} must be of type {hint}, but is {value!r}.")
    name, low, high = one.name, one.metadata["low"], one.metadata["high"]
    choices, unit = one.metadata["choices"], one.metadata["unit"]
    if choices and value not in choices:
        raise SettingsError(f"{name} must be {allowed(one)}, but is {value!r}.")
    if low is not None and not (math.isfinite(value) and low <= value <= high):
        raise SettingsError(f"{name} must be {low} to {high}{' ' + unit if unit else ''}, but is {value}.")
    if one.name == "host" and not value:
        raise SettingsError("host must be an address or a name, but is empty.")
    if one.name == "max_connection_age_s" and 0 < value < 1:
        raise SettingsError(f"{name} must be 0 or at least 1 second, but is {value}.")
    if one.name == "resume_key_file":
        try:
            read_resume_keys(value)
        except ValueError as error:
            raise SettingsError(f"resume_key_file {error}") from None


def _check_models(settings: Settings) -> None:
    for path in settings.model:
        if not os.path.isfile(path):
            raise SettingsError(f"model must be the path of a model file, but there is no file {path!r}.")
    for digest in settings.model_sha256:
        if not _SHA256.fullmatch(digest):
            raise SettingsError(f"model_sha256 must be 64 hexadecimal digits, but is {digest[:80]!r}.")
    if settings.model_sha256 and len(settings.model_sha256) != max(1, len(settings.model)):
        raise SettingsError(
            f"model_sha256 must be given once for each model, so {max(1, len(settings.model))} times, but is "
            f"given {len(settings.model_sha256)} times."
        )


def _check_access(settings: Settings) -> None:
    """Check that what is asked for together makes sense together: encryption, tokens, who can get here."""
    if bool(settings.tls_certificate) != bool(settings.tls_key):
        raise SettingsError("tls_certificate and tls_key must be given together.")
    if settings.tls_client_ca and not settings.tls_certificate:
        raise SettingsError(
            "tls_client_ca needs tls_certificate and tls_key: without TLS no client shows any."
        )
    if settings.open_health and not settings.token_file:
        raise SettingsError("open_health needs token_file: without tokens everything is open.")
    if settings.insecure and settings.tls_certificate:
        raise SettingsError("insecure and tls_certificate contradict each other: leave one out.")
    if not (settings.insecure or settings.tls_certificate or is_loopback(settings.host)):
        raise SettingsError(
            f"host {settings.host} can be reached from other machines, and nothing here is encrypted: "
            "add --tls-certificate and --tls-key, or use 127.0.0.1, ::1 or localhost, or add --insecure if "
            "the network around it is trusted."
        )


def _has_type(value: Any, hint: Any) -> bool:
    # Code may say 1 for a float; true is not a number to anybody.
    kinds: tuple[type, ...] = {float: (int, float), tuple[str, ...]: (tuple,)}.get(hint, (hint,))
    return isinstance(value, kinds) and (hint is bool or not isinstance(value, bool))
