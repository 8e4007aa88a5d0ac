"""``predict`` with a list of inputs, of both clients."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from clarigrpc import errors, text, v2
from tests.both import Both
from tests.bulk.service import METHOD, Response, outputs, script
from tests.scripted import ScriptedServer

FAILED = v2.StatusCode.INPUT_DOWNLOAD_FAILED


def texts(count: int) -> list[v2.Input]:
    return [text(str(number)) for number in range(count)]


def failing_at(bad: str, whole: Any = v2.StatusCode.MIXED_STATUS) -> Any:
    """Answers a status with one failed output for the input with this text."""

    def answer(request: Any) -> Response:
        response = outputs(request)
        for output in response.outputs:
            if output.data.text.raw == bad:
                output.status.code = FAILED
                response.status.code = whole
        return response

    return script(answer)


async def predict(both: Both, values: list[Any], **options: Any) -> list[v2.Output]:
    found: list[v2.Output] = await both.run(both.client.model("m").predict, values, **options)
    return found


@pytest.mark.parametrize("count", [1, 127, 128, 129, 300])
async def test_long_lists_are_split_and_keep_their_order(
    both: Both, scripted: ScriptedServer, count: int
) -> None:
    scripted.always(METHOD, script(outputs))
    found = await predict(both, texts(count))
    assert [output.data.text.raw for output in found] == [str(number) for number in range(count)]
    sizes = [len(seen.request.inputs) for seen in scripted.seen]
    assert sum(sizes) == count
    assert max(sizes) <= 128


@pytest.mark.parametrize(
    ("bad", "whole"),
    [
        *((bad, v2.StatusCode.MIXED_STATUS) for bad in ("0", "127", "128", "199")),
        ("128", v2.StatusCode.SUCCESS),  # of a service that leaves it to the outputs
    ],
)
async def test_one_failure_keeps_the_outputs_of_all_requests(
    both: Both, scripted: ScriptedServer, bad: str, whole: Any
) -> None:
    scripted.always(METHOD, failing_at(bad, whole))
    with pytest.raises(errors.PartialFailureError) as caught:
        await predict(both, texts(200))
    failure = caught.value
    assert [pair.index for pair in failure.failed] == [int(bad)]
    assert len(failure.succeeded) == 199
    assert isinstance(failure.response, Response)
    assert [output.data.text.raw for output in failure.response.outputs] == [
        str(number) for number in range(200)
    ]
    found = await predict(both, texts(200), raise_on_partial=False)
    assert [output.status.code for output in found].count(FAILED) == 1
    assert found[int(bad)].status.code == FAILED


async def test_a_failed_result_of_a_workflow_under_success(
    both: Both, scripted: ScriptedServer
) -> None:
    response: Any = v2.PostWorkflowResultsResponse()
    response.status.code = v2.StatusCode.SUCCESS
    response.results.add().status.code = FAILED
    scripted.always("PostWorkflowResults", script(lambda _: response))
    with pytest.raises(errors.ApiError) as caught:
        await both.run(both.client.workflows.predict, "w", text("x"))
    assert caught.value.code == FAILED


@pytest.mark.parametrize("count", [0, 2])
async def test_an_answer_with_another_number_of_outputs_is_an_error(
    both: Both, scripted: ScriptedServer, count: int
) -> None:
    def answer(request: Any) -> Response:
        response = outputs(request)
        del response.outputs[count:]
        return response

    scripted.always(METHOD, script(answer))
    with pytest.raises(errors.InternalError, match=f"sent 3 inputs, received {count} outputs"):
        await predict(both, texts(3))


async def test_any_sequence_of_inputs_is_a_list(both: Both, scripted: ScriptedServer) -> None:
    scripted.always(METHOD, script(outputs))
    for values in (
        tuple(texts(3)),
        deque(texts(3)),
        v2.PostModelOutputsRequest(inputs=texts(3)).inputs,
    ):
        found = await both.run(both.client.model("m").predict, values)
        assert [output.data.text.raw for output in found] == ["0", "1", "2"]


@pytest.mark.parametrize("value", [b"bytes", bytearray(b"bytes"), memoryview(b"bytes")])
async def test_bytes_are_one_input(
    both: Both, scripted: ScriptedServer, value: bytes | bytearray | memoryview
) -> None:
    scripted.always(METHOD, script(outputs))
    found = await both.run(both.client.model("m").predict, value)
    assert isinstance(found, v2.Output)
    assert scripted.seen[-1].request.inputs[0].data.image.base64 == b"bytes"


async def test_a_string_is_no_input(both: Both) -> None:
    with pytest.raises(TypeError, match="a string can be a path, a URL or a text"):
        await both.run(both.client.model("m").predict, "cat.jpg")
    with pytest.raises(TypeError, match="a string can be a path, a URL or a text"):
        await both.run(both.client.model("m").predict, ["cat.jpg"])
