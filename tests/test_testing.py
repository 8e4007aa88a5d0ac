"""``clarigrpc.testing`` as a project's tests use it: its fixtures, faults, calls and stubs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from clarigrpc import AsyncClient, Client, RetryPolicy, errors, text, v2
from clarigrpc.local import LocalServer
from clarigrpc.testing import LocalApp
from tests.both import Both
from tests.conftest import Connect

Code = v2.StatusCode
PUBLIC = {"user_id": "clarifai", "app_id": "main"}
FAST = RetryPolicy(initial_backoff=0.01, max_backoff=0.02)
ONCE = RetryPolicy(max_attempts=1)
PREDICT = v2.PostModelOutputsRequest(model_id="m", inputs=[text("t")])


@pytest.fixture
def both(clarifai_app: LocalApp, connect: Connect) -> Both:
    """A client of either kind, of an app of the test's own."""
    app = clarifai_app
    return connect(
        app.server.base, pat=app.server.pat, user_id=app.user_id, app_id=app.app_id, retry=FAST
    )


async def predict(both: Both, *texts: str, **options: Any) -> Any:
    model = both.client.model("text-sentiment", **PUBLIC)
    return await both.run(model.predict, [text(one, id=one) for one in texts], **options)


@pytest.mark.parametrize("number", [1, 2])
def test_each_test_has_an_app_of_its_own(
    number: int, clarifai_app: LocalApp, clarifai_client: Client
) -> None:
    assert list(clarifai_client.inputs.list()) == []
    clarifai_client.inputs.create(text("mine", id="mine"))
    assert [call.request.inputs[0].id for call in clarifai_app.calls("PostInputs")] == ["mine"]
    assert clarifai_client.settings.app_id == clarifai_app.app_id


async def test_the_async_client(clarifai_app: LocalApp, clarifai_async_client: AsyncClient) -> None:
    await clarifai_async_client.inputs.create(text("mine", id="mine"))
    (call,) = clarifai_app.calls("PostInputs")
    assert call.request.user_app_id.app_id == clarifai_app.app_id


