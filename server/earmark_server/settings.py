"""The server's settings, each declared once; command_line.py reads them from options and the environment."""

from __future__ import annotations

import ipaddress
import itertools
import os
import re
import stat
import sys
from dataclasses import dataclass, fields
from typing import get_type_hints

from earmark_server.credentials.resume_keys import read_resume_keys
from earmark_server.setting_declaration import SettingsError, declaration_of, option_of, setting

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")

# Titles of the groups in --help, by the first setting of each.
GROUPS = {
    "host": "address and encryption",
    "token_file": "access",
    "model": "models",
    "workers": "processes",
    "max_streams": "limits on all clients",
    "max_message_bytes": "limits on requests and streams",
    "max_metadata_bytes": "connections",
    "drain_grace_s": "drain and resume",
    "stall_timeout_s": "health and metrics",
    "reflection": "reflection and log",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a server runs. The constructor checks every value, and raises SettingsError for an invalid one."""

    host: str = setting(
        "127.0.0.1",
        "address to listen on, or unix:PATH for a Unix socket, which only this machine can reach. An address "
        "other than loopback needs --tls-certificate or --insecure",
    )
    port: int = setting(
        50051,
        "port to listen on. 0 selects a free port, which the log states. A Unix socket has none",
        low=0,
        high=65535,
    )
    insecure: bool = setting(
        False,
        "allow a host other than loopback without TLS. Nothing is encrypted then, and anybody who can reach "
        "the port can connect",
    )
    tls_certificate: str = setting(
        "",
        "PEM file with the server's certificate and its chain. It turns on TLS. The files of certificates, "
        "keys and tokens are reloaded when they change: new connections use the new ones, and open streams "
        "continue. Unusable files are logged, and the old ones stay in use. Replace a file by moving a new "
        "one into its place",
    )
    tls_key: str = setting("", "PEM file with the private key of the certificate, without a password")
    tls_client_ca: str = setting(
        "",
        "PEM file with certificate authorities. Every client, health checks included, must then have a "
        "certificate that one of them has signed (mutual TLS). Its common name is the principal in the log",
    )
    token_file: str = setting(
        "",
        "text file of accepted tokens, one per line: a name and the SHA-256 of the token, as --new-token "
        "writes it. Every call must then have a token. Its name is the principal in the log. When a token is "
        "removed, its streams end within seconds. A file without tokens revokes all of them, and so does a "
        "file that is missing for 30 s",
    )
    open_health: bool = setting(False, "answer health checks without a token")
    model: tuple[str, ...] = setting(
        (),
        "path of a model file. Repeat the option for several models (in the environment, separate the paths "
        f"by '{os.pathsep}'); the first one is the default model. Without it, the server uses the model that "
        "is bundled with Earmark",
    )
    model_dir: str = setting(
        "",
        "folder of model files. Every *.onnx file in it is served beside the default model; new and changed "
        "files are picked up within seconds, and the model of a removed file is unloaded after its last "
        "stream",
    )
    keep_replaced_s: float = setting(
        120.0,
        "a model file is reloaded for new streams when it changes, if its name and keywords stay the same. "
        "The replaced model is kept for this long after its last stream, in memory and in --state-dir, so "
        "that broken streams can resume on it, also in another worker and after a restart. Later they are "
        "rejected with BAD_RESUME_TOKEN",
        unit="seconds",
        low=0,
        high=86_400,
    )
    state_dir: str = setting(
        "",
        "folder for copies of loaded models, so that streams can resume after their model file was replaced. "
        "Without it, the copies are in .earmark-kept beside each --model. Not with --model-sha256",
    )
    model_sha256: tuple[str, ...] = setting(
        (),
        "SHA-256 that a model file must have, in hexadecimal, as the log states it. Any other file is "
        "rejected, at the start and on reload. Repeat the option for each --model, in the same order",
    )
    workers: int = setting(
        1,
        "server processes that share the port. Each one has its own model, threads, limits and connections. "
        "Use about one per core. More than 1 needs Linux",
        low=1,
        high=256,
    )
    threads: int = setting(1, "threads of one inference", low=1, high=256)
    max_streams: int = setting(
        1000,
        "open streams of one worker, above which new streams are rejected with TOO_MANY_STREAMS; a stream "
        "counts once for each of its models",
        low=1,
        high=100_000,
    )
    max_streams_per_client: int = setting(
        250,
        "open streams of one client on one worker, above which new ones are rejected with TOO_MANY_STREAMS. "
        "A client is a credential, or without credentials an address (in IPv6 a /64 network). 0: no limit. "
        "Set it to 0 behind a proxy, where all clients without credentials have the proxy's address",
        low=0,
        high=100_000,
    )
    max_load: float = setting(
        0.75,
        "share of the engine's time that live streams use, above which new streams are rejected with "
        "OVERLOADED. Audio that is sent faster than real time does not count, because it uses only the time "
        "that is left",
        low=0.05,
        high=1,
    )
    max_lag_s: float = setting(
        0.1,
        "queueing delay above which new streams are rejected with OVERLOADED",
        unit="seconds",
        low=0.01,
        high=60,
    )
    max_calls: int = setting(
        64,
        "Spot and Classify calls in progress on a worker, above which new ones are rejected with OVERLOADED",
        low=1,
        high=100_000,
    )
    max_calls_per_client: int = setting(
        32,
        "the same, of one client, as for --max-streams-per-client. 0: no limit",
        low=0,
        high=100_000,
    )
    max_memory_bytes: int = setting(
        0,
        "memory of a worker, above which it closes the connections of the client that has sent the most "
        "lately. 0: 70% of the memory of the container or machine, divided among the workers. Linux only, "
        "and not with a Unix socket",
        unit="bytes",
        low=0,
        high=1 << 50,
    )
    max_message_bytes: int = setting(
        16 * 1024 * 1024,
        "longest message that is accepted, and so the longest recording for Spot and Classify",
        unit="bytes",
        low=1024,
        high=1 << 30,
    )
    max_stream_message_bytes: int = setting(
        1024 * 1024,
        "longest message of a stream that is accepted, if --max-message-bytes is not below it",
        unit="bytes",
        low=1024,
        high=1 << 30,
    )
    max_recording_s: float = setting(
        300.0,
        "longest recording for Spot and Classify. A file with more samples per second than stereo at 48 kHz "
        "must be shorter in proportion",
        unit="seconds",
        low=1,
        high=36_000,
    )
    max_pending_s: float = setting(
        2.0,
        "audio of one stream that may wait for inference. Above it, the server stops reading from the stream",
        unit="seconds",
        low=0.5,
        high=600,
    )
    max_rate: float = setting(
        0.0,
        "multiple of real time at which the audio of a stream is read, counted from the start of the stream. "
        "A client that sends faster is slowed down by flow control. 0: no limit",
        low=0,
        high=100_000,
    )
    rate_burst_s: float = setting(
        30.0,
        "audio that a stream may send before --max-rate applies, because a resumed stream sends lost audio "
        "again",
        unit="seconds",
        low=0,
        high=86_400,
    )
    max_stream_s: float = setting(
        0.0,
        "longest stream, in audio, including the audio before it was resumed. A longer stream ends with "
        "STREAM_TOO_LONG after all events of the audio before the limit. 0: no limit",
        unit="seconds",
        low=0,
        high=1e9,
    )
    max_keywords: int = setting(
        256, "keywords that one request may name. More are rejected with BAD_CONFIG", low=1, high=10_000
    )
    config_timeout_s: float = setting(
        10.0,
        "a stream whose config does not arrive within this time ends with IDLE_STREAM. It counts against the "
        "limits on streams only when its config has arrived",
        unit="seconds",
        low=0.05,
        high=86_400,
    )
    idle_timeout_s: float = setting(
        60.0,
        "a call that sends nothing for this long, while the server waits for its data, ends with IDLE_STREAM",
        unit="seconds",
        low=0.05,
        high=86_400,
    )
    slow_reader_timeout_s: float = setting(
        30.0,
        "a stream ends with SLOW_READER if its connection accepts no event for this long, because the client "
        "reads none, or very slowly. Before that, inference on it pauses when 256 events are pending, or its "
        "connection accepts no more data",
        unit="seconds",
        low=0.05,
        high=86_400,
    )
    max_metadata_bytes: int = setting(
        8192,
        "size of the metadata of a call: names, values, and 32 bytes for each entry. A call with more is "
        "rejected with RESOURCE_EXHAUSTED",
        unit="bytes",
        low=1024,
        high=1 << 20,
    )
    max_calls_per_connection: int = setting(
        200,
        "calls of any kind in progress on one connection. Further calls wait in the client",
        low=1,
        high=1_000_000,
    )
    handshake_timeout_s: float = setting(
        20.0,
        "time in which a new connection must start TLS and HTTP/2. Otherwise it is closed",
        unit="seconds",
        low=0.1,
        high=600,
    )
    keepalive_s: float = setting(
        60.0,
        "the server sends an HTTP/2 ping on a connection on which nothing has arrived for this long",
        unit="seconds",
        low=1,
        high=86_400,
    )
    keepalive_timeout_s: float = setting(
        20.0,
        "time in which a client must answer a ping. Otherwise its connection is closed and its streams end",
        unit="seconds",
        low=0.1,
        high=600,
    )
    min_ping_interval_s: float = setting(
        0.0,
        "shortest interval between pings of a client. A connection that keeps pinging more often is closed "
        "with GOAWAY, ENHANCE_YOUR_CALM, which costs gRPC far more than to answer. 0: no limit",
        unit="seconds",
        low=0,
        high=86_400,
    )
    drain_grace_s: float = setting(
        30.0,
        "how long open streams may continue after SIGTERM, SIGINT or SIGHUP before they end with DRAINING",
        unit="seconds",
        low=0,
        high=3600,
    )
    max_connection_age_s: float = setting(
        0.0,
        "age of a connection, to within 10%, at which its streams are asked to resume on a new connection, "
        "so that added servers get their share. Shortly before, the connection stops accepting calls. "
        "Streams that stay end after --drain-grace-s. 0: no limit. Otherwise at least 1",
        unit="seconds",
        low=0,
        high=604_800,
    )
    resume_key_file: str = setting(
        "",
        "text file of keys for resume tokens, one per line, 32 to 256 characters each. The first key signs, "
        "and all keys are accepted. Servers need the same keys to resume each other's streams. Without keys, "
        "the model file is the key: servers with the same model can resume each other's streams, and anyone "
        "with the file can forge tokens, but only for streams of their own",
    )
    stall_timeout_s: float = setting(
        2.0,
        "inference has stalled if it makes no progress for this long while audio is waiting. Health then "
        "turns NOT_SERVING, and streams end with ENGINE_STALLED, so that clients resume elsewhere",
        unit="seconds",
        low=0.1,
        high=600,
    )
    stall_exit_s: float = setting(
        10.0,
        "how long the engine or the event loop may stay stalled before the process exits with code 70, so "
        "that its supervisor restarts it",
        unit="seconds",
        low=0,
        high=86_400,
    )
    health_port: int = setting(
        0,
        "additional port for the health service alone, without TLS and tokens, for probes that support "
        "neither, such as those of Kubernetes. 0: none. Each further worker uses the next port",
        low=0,
        high=65535,
    )
    metrics_port: int = setting(
        0,
        "port on which Prometheus can scrape /metrics. 0: none. Each further worker uses the next port",
        low=0,
        high=65535,
    )
    metrics_host: str = setting(
        "127.0.0.1", "address of the metrics port, which is open to anybody who can reach it over HTTP"
    )
    traces: bool = setting(
        False,
        "send an OpenTelemetry span of each call over OTLP/HTTP, as OTEL_EXPORTER_OTLP_ENDPOINT and the "
        "other OTEL_ variables say. Needs the extra otel",
    )
    reflection: bool = setting(True, "let clients list the services (gRPC server reflection)")
    log_level: str = setting(
        "info", "lowest level of the lines in the log", choices=("debug", "info", "warning", "error")
    )
    log_format: str = setting(
        "text",
        "format of the log: text has key=value, json has one object per line",
        choices=("text", "json"),
    )

    def __post_init__(self) -> None:
        hints = get_type_hints(Settings)
        for each in fields(self):
            declaration_of(each).check(option_of(each), hints[each.name], getattr(self, each.name))
        _check_host(self)
        _check_ports(self)
        _check_models(self)
        _check_access(self)
        _check_limits(self)
        _check_effects(self)
        try:
            read_resume_keys(self.resume_key_file)
        except ValueError as error:
            raise SettingsError(str(error)) from None

    def address(self, port: int) -> str:
        """Return the host and a port in gRPC's notation, with an IPv6 address in brackets."""
        if is_unix_socket(self.host):
            return self.host
        return f"[{self.host}]:{port}" if ":" in self.host else f"{self.host}:{port}"


def is_unix_socket(host: str) -> bool:
    """Return whether a host is the path of a Unix socket, as gRPC writes it: `unix:PATH`."""
    return host.startswith("unix:")


def is_loopback(host: str) -> bool:
    """Return whether an address can be reached from this machine only: of names, only `localhost` can."""
    if is_unix_socket(host):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_host(settings: Settings) -> None:
    if settings.host in ("", "unix:"):
        raise SettingsError(f"--host must be an address or a name, or unix:PATH, but is '{settings.host}'.")
    if is_unix_socket(settings.metrics_host):
        raise SettingsError(
            f"--metrics-host must be an address or a name, but is {settings.metrics_host!r}, a Unix socket."
        )
    for name, host in (("--host", settings.host), ("--metrics-host", settings.metrics_host)):
        if is_unix_socket(host):
            continue
        try:
            host.encode("idna")  # as when it is resolved
        except UnicodeError:
            raise SettingsError(f"{name} must be an address or a name, but is {host!r}.") from None
        try:
            if ":" in host:
                ipaddress.IPv6Address(host)
        except ValueError:
            raise SettingsError(
                f"{name} must be an address or a name, but is {host!r}. It has no brackets, and its port is "
                f"an option of its own: {name.replace('host', 'port')}."
            ) from None
    if is_unix_socket(settings.host):
        if settings.workers > 1:
            raise SettingsError("--workers must be 1 with a Unix socket, because workers share a port.")
        if settings.health_port:
            raise SettingsError(
                "--health-port needs a --host with an address. With a Unix socket, ask for the health there."
            )
    if settings.workers > 1 and sys.platform != "linux":
        raise SettingsError(
            f"--workers must be 1 here, but is {settings.workers}. Workers share a port with SO_REUSEPORT, "
            f"which balances connections on Linux, but not on {sys.platform}."
        )


def _check_ports(settings: Settings) -> None:
    for name, port in (("--health-port", settings.health_port), ("--metrics-port", settings.metrics_port)):
        if port and port + settings.workers > 65536:
            raise SettingsError(
                f"{name} must leave a port for each of {settings.workers} workers, but is {port}."
            )
    used = {
        "--port": range(settings.port, settings.port + 1),
        "--health-port": range(settings.health_port, settings.health_port + settings.workers),
        "--metrics-port": range(settings.metrics_port, settings.metrics_port + settings.workers),
    }
    for (first, ports), (second, others) in itertools.combinations(used.items(), 2):
        if second == "--metrics-port" and settings.metrics_host != settings.host:
            continue
        if ports[0] and others[0] and set(ports) & set(others):
            raise SettingsError(
                f"{first} and {second} must not overlap, but are {_port_text(ports)} and "
                f"{_port_text(others)}: each worker has its own ports for health and metrics."
            )


def _port_text(ports: range) -> str:
    return str(ports[0]) if len(ports) == 1 else f"{ports[0]} to {ports[-1]}"


def _check_models(settings: Settings) -> None:
    for path in settings.model:
        try:
            is_file = stat.S_ISREG(os.stat(path).st_mode)
        except PermissionError:
            raise SettingsError(
                f"--model {path!r} cannot be read: permission denied in its folder."
            ) from None
        except OSError:
            is_file = False
        if not is_file:
            raise SettingsError(f"--model must be the path of a model file, but there is no file {path!r}.")
        if not os.access(path, os.R_OK):
            raise SettingsError(f"--model {path!r} cannot be read: permission denied.")
    if settings.model_dir:
        if not os.path.isdir(settings.model_dir):
            raise SettingsError(f"--model-dir must be a folder, but there is none at {settings.model_dir!r}.")
        if not os.access(settings.model_dir, os.R_OK | os.X_OK):
            raise SettingsError(f"--model-dir {settings.model_dir!r} cannot be read: permission denied.")
        if settings.model_sha256:
            raise SettingsError(
                "--model-dir and --model-sha256 contradict each other: the files of a folder are not pinned."
            )
    for digest in settings.model_sha256:
        if not _SHA256.fullmatch(digest):
            raise SettingsError(f"--model-sha256 must be 64 hexadecimal digits, but is {digest[:80]!r}.")
    model_count = max(1, len(settings.model))
    if settings.model_sha256 and len(settings.model_sha256) != model_count:
        raise SettingsError(
            f"--model-sha256 must have one value for each of {model_count} models, but has "
            f"{len(settings.model_sha256)}."
        )


def _check_access(settings: Settings) -> None:
    """Check that the settings for encryption, tokens and reachability fit together."""
    if bool(settings.tls_certificate) != bool(settings.tls_key):
        raise SettingsError("--tls-certificate and --tls-key must be given together.")
    if settings.tls_client_ca and not settings.tls_certificate:
        raise SettingsError(
            "--tls-client-ca needs --tls-certificate and --tls-key: without TLS, clients send no certificate."
        )
    if settings.open_health and not settings.token_file:
        raise SettingsError("--open-health needs --token-file: without it, no call needs a token.")
    if settings.insecure and settings.tls_certificate:
        raise SettingsError("--insecure and --tls-certificate contradict each other. Omit one of them.")
    if not (settings.insecure or settings.tls_certificate or is_loopback(settings.host)):
        raise SettingsError(
            f"--host {settings.host} can be reached from other machines, and nothing here is encrypted. Add "
            "--tls-certificate and --tls-key, or use 127.0.0.1, ::1 or localhost, or add --insecure if you "
            "trust the network."
        )


def _check_limits(settings: Settings) -> None:
    """Check the limits of which 0 means no limit, but small values make no sense."""
    if 0 < settings.max_connection_age_s < 1:
        raise SettingsError(
            f"--max-connection-age-s must be 0 or at least 1 second, but is {settings.max_connection_age_s}."
        )
    if 0 < settings.max_rate < 1:
        raise SettingsError(
            f"--max-rate must be 0 (no limit) or at least 1, but is {settings.max_rate:g}, which is slower "
            "than live audio."
        )


def _check_effects(settings: Settings) -> None:
    """Check that each setting that differs from its default has an effect."""
    changed = {each.name for each in fields(settings) if getattr(settings, each.name) != each.default}
    if "port" in changed and is_unix_socket(settings.host):
        raise SettingsError(
            "--port contradicts a Unix socket as --host, which has no port. Omit one of them."
        )
    if "metrics_host" in changed and not settings.metrics_port:
        raise SettingsError("--metrics-host needs --metrics-port: without it, there are no metrics.")
    if "rate_burst_s" in changed and not settings.max_rate:
        raise SettingsError("--rate-burst-s needs --max-rate: without it, audio is read at any speed.")
    if settings.state_dir and settings.model_sha256:
        raise SettingsError(
            "--state-dir and --model-sha256 contradict each other: of pinned models no copies are kept."
        )
    if settings.state_dir and not settings.keep_replaced_s:
        raise SettingsError(
            "--state-dir needs a --keep-replaced-s above 0: no copies are kept for 0 seconds."
        )
    if "keep_replaced_s" in changed and settings.model_sha256:
        raise SettingsError(
            "--keep-replaced-s and --model-sha256 contradict each other: a pinned model is never replaced."
        )
    if "max_memory_bytes" in changed and sys.platform != "linux":
        raise SettingsError(
            f"--max-memory-bytes must be 0 here, but is {settings.max_memory_bytes}. It works on Linux only, "
            f"and not on {sys.platform}."
        )
    if "max_memory_bytes" in changed and is_unix_socket(settings.host):
        raise SettingsError(
            "--max-memory-bytes needs a --host with an address: connections to a Unix socket are not closed."
        )
