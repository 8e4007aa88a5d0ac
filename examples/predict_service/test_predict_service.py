"""The predict service as its callers see it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from clarigrpc.local import LocalServer

CAT = (Path(__file__).parents[2] / "docs" / "cat.jpg").read_bytes()
COMMAND = ("uvicorn", "predict_service:app", "--port", "0", "--timeout-graceful-shutdown", "20")


@pytest.fixture(scope="module")
def service(serve: Any) -> Iterator[Any]:
    with serve("predict_service", *COMMAND) as running:
        yield running


@pytest.fixture(scope="module")
def web(service: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.address, timeout=60) as client:
        yield client


def test_a_picture_is_answered_with_its_colours(web: httpx.Client) -> None:
    answer = web.post("/predict", content=CAT)
    assert answer.status_code == 200
    colors = answer.json()["colors"]
    assert "Sienna" in [color["name"] for color in colors]
    assert sum(color["share"] for color in colors) == pytest.approx(1, abs=0.05)


def test_what_is_no_picture_is_the_callers_mistake(web: httpx.Client) -> None:
    answer = web.post("/predict", content=b"no picture")
    assert answer.status_code == 422
    assert answer.json()["request_id"]
    assert web.post("/predict").status_code == 422
    assert web.post("/predict", content=bytes(11 * 2**20)).status_code == 413


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (grpc.StatusCode.DEADLINE_EXCEEDED, 504),
        (grpc.StatusCode.UNAVAILABLE, 503),
        (grpc.StatusCode.INTERNAL, 502),
        (grpc.StatusCode.PERMISSION_DENIED, 502),
    ],
)
def test_failures_of_the_model_have_a_status_each(
    web: httpx.Client, clarifai_local: LocalServer, code: grpc.StatusCode, status: int
) -> None:
    clarifai_local.faults.fail_methods = {"PostModelOutputs": code}
    try:
        assert web.post("/predict", content=CAT).status_code == status
    finally:
        clarifai_local.faults.fail_methods = {}


def test_it_says_whether_it_is_ready(web: httpx.Client) -> None:
    assert web.get("/live").status_code == 200
    assert web.get("/ready").json() == {"ready": True}


def test_requests_that_run_are_answered_before_it_ends(
    service: Any, clarifai_local: LocalServer
) -> None:
    arrived, told = threading.Event(), threading.Event()

    def hold(input_id: str) -> bool:
        arrived.set()
        told.wait(60)
        return False

    clarifai_local.faults.fail_inputs = hold
    try:
        with ThreadPoolExecutor(1) as pool:
            address = f"{service.address}/predict"
            answer = pool.submit(httpx.post, address, content=CAT, timeout=60)
            answer.add_done_callback(lambda _: arrived.set())
            assert arrived.wait(60)
            service.process.send_signal(signal.SIGTERM)
            told.set()
            assert answer.result().status_code == 200
    finally:
        told.set()
        clarifai_local.faults.fail_inputs = ()
    service.process.wait(60)
