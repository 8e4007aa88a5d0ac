"""Models of the server and predictions with them."""

from __future__ import annotations

import io
import queue
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import grpc
import PIL.Image
import pytest

from clarigrpc import v2
from clarigrpc.local import Faults
from clarigrpc.local.engine import faults as faults_module
from tests.local.conftest import PUBLIC, Raw, ok, png, predict_request
from tests.local.handlers.test_inputs import web as web

Code = v2.StatusCode


def test_colors_of_real_pixels(raw: Raw) -> None:
    response = raw("PostModelOutputs", predict_request(png("red", "navy", "navy", "navy")))
    assert response.status.code == Code.SUCCESS
    (output,) = response.outputs
    assert output.status.code == Code.SUCCESS
    colors = output.data.colors
    assert [(c.raw_hex, c.w3c.hex, c.w3c.name) for c in colors] == [
        ("#000080", "#000080", "Navy"),
        ("#ff0000", "#ff0000", "Red"),
    ]
    assert [c.value for c in colors] == pytest.approx([0.75, 0.25])
    assert [(c.id, c.value) for c in output.data.concepts] == [("navy", 0.75), ("red", 0.25)]


@pytest.mark.parametrize("kind", ["JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_formats(raw: Raw, kind: str) -> None:
    response = raw("PostModelOutputs", predict_request(png("red", kind=kind)))
    assert response.outputs[0].data.colors[0].w3c.name == "Red"


def test_outputs_name_model_and_input_by_id_alone(raw: Raw) -> None:
    request = predict_request(png("red"))
    request.inputs[0].id = "mine"
    output = raw("PostModelOutputs", request).outputs[0]
    assert output.input.id == "mine"
    assert not output.input.HasField("data")
    assert output.model.id == "color-recognition"
    assert output.model.model_version.id
    assert not output.model.description
    assert not output.model.model_version.HasField("output_info")


def test_bad_inputs_fail_alone(raw: Raw) -> None:
    good = png("red")
    response = raw("PostModelOutputs", predict_request(good, b"nonsense", good[:60], good))
    assert response.status.code == Code.MIXED_STATUS
    assert [o.status.code for o in response.outputs] == [
        Code.SUCCESS,
        Code.INPUT_UNSUPPORTED_FORMAT,
        Code.INPUT_UNSUPPORTED_FORMAT,
        Code.SUCCESS,
    ]
    response = raw("PostModelOutputs", predict_request(b"nonsense"))
    assert response.status.code == Code.FAILURE
    assert response.status.description == "Failure"


@pytest.mark.parametrize("model_id", ["color-recognition", "text-sentiment"])
def test_an_input_without_data(raw: Raw, model_id: str) -> None:
    request = v2.PostModelOutputsRequest(user_app_id=PUBLIC, model_id=model_id, inputs=[v2.Input()])
    response = raw("PostModelOutputs", request)
    assert response.status.code == Code.FAILURE
    assert response.outputs[0].status.code == Code.INPUT_INVALID_ARGUMENT


def test_a_single_input_that_cannot_be_fetched(raw: Raw, web: str) -> None:
    # The tests of the published gRPC client want the code above the output as well.
    request = v2.PostModelOutputsRequest(user_app_id=PUBLIC, model_id="color-recognition")
    request.inputs.add().data.image.url = f"{web}/missing"
    response = raw("PostModelOutputs", request)
    assert response.status.code == Code.INPUT_DOWNLOAD_FAILED
    assert response.outputs[0].status.code == Code.INPUT_DOWNLOAD_FAILED
    request.inputs.add().data.image.url = f"{web}/red.png"
    assert raw("PostModelOutputs", request).status.code == Code.MIXED_STATUS


def test_a_gif_as_video(raw: Raw) -> None:
    pictures = [PIL.Image.new("RGB", (64, 48), color) for color in ("red", "lime", "blue")]
    file = io.BytesIO()
    pictures[0].save(file, "GIF", save_all=True, append_images=pictures[1:], duration=1000, loop=0)
    request = v2.PostModelOutputsRequest(user_app_id=PUBLIC, model_id="color-recognition")
    request.inputs.add().data.video.base64 = file.getvalue()
    (output,) = ok(raw("PostModelOutputs", request)).outputs
    names = [frame.data.colors[0].w3c.name for frame in output.data.frames]
    assert names == ["Red", "Lime", "Blue"]


def test_urls(raw: Raw, web: str) -> None:
    request = v2.PostModelOutputsRequest(user_app_id=PUBLIC, model_id="color-recognition")
    for url in (f"{web}/red.png", f"{web}/missing", "file:///etc/passwd", "http://10.0.0.1/x"):
        request.inputs.add().data.image.url = url
    response = raw("PostModelOutputs", request)
    assert [o.status.code for o in response.outputs] == [
        Code.SUCCESS,
        Code.INPUT_FAILED,
        Code.INPUT_INVALID_URL,
        Code.INPUT_INVALID_URL,
    ]
    assert response.outputs[0].input.data.image.url == f"{web}/red.png"


def test_requests_that_cannot_be(raw: Raw) -> None:
    def code(request: v2.PostModelOutputsRequest) -> int:
        return int(raw("PostModelOutputs", request).status.code)

    assert code(predict_request()) == Code.PREDICT_INVALID_REQUEST
    assert code(predict_request(*[b"x"] * 129)) == Code.INPUT_INVALID_ARGUMENT
    unknown = predict_request(b"x")
    unknown.model_id = "no-such-model"
    assert code(unknown) == Code.MODEL_DOES_NOT_EXIST
    version = predict_request(b"x")
    version.version_id = "no-such-version"
    assert code(version) == Code.MODEL_DOES_NOT_EXIST
    elsewhere = predict_request(b"x")
    elsewhere.ClearField("user_app_id")
    assert code(elsewhere) == Code.MODEL_DOES_NOT_EXIST


@pytest.mark.parametrize("older", [False, True])
def test_output_config_limits_concepts(raw: Raw, older: bool) -> None:
    request = predict_request(png("red", "navy", "navy", "lime"))
    place = request.model if older else request.model.model_version
    config = place.output_info.output_config
    config.max_concepts = 1
    names = [c.name for c in raw("PostModelOutputs", request).outputs[0].data.concepts]
    assert names == ["Navy"]
    config.max_concepts = 0
    config.min_value = 0.4
    assert len(raw("PostModelOutputs", request).outputs[0].data.concepts) == 1
    config.min_value = 0
    config.select_concepts.add(id="red")
    names = [c.name for c in raw("PostModelOutputs", request).outputs[0].data.concepts]
    assert names == ["Red"]


def test_models_can_be_read(raw: Raw) -> None:
    request = v2.GetModelRequest(user_app_id=PUBLIC, model_id="color-recognition")
    model = raw("GetModel", request).model
    assert model.model_version.status.code == Code.MODEL_TRAINED
    assert model.visibility.gettable == v2.Visibility.PUBLIC
    listed = raw("ListModels", v2.ListModelsRequest(user_app_id=PUBLIC)).models
    assert model in listed
    versions = raw(
        "ListModelVersions",
        v2.ListModelVersionsRequest(user_app_id=PUBLIC, model_id="color-recognition"),
    ).model_versions
    assert versions[0] == model.model_version
    one = raw(
        "GetModelVersion",
        v2.GetModelVersionRequest(
            user_app_id=PUBLIC, model_id="color-recognition", version_id=versions[0].id
        ),
    )
    assert one.model_version == versions[0]


def test_models_can_be_created(raw: Raw) -> None:
    def post(**fields: Any) -> Any:
        return raw("PostModels", v2.PostModelsRequest(models=[v2.Model(**fields)]))

    for n in range(5):
        made = post(id=f"m{n}", model_type_id="visual-classifier")
        assert made.status.code == Code.SUCCESS
        assert made.model.app_id == raw.server.app_id
    assert post(id="m0").status.code == Code.DATABASE_DUPLICATE_KEY
    assert post().status.code == Code.MODEL_INVALID_ARGUMENT
    model = raw("GetModel", v2.GetModelRequest(model_id="m3")).model
    assert not model.HasField("model_version")  # PostModels makes none

    def ids(**filters: Any) -> list[str]:
        filters.setdefault("user_app_id", v2.UserAppIDSet(user_id=raw.server.user_id))
        return [m.id for m in raw("ListModels", v2.ListModelsRequest(**filters)).models]

    assert ids() == ["m4", "m3", "m2", "m1", "m0"]
    assert ids(sort_by_name=True, sort_ascending=True, page=2, per_page=2) == ["m2", "m3"]
    assert ids(trained_only=True) == []
    assert ids(model_type_id="other") == []
    everywhere = v2.UserAppIDSet(user_id=raw.server.user_id)
    assert len(ids(user_app_id=everywhere, search="m3")) == 1
    predict = v2.PostModelOutputsRequest(model_id="m0")
    predict.inputs.add().data.text.raw = "x"
    assert raw("PostModelOutputs", predict).status.code == Code.MODEL_INVALID_REQUEST


def test_text_is_generated_piece_by_piece(raw: Raw) -> None:
    request = v2.PostModelOutputsRequest(user_app_id=PUBLIC, model_id="text-stream")
    request.inputs.add().data.text.raw = "one two three"
    responses = list(raw("GenerateModelOutputs", request))
    assert len(responses) > 2
    text = "".join(r.outputs[0].data.text.raw for r in responses)
    assert all(r.status.code == Code.SUCCESS for r in responses)
    assert len({r.outputs[0].input.id for r in responses}) == 1
    whole = raw("PostModelOutputs", request).outputs[0].data.text.raw
    assert text == whole == "one two three"


def test_generate_with_several_inputs_and_a_bad_one(raw: Raw) -> None:
    request = v2.PostModelOutputsRequest(user_app_id=PUBLIC, model_id="text-stream")
    request.inputs.add().data.text.raw = "a b c"
    request.inputs.add().data.image.base64 = b"x"
    request.inputs.add().data.text.raw = "d"
    responses = list(raw("GenerateModelOutputs", request))
    assert responses[0].status.code == Code.MIXED_STATUS
    texts = ["".join(r.outputs[n].data.text.raw for r in responses) for n in range(3)]
    assert texts == ["a b c", "", "d"]


class FlowControl:
    """Requests that are sent when the test says so."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def send(self, request: Any) -> None:
        self._queue.put(request)

    def end(self) -> None:
        self._queue.put(None)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._queue.get, None)


def test_stream_answers_while_it_is_open(raw: Raw) -> None:
    feed = FlowControl()
    call = raw("StreamModelOutputs", iter(feed))
    for color in ("red", "navy"):
        feed.send(predict_request(png(color)))
        assert next(call).outputs[0].data.concepts[0].id == color
    feed.send(predict_request(b"nonsense"))
    assert next(call).outputs[0].status.code == Code.INPUT_UNSUPPORTED_FORMAT
    feed.send(predict_request(png("red"), png("navy")))  # and goes on, batches included
    assert len(next(call).outputs) == 2
    feed.end()
    assert list(call) == []
    assert list(raw("StreamModelOutputs", iter([]))) == []


def test_a_server_that_drains_first(serve: Callable[..., Raw]) -> None:
    raw = serve(faults=Faults(drain_first=True))
    feed = FlowControl()
    call = raw("StreamModelOutputs", iter(feed), timeout=0.5)
    feed.send(predict_request(png("red")))
    with pytest.raises(grpc.RpcError) as caught:
        next(call)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    feed.end()
    requests = iter([predict_request(png("red"))] * 3)
    assert len(list(raw("StreamModelOutputs", requests))) == 3


class Clock:
    """The time of the faults, which stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 0.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(faults_module, "time", SimpleNamespace(monotonic=lambda: made.now))
    return made


def test_deploys_slowly(raw: Raw, clock: Clock) -> None:
    raw.server.faults.deploy_seconds = 0.4
    seen = []
    for _ in range(3):
        seen.append(raw("PostModelOutputs", predict_request(png("red"))).status.code)
        clock.now += 0.25
    assert seen == [Code.MODEL_DEPLOYING, Code.MODEL_LOADING, Code.SUCCESS]


def test_throttles(raw: Raw, clock: Clock) -> None:
    raw.server.faults.rate_limit = 30
    raw.server.faults.rate_burst = 1
    request = v2.GetInputCountRequest()
    assert raw("GetInputCount", request).status.code == Code.SUCCESS
    response, call = raw.stub.GetInputCount.with_call(request, metadata=raw.metadata)
    assert response.status.code == Code.CONN_THROTTLED
    wait = float(dict(call.trailing_metadata())["retry-after"])
    assert 1 / 30 <= wait <= 0.034  # enough
    clock.now += wait
    assert raw("GetInputCount", request).status.code == Code.SUCCESS


@pytest.mark.measures
def test_throttles_by_items(raw: Raw) -> None:
    faults = raw.server.faults
    faults.rate_limit, faults.rate_burst, faults.rate_counts_items = 40, 4, True
    start = time.monotonic()
    done = 0
    while done < 24:
        request = predict_request(*[png("red")] * 4)
        response, call = raw.stub.PostModelOutputs.with_call(request, metadata=raw.metadata)
        if response.status.code == Code.SUCCESS:
            done += 4
        else:
            time.sleep(float(dict(call.trailing_metadata())["retry-after"]))
    assert 0.4 < time.monotonic() - start < 1.5  # 20 items beyond the burst, at 40 a second


def test_other_faults(raw: Raw) -> None:
    faults = raw.server.faults
    faults.unavailable_next = 2
    for _ in range(2):
        with pytest.raises(grpc.RpcError) as caught:
            raw("PostModelOutputs", predict_request(png("red")))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    faults.fail_inputs = {"b"}
    request = predict_request(png("red"), png("red"))
    request.inputs[1].id = "b"
    codes = [o.status.code for o in raw("PostModelOutputs", request).outputs]
    assert codes == [Code.SUCCESS, Code.MODEL_PREDICTION_FAILED]
    faults.latency_seconds = 0.1
    start = time.monotonic()
    raw("GetInputCount", v2.GetInputCountRequest())
    assert time.monotonic() - start >= 0.1
    faults.latency_seconds = 0
    faults.stream_fail_after = 2
    call = raw("StreamModelOutputs", iter([predict_request(png("red"))] * 5))
    got = [next(call), next(call)]
    assert all(r.status.code == Code.SUCCESS for r in got)
    with pytest.raises(grpc.RpcError) as caught:
        next(call)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_dropped_streams_free_their_threads(serve: Callable[..., Raw]) -> None:
    raw = serve(workers=4)
    for _ in range(20):
        feed = FlowControl()
        call = raw("StreamModelOutputs", iter(feed))
        feed.send(predict_request(png("red")))
        next(call)
        call.cancel()
        feed.end()
    assert raw("GetInputCount", v2.GetInputCountRequest()).status.code == Code.SUCCESS
