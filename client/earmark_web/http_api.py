"""Health, what is loaded, and the word in a clip, as JSON over HTTP; openapi.json describes them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from earmark_client.errors import InvalidRequestError, TimedOutError
from earmark_client.events import Health
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from starlette.types import Message, Receive

MAX_BODY_BYTES = 8 * 1024 * 1024
"""The longest body of a request: a clip, or a few minutes of speech."""
_UPLOAD_WITHIN_S = 60.0


async def health(request: Request) -> JSONResponse:
    """`GET /health`: 200 where the service serves, else 503."""
    found = await request.state.client.health()
    return JSONResponse({"status": found.value}, 200 if found is Health.SERVING else 503)


async def info(request: Request) -> JSONResponse:
    """`GET /info`: the models, and which of them the page listens with."""
    client = request.state.client
    models = await client.list_models()
    used = await client.get_model(request.state.model)
    return JSONResponse({"model": used.name, "models": [asdict(one) for one in models]})


async def predict(request: Request) -> JSONResponse:
    """`POST /predict`: the word in the multipart form's `file`; `model` may name another than the page's."""
    bounded = Request(request.scope, _bounded(request.receive, request.headers.get("content-length")))
    try:
        async with asyncio.timeout(_UPLOAD_WITHIN_S), bounded.form(max_files=1, max_fields=1) as form:
            file, model = form.get("file"), form.get("model", request.state.model)
            if not isinstance(file, UploadFile) or isinstance(model, UploadFile):
                raise HTTPException(400, "send a form (multipart/form-data) with a recording as its `file`")
            audio = await file.read()
    except TimeoutError:
        raise TimedOutError(
            f"the form did not come within {_UPLOAD_WITHIN_S:g} s",
            status="DEADLINE_EXCEEDED",
            reason="IDLE_STREAM",
        ) from None
    begin_s = time.perf_counter()
    found = await request.state.client.classify(audio, model=model)
    return JSONResponse(
        {
            "prediction": found.label,
            "probabilities": {one.label: one.score for one in found.scores},
            "latency_ms": round(1000 * (time.perf_counter() - begin_s), 3),
            "audio_s": found.audio_s,
            "model": found.model,
            "model_version": found.model_version,
        }
    )


def _bounded(receive: Receive, stated: str | None) -> Receive:
    """Receive a body up to the limit; InvalidRequestError as soon as it is passed, or stated to be."""
    left = MAX_BODY_BYTES
    too_large = InvalidRequestError(
        f"the form is larger than {MAX_BODY_BYTES} bytes, the most that is taken: stream the recording "
        "instead (`earmark spot`)",
        status="INVALID_ARGUMENT",
        reason="MESSAGE_TOO_LARGE",
    )

    async def receiving() -> Message:
        nonlocal left
        if stated is not None and stated.isdecimal() and int(stated) > MAX_BODY_BYTES:
            raise too_large
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise too_large
        return message

    return receiving
