"""The ASGI application: routes, middleware and error handlers."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from earmark_client import Client, EarmarkError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.responses import FileResponse, JSONResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles

from earmark_web import http_api, websocket
from earmark_web.access_control import SameOriginMiddleware
from earmark_web.http_errors import handle_earmark_error, handle_http_exception, handle_internal_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from earmark_client import Tls
    from starlette.requests import Request

_PACKAGE = Path(__file__).parent
_OPENAPI = json.loads((_PACKAGE / "openapi.json").read_text(encoding="utf-8"))


class State(TypedDict):
    """What the request handlers share, as `request.state`."""

    client: Client
    model: str
    stream_limit: websocket.StreamLimit


def make_app(
    address: str,
    *,
    sample: Path,
    tls: bool | Tls = False,
    token: str | None = None,
    model: str = "",
    names: Iterable[str] = (),
    origins: Iterable[str] = (),
    max_streams: int = websocket.MAX_STREAMS,
) -> Starlette:
    """Make the application, which is a client of the gRPC server at `address`.

    sample       the recording that the page offers to try
    tls, token   the credentials for that server, as for `Client`
    model        the name of the model; empty: the server's default
    names        the host names that the page accepts, besides `localhost` and numeric addresses
    origins      the origins of other sites whose pages may use this application, such as https://example.org
    max_streams  the limit on concurrent streams of all pages
    """

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[State]:
        async with Client(address, tls=tls, token=token) as client:
            yield {"client": client, "model": model, "stream_limit": websocket.StreamLimit(max_streams)}

    return Starlette(
        routes=[
            Route("/", _page),
            Route("/health", http_api.health),
            Route("/info", http_api.info),
            Route("/spot", http_api.spot, methods=["POST"]),
            Route("/predict", http_api.predict, methods=["POST"]),
            Route("/openapi.json", _openapi),
            Route("/sample", partial(_sample, sample)),
            WebSocketRoute("/stream", websocket.stream),
            Mount("/static", StaticFiles(directory=_PACKAGE / "static")),
        ],
        middleware=[Middleware(SameOriginMiddleware, names=names, origins=origins)],
        exception_handlers={
            EarmarkError: handle_earmark_error,
            HTTPException: handle_http_exception,
            Exception: handle_internal_error,
        },
        lifespan=lifespan,
    )


async def _page(_: Request) -> FileResponse:
    return FileResponse(_PACKAGE / "static" / "index.html")


async def _sample(path: Path, _: Request) -> FileResponse:
    return FileResponse(path)


async def _openapi(_: Request) -> JSONResponse:
    return JSONResponse(_OPENAPI)
