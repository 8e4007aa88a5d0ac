"""Servers of the tests, and raw stubs to talk to them."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import av
import grpc
import httpx
import numpy as np
import PIL.Image
import pytest
from google.protobuf import json_format

from clarigrpc import v2
from clarigrpc._transports import transcoding
from clarigrpc.local import LocalServer
from clarigrpc.v2._index import METHODS
from tests.waiting import until

PUBLIC = v2.UserAppIDSet(user_id="clarifai", app_id="main")


@dataclass
class Raw:
    """Calls a server through the generated stub, with the default user's PAT."""

    server: LocalServer
    stub: v2.V2Stub
    secret: str = ""
    web: httpx.Client | None = None

    def with_key(self, secret: str) -> Raw:
        """The same calls with another credential."""
        return replace(self, secret=secret)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Key {self.secret or self.server.pat}"),)

    def __call__(self, method: str, request: Any, **options: Any) -> Any:
        options.setdefault("metadata", self.metadata)
        options.setdefault("timeout", 20)
        if self.web is not None:
            return self._over_http(self.web, method, request, options)
        return getattr(self.stub, method)(request, **options)

    def _over_http(
        self, web: httpx.Client, method: str, request: Any, options: dict[str, Any]
    ) -> Any:
        verb, path, body = self._encoded(method, request)
        headers = dict(options["metadata"]) | {"content-type": "application/json"}
        answer = web.request(
            verb, path, content=body or None, headers=headers, timeout=options["timeout"]
        )
        response = getattr(v2, METHODS[method][1])()
        transcoding.from_json(answer.json(), response)
        return response

    def _encoded(self, method: str, request: Any) -> transcoding.HttpRequest:
        """The request as HTTP, where many addresses need the user and the app."""
        filled = type(request)()
        filled.CopyFrom(request)
        for field, value in (("", ""), ("user_id", "me"), ("app_id", self.server.app_id)):
            if "user_app_id" not in filled.DESCRIPTOR.fields_by_name:
                break
            if field and not getattr(filled.user_app_id, field):
                setattr(filled.user_app_id, field, value)
            with contextlib.suppress(transcoding.TranscodingError):
                return transcoding.encode_request(method, filled)
        return transcoding.encode_request(method, filled)


@pytest.fixture
def front() -> str:
    """Which front the calls go to: ``grpc``, or ``rest`` where a module says so."""
    return "grpc"


@pytest.fixture
def serve(front: str) -> Iterator[Callable[..., Raw]]:
    """Starts servers with the given settings; they and their channels end with the test."""
    opened: list[tuple[LocalServer, grpc.Channel, httpx.Client | None]] = []

    def start(**settings: Any) -> Raw:
        if front == "rest":
            settings.setdefault("rest_port", 0)
        server = LocalServer(**settings).start()
        channel = grpc.insecure_channel(
            server.address, options=[("grpc.max_receive_message_length", 64 << 20)]
        )
        web = httpx.Client(base_url=server.rest_base or "") if front == "rest" else None
        opened.append((server, channel, web))
        return Raw(server, v2.V2Stub(channel), web=web)

    yield start
    for server, channel, web in opened:
        channel.close()
        if web is not None:
            web.close()
        server.close(grace=0.2)


@pytest.fixture
def raw(serve: Callable[..., Raw]) -> Raw:
    return serve()


def png(*colors: str, size: int = 40, kind: str = "PNG") -> bytes:
    """An image file with equal upright stripes of the colours."""
    image = PIL.Image.new("RGB", (size * len(colors), size))
    for index, color in enumerate(colors):
        image.paste(color, (index * size, 0, (index + 1) * size, size))
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def clip(frames: int = 30, rate: int = 10, form: str = "mp4") -> bytes:
    """A video file that gets lighter from frame to frame, with a key frame each second or so."""
    file = io.BytesIO()
    with av.open(file, "w", format=form) as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(frames):
            picture = np.full((48, 64, 3), number * 255 // frames, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def predict_request(*images: bytes) -> v2.PostModelOutputsRequest:
    request = v2.PostModelOutputsRequest(user_app_id=PUBLIC, model_id="color-recognition")
    for image in images:
        request.inputs.add().data.image.base64 = image
    return request


def settled(raw: Raw, input_id: str, seconds: float = 30.0) -> v2.Input:
    """The input once it is no longer pending."""
    pending = (v2.StatusCode.INPUT_PENDING, v2.StatusCode.INPUT_IN_PROGRESS)

    def look() -> v2.Input | None:
        item: v2.Input = raw("GetInput", v2.GetInputRequest(input_id=input_id)).input
        return None if item.status.code in pending else item

    found: v2.Input = until(look, seconds)
    return found


def gone(raw: Raw, input_id: str, seconds: float = 30.0) -> None:
    """Waits until the input is deleted."""

    def is_gone() -> bool:
        code = raw("GetInput", v2.GetInputRequest(input_id=input_id)).status.code
        return bool(code == v2.StatusCode.CONN_DOES_NOT_EXIST)

    until(is_gone, seconds)


def message(cls: Any, **fields: Any) -> Any:
    """A message from its JSON form."""
    return json_format.ParseDict(fields, cls())


def ok(response: Any) -> Any:
    """The response, which succeeded."""
    assert response.status.code == v2.StatusCode.SUCCESS, response.status
    return response


def add_image(raw: Raw, input_id: str, *colours: str, **data: Any) -> None:
    """Adds an image with stripes of the colours, and waits until it is processed."""
    request = v2.PostInputsRequest()
    item = request.inputs.add(id=input_id, data=message(v2.Data, **data))
    item.data.image.base64 = png(*colours or ("red",))
    ok(raw("PostInputs", request))
    settled(raw, input_id)
