"""The first API generation: ``/v1/token``, ``/v1/tag`` and ``/v1/info`` over the same service.

A request for tags becomes one ``PostModelOutputs``; nothing is predicted here. Requests:

* ``GET`` with parameters in the query, ``POST`` with a form, with a multipart form, or with JSON.
* ``url`` and ``encoded_data`` may come several times (in JSON: as a list), at most 128 together.
  ``encoded_data`` is a file part of a multipart form, and base64 anywhere else.
* ``model``, ``select_classes`` (names, with commas between them) and ``local_id`` (one an image)
  are optional; ``op`` can only be ``tag`` and ``language`` only ``en``. Anything else is refused.

Every response but that of ``token`` has ``status_code``, ``status_msg`` and, where there are any,
``meta`` and ``results``. ``token`` answers as OAuth2 has it, with these two beside its errors.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from python_multipart.exceptions import FormParserError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import Message as Event
from starlette.types import Receive, Scope, Send

from clarigrpc import v2
from clarigrpc._contract.request_limits import MAX_ITEMS
from clarigrpc._rpc import statuses
from clarigrpc._rpc.statuses import StatusKind
from clarigrpc.local.accounts.oauth_applications import AccessToken, Application
from clarigrpc.local.fronts.http_messages import (
    MAX_BODY_BYTES,
    STRANGERS_BODY_BYTES,
    BodiesFullError,
    BodyReader,
    BodyRefusedError,
    throttle_headers,
)
from clarigrpc.local.media import media_content
from clarigrpc.local.served_call import ServedCall
from clarigrpc.local.service.dispatch import V2Service
from clarigrpc.local.service_errors import http_status
from clarigrpc.local.user_app import PUBLIC_APP
from clarigrpc.v2 import StatusCode

FIRST_GENERATION_PREFIX = "/v1/"
"""Beginning of the paths of this generation."""

DEFAULT_MODEL = "color-recognition"
"""What tags an image when neither the request nor its application names a model."""

_PARAMETERS = frozenset(
    {"url", "encoded_data", "model", "select_classes", "local_id", "op", "language"}
)
_VIDEO_ENDINGS = (".mp4", ".mov", ".avi", ".mkv", ".webm")
_MEANINGS = {
    "OK": "every image was processed",
    "PARTIAL_ERROR": "some of the images failed; the result of each says why",
    "ALL_ERROR": "all of the images failed; the result of each says why",
    "TOKEN_NONE": "send the header 'Authorization: Bearer <access token>'",
    "TOKEN_INVALID": "no such access token was issued here",
    "TOKEN_EXPIRED": "the access token has expired; get a new one from /v1/token/",
    "TOKEN_APP_INVALID": "no application has this client id and secret",
}


class _RefusalError(Exception):
    """The request as a whole fails."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message or _MEANINGS[code])
        self.status = status
        self.code = code
        self.headers = dict(headers or {})

    def response(self) -> JSONResponse:
        content = {"status_code": self.code, "status_msg": str(self)}
        return JSONResponse(content, self.status, self.headers)


@dataclass
class _TagRequest:
    """What a request for tags says."""

    images: list[v2.Data] = field(default_factory=list)
    model: str = ""
    select_classes: list[str] = field(default_factory=list)
    local_ids: list[str] = field(default_factory=list)


