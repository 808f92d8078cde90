"""The application: which address leads where, and what its answers carry."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from earmark_client.client import Client
from earmark_client.errors import EarmarkError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import FileResponse, JSONResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles

from earmark_web import http_api, websocket
from earmark_web.access_control import Guard
from earmark_web.http_errors import failed, fault, wrong_request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from starlette.requests import Request

_HERE = Path(__file__).parent
_OPENAPI = json.loads((_HERE / "openapi.json").read_text(encoding="utf-8"))


def make_app(
    address: str,
    *,
    security: dict[str, Any] | None = None,
    model: str = "",
    names: Iterable[str] = (),
    max_streams: int = websocket.MAX_STREAMS,
) -> Starlette:
    """Make the application, a client of the server at `address`.

    `security`: Client's `tls` and `token`. `model`: what to listen with; empty: the server's default.
    `names`: what the page may be called by, beside `localhost` and numeric addresses. `max_streams`: how
    many may listen at the same time.
    """

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[dict[str, Any]]:
        async with Client(address, **(security or {})) as client:
            yield {"client": client, "model": model, "streams": websocket.Streams(max_streams)}

    return Starlette(
        routes=[
            Route("/", _page),
            Route("/health", http_api.health),
            Route("/info", http_api.info),
            Route("/predict", http_api.predict, methods=["POST"]),
            Route("/openapi.json", _openapi),
            WebSocketRoute("/stream", websocket.stream),
            Mount("/static", StaticFiles(directory=_HERE / "static")),
        ],
        middleware=[Middleware(Guard, names=names)],
        exception_handlers={EarmarkError: failed, HTTPException: wrong_request, Exception: fault},
        lifespan=lifespan,
    )


async def _page(_: Request) -> FileResponse:
    return FileResponse(_HERE / "static" / "index.html")


async def _openapi(_: Request) -> JSONResponse:
    return JSONResponse(_OPENAPI)
