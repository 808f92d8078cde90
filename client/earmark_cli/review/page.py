"""Review in a browser: a page on this machine alone."""

from __future__ import annotations

import json
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from earmark_audio.json_text import json_text
from earmark_client.errors import EarmarkError, RecordingError

from earmark_cli.output.console import notice
from earmark_cli.review.reviewed_clips import VERDICTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from earmark_cli.review.reviewed_clips import Clip

_HOST = "127.0.0.1"
_MAX_BODY_BYTES = 4096


def serve_page(clips: Sequence[Clip], port: int) -> None:
    """Serve the page until an interrupt. Raises EarmarkError if the port is in use."""
    page = Path(__file__).with_suffix(".html").read_bytes()
    by_name = {clip.path.name: clip for clip in clips}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30

        def do_GET(self) -> None:
            if not self._is_from_this_page():
                return
            path = unquote(urlsplit(self.path).path)
            if path == "/":
                self._send(page, "text/html; charset=utf-8")
            elif path == "/clips.json":
                fields = [{**clip.fields, "file": name} for name, clip in by_name.items()]
                self._send(json_text(fields).encode(), "application/json")
            elif (clip := by_name.get(path.removeprefix("/clip/"))) is not None:
                try:
                    self._send(clip.path.read_bytes(), "audio/wav")
                except OSError:
                    self.send_error(HTTPStatus.NOT_FOUND)
            else:
                self.send_error(HTTPStatus.NOT_FOUND)

        def do_POST(self) -> None:
            if not self._is_from_this_page():
                return
            try:
                length = int(self.headers.get("Content-Length", ""))
                if not 0 <= length <= _MAX_BODY_BYTES:
                    raise ValueError(length)
                body = json.loads(self.rfile.read(length))
                clip, verdict = by_name[body["file"]], body["verdict"]
                if verdict not in VERDICTS or self.headers.get_content_type() != "application/json":
                    raise ValueError(verdict)
            except (ValueError, TypeError, LookupError, RecursionError):
                self.close_connection = True
                self.send_error(HTTPStatus.BAD_REQUEST)
                return
            try:
                clip.judge(verdict)
            except RecordingError as error:
                notice(f"earmark: {error}")
                self.send_error(HTTPStatus.INSUFFICIENT_STORAGE)
                return
            self._send(b"{}", "application/json")

        def _is_from_this_page(self) -> bool:
            """Return whether the request comes from this page; else answer it: other sites must not read."""
            host = urlsplit(f"//{self.headers.get('Host', '')}").hostname
            origin = self.headers.get("Origin")
            if host in {_HOST, "localhost"} and origin in {None, f"http://{self.headers['Host']}"}:
                return True
            self.close_connection = True
            self.send_error(HTTPStatus.FORBIDDEN)
            return False

        def _send(self, content: bytes, kind: str) -> None:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    try:
        server = ThreadingHTTPServer((_HOST, port), Handler)
    except OSError as error:
        raise EarmarkError(f"cannot listen on port {port}: {error.strerror}: give another --port") from None
    with server:
        notice(f"earmark: the page is at http://{_HOST}:{server.server_port}/ (Ctrl-C stops it)")
        server.serve_forever()