class FirstGeneration:
    """The ASGI application behind ``/v1/``.

    Args:
        service: Predicts, and has the applications.
        max_body_bytes: Longest request body; a longer one is answered 413.
    """

    def __init__(self, service: V2Service, *, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self._service = service
        self._applications = service.state.applications
        self._max_body_bytes = max_body_bytes
        self._bodies = BodyReader(max_body_bytes, service.budget)
        # Who asks for a token is not known yet.
        self._bodies_of_strangers = BodyReader(
            min(STRANGERS_BODY_BYTES, max_body_bytes), service.budget
        )
        self._endpoints: dict[str, Callable[[Request, bytes], Any]] = {
            "/v1/token": self._token,
            "/v1/tag": self._tag,
            "/v1/info": self._info,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        try:
            endpoint = self._endpoint(scope)

            reader = self._bodies if endpoint != self._token else self._bodies_of_strangers

            async def authorize() -> None:
                try:
                    await run_in_threadpool(self._authenticated, Headers(scope=scope))
                except _RefusalError as refused:
                    refused.headers |= BodyRefusedError.HEADERS
                    raise

            async with reader.body(receive, authorize) as body:
                response = await endpoint(Request(scope, _replay(body)), body)
        except ClientDisconnect:
            return
        except BodyRefusedError as error:
            code = "THROTTLED" if isinstance(error, BodiesFullError) else "CLIENT_ERROR"
            refused = _RefusalError(http_status(error.CODE), code, str(error), error.HEADERS)
            response = refused.response()
        except _RefusalError as refused:
            response = refused.response()
        await response(scope, receive, send)

    def _endpoint(self, scope: Scope) -> Callable[[Request, bytes], Any]:
        endpoint = self._endpoints.get(scope["path"].rstrip("/"))
        if endpoint is None:
            raise _RefusalError(404, "CLIENT_ERROR", f"{scope['path']} does not exist in this API")
        if scope["method"] not in ("GET", "POST"):
            raise _RefusalError(
                405,
                "CLIENT_ERROR",
                f"{scope['method']} is not allowed; use GET or POST",
                {"allow": "GET, POST"},
            )
        return endpoint

    async def _token(self, request: Request, body: bytes) -> JSONResponse:
        if request.method == "GET":
            query = request.url.query
        elif _content_type(request).startswith("application/json"):
            given = _json_object(body)
            query = urlencode({name: str(value) for name, value in given.items()})
        else:
            query = urlencode(await _form(request))
        # oauthlib looks its header up by this spelling.
        sent = request.headers.get("authorization")
        headers = {"Authorization": sent} if sent else {}
        status, headers, content = await run_in_threadpool(self._applications.issue, query, headers)
        if status != 200:
            code = "TOKEN_APP_INVALID" if content["error"] == "invalid_client" else "CLIENT_ERROR"
            message = content.get("error_description") or content["error"]
            content |= {"status_code": code, "status_msg": _MEANINGS.get(code, message)}
        headers.pop("Content-Type", None)
        return JSONResponse(content, status, headers)

    async def _info(self, request: Request, body: bytes) -> JSONResponse:
        token, _ = await run_in_threadpool(self._authenticated, request.headers)
        results = {
            "api_version": 0.1,
            "default_language": "en",
            "default_model": token.application.model or DEFAULT_MODEL,
            "max_batch_size": MAX_ITEMS,
            # Pixels of a side: clients scale what is beyond it.
            "min_image_size": 1,
            "max_image_size": math.isqrt(media_content.MAX_PIXELS),
            "max_body_bytes": self._max_body_bytes,
        }
        content = {"status_code": "OK", "status_msg": "limits of this server", "results": results}
        return JSONResponse(content)

    async def _tag(self, request: Request, body: bytes) -> JSONResponse:
        # First of all: who is not known learns nothing about the rest.
        token, text = await run_in_threadpool(self._authenticated, request.headers)
        wanted = _tag_request(await _parameters(request, body), by_get=request.method == "GET")
        return await run_in_threadpool(self._tagged, token, text, wanted)

    def _authenticated(self, headers: Headers) -> tuple[AccessToken, str]:
        """The token of a request, and its text."""
        scheme, _, text = headers.get("authorization", "").partition(" ")
        text = text.strip()
        if not text:
            raise _unauthorized("TOKEN_NONE")
        token = self._applications.token(text) if scheme.lower() == "bearer" else None
        if token is None:
            raise _unauthorized("TOKEN_INVALID")
        if token.expired:
            raise _unauthorized("TOKEN_EXPIRED")
        return token, text

    def _tagged(self, token: AccessToken, text: str, wanted: _TagRequest) -> JSONResponse:
        predict = self._prediction(token.application, wanted)
        metadata = {"authorization": f"Bearer {text}"}
        call = ServedCall("PostModelOutputs", metadata, lambda: True, lambda: None)
        response: Any = self._service.unary(call.method, predict, call)
        headers = throttle_headers(call.trailing)
        if not response.outputs:
            raise _refusal(response.status, headers)
        results = [
            _result(output, data, local_id)
            for output, data, local_id in zip(
                response.outputs, wanted.images, wanted.local_ids, strict=True
            )
        ]
        good = sum(result["status_code"] == "OK" for result in results)
        code = "OK" if good == len(results) else "PARTIAL_ERROR" if good else "ALL_ERROR"
        answered = response.outputs[0].model
        content = {
            "status_code": code,
            "status_msg": _MEANINGS[code],
            "meta": {
                "tag": {
                    "timestamp": time.time(),
                    "model": answered.id,
                    "config": answered.model_version.id,
                }
            },
            "results": results,
        }
        return JSONResponse(content, 200 if code == "OK" else 400, headers)

    def _prediction(
        self, application: Application, wanted: _TagRequest
    ) -> v2.PostModelOutputsRequest:
        model = wanted.model if wanted.model not in ("", "default") else application.model
        request = v2.PostModelOutputsRequest(model_id=model or DEFAULT_MODEL)
        # A model of the application's own app comes before a public one of the same name.
        own = self._service.state.catalog.has(application.app, request.model_id)
        place = application.app if own else PUBLIC_APP
        request.user_app_id.user_id, request.user_app_id.app_id = place.user_id, place.app_id
        for number, data in enumerate(wanted.images):
            request.inputs.add(id=str(number)).data.CopyFrom(data)
        config = request.model.model_version.output_info.output_config
        for name in wanted.select_classes:
            config.select_concepts.add(name=name)
        return request


def _unauthorized(code: str) -> _RefusalError:
    challenge = 'Bearer realm="api"'
    if code != "TOKEN_NONE":
        challenge += ', error="invalid_token"'
    return _RefusalError(401, code, headers={"www-authenticate": challenge})


def _refusal(status: v2.Status, headers: Mapping[str, str]) -> _RefusalError:
    """The failure of a request that has no outputs."""
    kind = statuses.kind_of(status.code)
    if kind is StatusKind.AUTHENTICATION:
        return _unauthorized("TOKEN_INVALID")  # it ended between two looks at it
    message = f"{status.description}: {status.details}" if status.details else status.description
    if kind is StatusKind.RATE_LIMIT:
        # Clients of this generation read whole seconds.
        whole = headers.get("retry-after")
        wait = {"x-throttle-wait-seconds": whole} if whole is not None else {}
        return _RefusalError(429, "THROTTLED", message, {**headers, **wait})
    code = "CLIENT_ERROR" if kind in _CLIENT_KINDS else "SERVER_ERROR"
    return _RefusalError(http_status(status.code), code, message, headers)


# Failures that another request would not have.
_CLIENT_KINDS = frozenset(
    {
        StatusKind.ALREADY_EXISTS,
        StatusKind.FAILED,
        StatusKind.INVALID_ARGUMENT,
        StatusKind.NOT_FOUND,
        StatusKind.PERMISSION_DENIED,
        StatusKind.QUOTA_EXCEEDED,
    }
)


def _result(output: v2.Output, data: v2.Data, local_id: str) -> dict[str, Any]:
    """What is said about one image."""
    content = data.video if data.HasField("video") else data.image
    document = hashlib.sha256(content.url.encode() if content.url else content.base64).hexdigest()
    result: dict[str, Any] = {
        # Of the 128 bits, JSON readers with 64-bit integers get the lower half.
        "docid": int(document[16:32], 16),
        "docid_str": document[:32],
        "url": content.url,
        "local_id": local_id,
    }
    if output.status.code == StatusCode.SUCCESS:
        return result | {"status_code": "OK", "status_msg": "OK", "result": {"tag": _tags(output)}}
    kind = statuses.kind_of(output.status.code)
    client = kind in _CLIENT_KINDS
    return result | {
        "status_code": "CLIENT_ERROR" if client else "SERVER_ERROR",
        "status_msg": "the image cannot be used" if client else "the model failed on the image",
        "result": {"error": output.status.details or output.status.description},
    }


def _tags(output: v2.Output) -> dict[str, Any]:
    """The concepts of an image, or of each frame of a video."""
    frames = [_columns(frame.data) for frame in output.data.frames]
    if not frames:
        return _columns(output.data)
    times = [frame.frame_info.time / 1000 for frame in output.data.frames]
    names = ("concept_ids", "classes", "probs")
    return {"timestamps": times, **{name: [frame[name] for frame in frames] for name in names}}


def _columns(data: v2.Data) -> dict[str, list[Any]]:
    return {
        "concept_ids": [concept.id for concept in data.concepts],
        "classes": [concept.name or concept.id for concept in data.concepts],
        "probs": [concept.value for concept in data.concepts],
    }


# Reading requests


def _replay(body: bytes) -> Receive:
    """The body again, for the parser of forms."""

    async def receive() -> Event:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").lower()


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        given = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _bad(f"the body is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise _bad("the JSON body must be an object")
    return given


async def _form(request: Request) -> list[tuple[str, str | bytes]]:
    """The fields of a form, and the content of its file parts."""
    try:
        async with request.form(max_files=MAX_ITEMS + 1, max_part_size=MAX_BODY_BYTES) as form:
            return [
                (name, await value.read() if isinstance(value, UploadFile) else value)
                for name, value in form.multi_items()
            ]
    except (MultiPartException, FormParserError) as error:
        raise _bad(f"the form cannot be read: {error}") from None


async def _parameters(request: Request, body: bytes) -> list[tuple[str, str | bytes]]:
    """Names and values of a request; bytes are content, as it was sent in a file part."""
    if request.method == "GET":
        return list(request.query_params.multi_items())
    if _content_type(request).startswith("application/json"):
        pairs = []
        for name, value in _json_object(body).items():
            values = value if isinstance(value, list) else [value]
            if not all(isinstance(one, str) for one in values):
                raise _bad(f"{name} must be a string or a list of strings")
            pairs += [(name, one) for one in values]
        return pairs
    return await _form(request)


def _tag_request(pairs: list[tuple[str, str | bytes]], *, by_get: bool) -> _TagRequest:
    wanted = _TagRequest()
    for name, value in pairs:
        if name == "encoded_data":
            if by_get:
                raise _bad("encoded_data cannot be sent by GET; use POST")
            wanted.images.append(_content(value))
        elif isinstance(value, bytes):
            raise _bad(f"{name} must be text, not a file")
        elif name == "url":
            wanted.images.append(_at(value))
        elif name == "model":
            wanted.model = value
        elif name == "select_classes":
            wanted.select_classes += [part.strip() for part in value.split(",") if part.strip()]
        elif name == "local_id":
            wanted.local_ids.append(value)
        elif name not in _PARAMETERS:
            raise _bad(
                f"unknown parameter {name!r}; the parameters are {', '.join(sorted(_PARAMETERS))}"
            )
        elif (name, value) not in (("op", "tag"), ("language", "en")):
            raise _bad(f"the local server does not support {name} {value!r}")
    count = len(wanted.images)
    if not 1 <= count <= MAX_ITEMS:
        raise _bad(f"{count} images; it must be 1 to {MAX_ITEMS}, as url or as encoded_data")
    if len(wanted.local_ids) not in (0, count):
        raise _bad(f"{len(wanted.local_ids)} values of local_id for {count} images")
    wanted.local_ids = wanted.local_ids or [""] * count
    return wanted


def _content(value: str | bytes) -> v2.Data:
    data = v2.Data()
    if isinstance(value, str):
        try:
            # Some encoders break the lines.
            value = base64.b64decode("".join(value.splitlines()), validate=True)
        except (binascii.Error, ValueError):
            raise _bad("encoded_data is neither a file part nor base64") from None
    # ISO base media (MP4 and its kin) names its brand there.
    kind = data.video if value[4:8] == b"ftyp" else data.image
    kind.base64 = value
    return data


def _at(url: str) -> v2.Data:
    data = v2.Data()
    path = url.partition("?")[0].lower()
    (data.video if path.endswith(_VIDEO_ENDINGS) else data.image).url = url
    return data


_bad = functools.partial(_RefusalError, 400, "CLIENT_ERROR")