def test_a_client_of_the_environment(
    clarifai_env: LocalApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Client() as client:
        client.inputs.create(text("mine", id="mine"))
        assert client.settings.app_id == clarifai_env.app_id
    assert len(clarifai_env.calls("PostInputs")) == 1
    assert {name for name in os.environ if name.startswith("CLARIFAI_")} == set(
        clarifai_env.environment()
    )


async def test_the_next_calls_fail_and_the_client_repeats_them(
    both: Both, clarifai_app: LocalApp
) -> None:
    faults = clarifai_app.server.faults
    with faults.fail("PostModelOutputs", grpc.StatusCode.UNAVAILABLE, count=3) as fault:
        (output,) = await predict(both, "a good day")
    assert output.status.code == Code.SUCCESS
    assert fault.happened == 3
    assert len(clarifai_app.server.calls("PostModelOutputs", model_id="text-sentiment")) >= 4


async def test_any_status_of_a_method(both: Both, clarifai_app: LocalApp) -> None:
    faults = clarifai_app.server.faults
    with (
        faults.fail("PostModelOutputs", Code.MODEL_DOES_NOT_EXIST, details="gone"),
        pytest.raises(errors.NotFoundError, match="gone"),
    ):
        await predict(both, "a")
    with (
        faults.fail("PostModelOutputs", grpc.StatusCode.PERMISSION_DENIED),
        pytest.raises(errors.PermissionDeniedError),
    ):
        await predict(both, "a")
    assert len(await predict(both, "a")) == 1


async def test_throttled_delayed_and_mixed(both: Both, clarifai_app: LocalApp) -> None:
    faults = clarifai_app.server.faults
    with faults.throttle("PostModelOutputs", retry_after=0.05, count=2):
        assert len(await predict(both, "a")) == 1
    with (
        faults.delay("PostModelOutputs", 5),
        pytest.raises(errors.DeadlineExceededError),
    ):
        await predict(both, "a", timeout=0.2)
    with faults.mixed_status(items=[1]), pytest.raises(errors.PartialFailureError) as caught:
        await predict(both, "a", "b", "c")
    assert [item.index for item in caught.value.failed] == [1]
    assert [item.index for item in caught.value.succeeded] == [0, 2]


async def test_a_cut_stream(both: Both, clarifai_app: LocalApp) -> None:
    model = both.client.model("text-stream", **PUBLIC)
    found: list[Any] = []
    with (
        clarifai_app.server.faults.cut_stream("GenerateModelOutputs", after=2, count=1),
        pytest.raises(errors.UnavailableError, match="after 2 responses"),
    ):
        await both.collect(model.generate(text("one two three four")), into=found)
    assert len(found) == 2


async def test_a_slow_deployment(both: Both, clarifai_app: LocalApp) -> None:
    faults = clarifai_app.server.faults
    with faults.during(deploy_seconds=0.2):
        assert len(await predict(both, "a")) == 1
    assert faults.deploy_seconds == 0
    model = both.client.with_options(retry=ONCE).model("text-sentiment", **PUBLIC)
    with faults.during(deploy_seconds=60), pytest.raises(errors.NotReadyError):
        await both.run(model.predict, text("a"))


def test_a_fault_that_does_not_happen_is_an_error(clarifai_app: LocalApp) -> None:
    faults = clarifai_app.server.faults
    with pytest.raises(AssertionError, match=r"PostInputs.*2 times.*happened 0 times"):  # noqa: SIM117
        with faults.fail("PostInputs", count=2):
            pass
    with faults.fail("PostInputs", optional=True):
        pass
    with pytest.raises(KeyError), faults.fail("PostInputs"):
        raise KeyError("the error of the test itself")


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (lambda faults: faults.fail("PostInput"), ValueError),
        (lambda faults: faults.fail("PostInputs", "UNAVAILABLE"), TypeError),
        (lambda faults: faults.fail("PostInputs", Code.SUCCESS), ValueError),
        (lambda faults: faults.fail("PostInputs", count=0), ValueError),
        (lambda faults: faults.fail("PostInputs", count=True), TypeError),
        (lambda faults: faults.throttle("PostInputs", retry_after=-1), ValueError),
        (lambda faults: faults.delay("PostInputs", "1"), TypeError),
        (lambda faults: faults.cut_stream("PostInputs"), ValueError),
        (lambda faults: faults.cut_stream("GenerateModelOutputs", -1), ValueError),
        (lambda faults: faults.mixed_status("PostInputs"), ValueError),
        (lambda faults: faults.mixed_status(items="0"), TypeError),
        (lambda faults: faults.during(deploy_second=1).__enter__(), AttributeError),
    ],
)
def test_what_cannot_be_a_fault(
    clarifai_local: LocalServer, wrong: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        wrong(clarifai_local.faults)


def test_recorded_calls(clarifai_app: LocalApp, clarifai_client: Client) -> None:
    server = clarifai_app.server
    clarifai_client.concepts.create_many([v2.Concept(id="cat"), v2.Concept(id="dog")])
    (call,) = clarifai_app.calls(
        "PostConcepts", matching=lambda request: request.concepts[1].id == "dog"
    )
    assert call.remaining is not None
    assert 50 < call.remaining < 70  # the default is 60
    assert "authorization" not in call.metadata
    assert server.pat not in repr(call) + str(call.metadata)
    assert clarifai_app.calls("PostConcepts", matching=lambda request: False) == []
    assert clarifai_app.calls("PostInputs") == []
    with pytest.raises(ValueError, match="no method 'PostConcept'"):
        server.calls("PostConcept")
    with pytest.raises(ValueError, match=r"has no field user_app_id\.app; it has user_id"):
        server.calls("PostConcepts", user_app_id={"app": "x"})
    with pytest.raises(RuntimeError, match="record_calls"):
        LocalServer().calls()


async def test_only_what_was_expected_is_answered(both: Both, clarifai_app: LocalApp) -> None:
    server = clarifai_app.server
    answer = v2.MultiOutputResponse(outputs=[v2.Output(id="made up")])

    def echo(request: v2.PostModelOutputsRequest) -> Any:
        return v2.MultiOutputResponse(outputs=[v2.Output(id=request.inputs[0].id)])

    with server.stub() as stub:
        stub.on("PostModelOutputs", answer, grpc.StatusCode.UNAVAILABLE, echo)
        stub.on("GenerateModelOutputs", [answer, answer])
        stub.on("GetModel", Code.MODEL_DOES_NOT_EXIST, always=True)
        (output,) = await predict(both, "a")
        assert output.id == "made up"
        (output,) = await predict(both, "b")
        assert output.id == "b"
        model = both.client.model("any", **PUBLIC)
        assert len(await both.collect(model.generate(text("a")))) == 2
    with pytest.raises(AssertionError, match="nobody expected these calls: ListInputs"):  # noqa: SIM117
        with server.stub():
            with pytest.raises(errors.ApiError, match="nobody expected ListInputs"):
                await both.call("ListInputs", v2.ListInputsRequest())
    with pytest.raises(AssertionError, match="did not come: 1 of PostModelOutputs"):  # noqa: SIM117
        with server.stub() as stub:
            stub.on("PostModelOutputs", answer)
    assert len(await predict(both, "the real model again")) == 1
    for wrong, error in (
        (("PostModelOutput", answer), ValueError),
        (("PostModelOutputs",), ValueError),
        (("PostModelOutputs", v2.SingleModelResponse()), TypeError),
        (("PostModelOutputs", [answer]), TypeError),
        (("PostModelOutputs", "OK"), TypeError),
        (("PostModelOutputs", 123456), TypeError),
    ):
        with pytest.raises(error):
            server.stub().on(*wrong)


@pytest.fixture(scope="module")
def with_rest() -> Iterator[LocalServer]:
    with LocalServer(rest_port=0) as server:
        yield server


async def test_a_stub_answers_over_rest(with_rest: LocalServer, connect: Connect) -> None:
    settings: dict[str, Any] = {"user_id": "u", "app_id": "a", "retry": FAST}
    # A stub does not look at credentials.
    both = connect(with_rest.rest_base, pat="of-nobody", transport="rest", **settings)
    model = both.client.model("any")
    outputs = [v2.MultiOutputResponse(outputs=[v2.Output(id=one)]) for one in ("a", "b")]

    def echo(request: v2.PostModelOutputsRequest) -> Any:
        return v2.MultiOutputResponse(outputs=[v2.Output(id=request.inputs[0].data.text.raw)])

    with with_rest.stub() as stub:
        stub.on("PostModelOutputs", outputs[0], grpc.StatusCode.UNAVAILABLE, echo, echo)
        stub.on("GenerateModelOutputs", outputs)
        stub.on("GetModel", Code.MODEL_DOES_NOT_EXIST, always=True)
        assert (await both.run(model.predict, text("x"))).id == "a"
        assert (await both.run(model.predict, text("y"))).id == "y"
        large = "z" * (2 << 20)  # of strangers, the server takes less
        assert (await both.run(model.predict, text(large))).id == large
        made = await both.collect(both.client.v2.GenerateModelOutputs(PREDICT))
        assert [one.outputs[0].id for one in made] == ["a", "b"]
        with pytest.raises(errors.NotFoundError):
            await both.run(model.get)
    with pytest.raises(AssertionError, match="nobody expected these calls: ListInputs, GET /v2/x"):  # noqa: SIM117
        with with_rest.stub():
            with pytest.raises(errors.ApiError, match="nobody expected ListInputs"):
                await both.call("ListInputs", v2.ListInputsRequest())
            assert httpx.get(f"{with_rest.rest_base}/v2/x").status_code == 404
    with pytest.raises(errors.AuthenticationError):
        await both.call("ListInputs", v2.ListInputsRequest())


@pytest.mark.measures
async def test_an_answer_of_a_stub_that_fails_its_test(both: Both, clarifai_app: LocalApp) -> None:
    def failing(request: Any) -> Any:
        pytest.fail("this is not to be asked")

    began = time.monotonic()
    with pytest.raises(errors.ApiError) as caught:  # noqa: SIM117
        with clarifai_app.server.stub() as stub:
            stub.on("GetModel", failing)
            await both.call("GetModel", v2.GetModelRequest(model_id="m"), timeout=60)
    assert time.monotonic() - began < 40
    assert any("this is not to be asked" in note for note in caught.value.__notes__)


async def test_an_answer_of_a_stub_that_is_broken(both: Both, clarifai_app: LocalApp) -> None:
    def broken(request: Any) -> Any:
        raise KeyError("a mistake of the test")

    for answer, says in ((broken, "KeyError.*a mistake of the test"), (lambda _: "x", "TypeError")):
        with pytest.raises(AssertionError, match=f"the answer to GetModel raised {says}"):  # noqa: SIM117
            with clarifai_app.server.stub() as stub:
                stub.on("GetModel", answer)
                with pytest.raises(errors.InternalError):
                    await both.run(both.client.model("m").get)
    with pytest.raises(errors.InternalError) as caught:  # noqa: SIM117
        with clarifai_app.server.stub() as stub:
            stub.on("GetModel", broken)
            await both.run(both.client.model("m").get)
    assert caught.value.__notes__ == [
        "the answer to GetModel raised KeyError('a mistake of the test')"
    ]


def test_seeding_from_a_file_and_from_a_folder(
    clarifai_app: LocalApp, clarifai_client: Client, tmp_path: Path
) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "hello.txt").write_text("hello")
    (tmp_path / "app.yaml").write_text(
        "concepts: [{id: cat}]\ndatasets: [{id: train}]\ninputs: pictures\n"
    )
    clarifai_app.seed(tmp_path)
    assert [one.id for one in clarifai_client.concepts.list()] == ["cat"]
    assert [one.id for one in clarifai_client.datasets.list()] == ["train"]
    (item,) = clarifai_client.inputs.list()
    assert item.status.code == Code.INPUT_DOWNLOAD_SUCCESS
    clarifai_app.seed({"concepts": [{"id": "cat"}, {"id": "dog"}]})
    assert {one.id for one in clarifai_client.concepts.list()} == {"cat", "dog"}
    with pytest.raises(ValueError, match="concept"):
        clarifai_app.seed({"concept": [{"id": "bird"}]})
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ValueError, match="must be an object"):
        clarifai_app.seed(tmp_path / "list.yaml")


def test_seeding_from_a_folder_of_inputs(
    clarifai_app: LocalApp, clarifai_client: Client, tmp_path: Path
) -> None:
    (tmp_path / "one.txt").write_text("one")
    (tmp_path / "two.txt").write_text("two")
    clarifai_app.seed(tmp_path)
    assert len(list(clarifai_client.inputs.list())) == 2


def test_a_reset_server_is_as_new(clarifai_server: LocalServer) -> None:
    server = clarifai_server
    base = server.base
    server.faults.latency_seconds = 0.001
    with server.client(retry=FAST) as client:
        client.inputs.create(text("a", id="a"))
        server.reset()
        assert (server.base, server.faults.latency_seconds) == (base, 0)
        assert server.calls() == []
        assert list(client.inputs.list()) == []
