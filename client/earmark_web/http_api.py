"""The HTTP API: health, models, and keyword spotting and classification of recordings. See openapi.json."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from earmark_client import Health, InvalidRequestError, TimedOutError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from starlette.types import Message, Receive

MAX_BODY_BYTES = 8 * 1024 * 1024
"""The limit on a request body: enough for a few minutes of speech."""
_UPLOAD_TIMEOUT_S = 60.0
_MAX_FIELDS = 16  # more than models that a recording may have


async def health(request: Request) -> JSONResponse:
    """Handle `GET /health`: return 200 if the gRPC service is serving, else 503."""
    status = await request.state.client.health()
    return JSONResponse({"status": status.value}, 200 if status is Health.SERVING else 503)


async def info(request: Request) -> JSONResponse:
    """Handle `GET /info`: return the loaded models, and the name of the one that the page uses."""
    client = request.state.client
    models = await client.list_models()
    used = await client.get_model(request.state.model)
    return JSONResponse({"model": used.name, "models": [asdict(model) for model in models]})


async def spot(request: Request) -> JSONResponse:
    """Handle `POST /spot`: detect the keywords in the recording in the multipart form's `file`.

    The form's optional field `model` selects another model than the page's; repeated, several models.
    """
    audio, models = await _uploaded(request)
    begin_s = time.perf_counter()
    result = await request.state.client.spot(audio, models=models)
    latency_ms = _elapsed_ms(begin_s)
    return JSONResponse(
        {
            "detections": [
                {
                    "keyword": one.keyword,
                    "confidence": one.confidence,
                    "start_s": one.start_s,
                    "end_s": one.end_s,
                    "id": one.id,
                    "model": one.model,
                }
                for one in result.detections
            ],
            "latency_ms": latency_ms,
            "audio_s": result.audio_s,
            "model": result.model,
            "model_version": result.model_version,
            "warnings": [asdict(warning) for warning in result.warnings],
        }
    )


async def predict(request: Request) -> JSONResponse:
    """Handle `POST /predict`: classify the clip in the multipart form's `file`; otherwise as `spot`."""
    audio, models = await _uploaded(request)
    if len(models) > 1:
        raise InvalidRequestError(
            "the form has the field `model` more than once: a clip is classified by one model",
            status="INVALID_ARGUMENT",
            reason="BAD_CONFIG",
        )
    begin_s = time.perf_counter()
    result = await request.state.client.classify(audio, model=models[0])
    return JSONResponse(
        {
            "prediction": result.label,
            "probabilities": {one.label: one.score for one in result.scores},
            "latency_ms": _elapsed_ms(begin_s),
            "audio_s": result.audio_s,
            "model": result.model,
            "model_version": result.model_version,
            "warnings": [asdict(warning) for warning in result.warnings],
        }
    )


async def _uploaded(request: Request) -> tuple[bytes, list[str]]:
    """Return the recording in the form's field `file`, and the names of the models."""
    limited = Request(request.scope, _limited(request.receive, request.headers.get("content-length")))
    try:
        async with (
            asyncio.timeout(_UPLOAD_TIMEOUT_S),
            limited.form(max_files=1, max_fields=_MAX_FIELDS) as form,
        ):
            file = form.get("file")
            models = form.getlist("model") or [request.state.model]
            names = [model for model in models if not isinstance(model, UploadFile)]
            if not isinstance(file, UploadFile) or len(names) < len(models):
                raise HTTPException(
                    400, "send a multipart/form-data form with a recording in the field `file`"
                )
            return await file.read(), names
    except ClientDisconnect:
        raise HTTPException(400, "the upload ended before it was complete") from None
    except UnicodeError:
        raise HTTPException(400, "the text in the form must be UTF-8") from None
    except TimeoutError:
        raise TimedOutError(
            f"the upload did not finish within {_UPLOAD_TIMEOUT_S:g} s: send a shorter recording",
            status="DEADLINE_EXCEEDED",
            reason="IDLE_STREAM",
        ) from None


def _elapsed_ms(begin_s: float) -> float:
    return round(1000 * (time.perf_counter() - begin_s), 3)


def _limited(receive: Receive, content_length: str | None) -> Receive:
    """Wrap `receive` so that a body over the limit raises InvalidRequestError.

    A `content_length` over the limit raises before the first byte of the body is read.
    """
    remaining = MAX_BODY_BYTES
    too_large = InvalidRequestError(
        f"the form is larger than {MAX_BODY_BYTES} bytes: stream the recording instead (`earmark spot`)",
        status="INVALID_ARGUMENT",
        reason="MESSAGE_TOO_LARGE",
    )

    async def receive_limited() -> Message:
        nonlocal remaining
        if content_length is not None and content_length.isdecimal() and int(content_length) > MAX_BODY_BYTES:
            raise too_large
        message = await receive()
        remaining -= len(message.get("body", b""))
        if remaining < 0:
            raise too_large
        return message

    return receive_limited
