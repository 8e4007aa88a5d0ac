"""What a call of the worker is in after what came over it."""

from __future__ import annotations

from clarigrpc import errors, v2
from clarigrpc._worker.item_call import ItemCall

Code = v2.StatusCode
Kind = v2.RunnerMethodType


def response(
    *items: v2.RunnerItem, code: Code.ValueType = Code.SUCCESS
) -> v2.MultiRunnerItemResponse:
    return v2.MultiRunnerItemResponse(status=v2.Status(code=code), runner_items=items)


def item(
    kind: Kind.ValueType, item_id: str = "i", text: str = "", code: Code.ValueType = Code.SUCCESS
) -> v2.RunnerItem:
    made = v2.RunnerItem(id=item_id)
    made.processing_info.runner_method_type = kind
    made.processing_info.status.code = code
    if text:
        made.post_model_outputs_request.inputs.add().data.text.raw = text
    return made


def texts(call: ItemCall) -> list[str]:
    return [one.inputs[0].data.text.raw for one in call.inputs]


def test_an_item_with_one_request() -> None:
    call = ItemCall()
    call.received(response(item(Kind.UNARY_UNARY, text="a")))
    assert call.item is not None
    assert call.inputs_ended
    assert texts(call) == ["a"]
    call.received(response(item(Kind.UNARY_UNARY, "other", "b")))
    assert texts(call) == ["a"], "one item a call"


def test_a_stream_ends_in_either_way() -> None:
    for last in (
        response(code=Code.RUNNER_STREAM_END),
        response(item(Kind.STREAMING_STREAMING, code=Code.RUNNER_STREAM_END)),
    ):
        call = ItemCall()
        call.received(response(item(Kind.STREAMING_STREAMING, text="a")))
        call.received(response(item(Kind.STREAMING_STREAMING, text="b")))
        assert not call.inputs_ended
        call.received(last)
        assert call.inputs_ended
        assert texts(call) == ["a", "b"]


def test_a_stream_that_breaks_is_not_complete() -> None:
    call = ItemCall()
    call.received(response(item(Kind.STREAMING_UNARY, text="a")))
    call.ended(errors.UnavailableError("gone"))
    assert call.over
    assert not call.inputs_ended


def test_cancellations() -> None:
    call = ItemCall()
    cancelled = item(Kind.UNARY_UNARY, code=Code.RUNNER_ITEM_CANCELLED)
    call.received(response(cancelled))
    assert list(call.cancelled_ids) == ["i"]
    assert (call.item, call.abort) == (None, None)
    call.received(response(item(Kind.UNARY_UNARY, text="a")))
    call.received(response(cancelled))
    assert call.abort is not None
    other = ItemCall()
    other.ended(errors.CancelledError("late", code=Code.RUNNER_ITEM_CANCELLED))
    assert other.abort is not None


def test_an_answer_without_an_item() -> None:
    call = ItemCall()
    call.received(response())
    assert call.refused
    assert not ItemCall().refused


def test_unread_inputs_hold_the_service_back() -> None:
    call = ItemCall()
    while not call.is_full:
        call.received(response(item(Kind.STREAMING_STREAMING, text="a")))
    assert len(call.inputs) == 64
    call.cancel()
    assert not call.is_full, "who left is not waited for"


def test_large_unread_inputs_hold_the_service_back() -> None:
    call = ItemCall()
    for _ in range(5):
        assert not call.is_full
        call.received(response(item(Kind.STREAMING_STREAMING, text="a" * (1 << 20))))
        if call.is_full:
            break
    assert len(call.inputs) == 4
    call.take_input()
    assert not call.is_full
    call.received(response(item(Kind.STREAMING_STREAMING, text="a" * (1 << 20))))
    assert call.is_full
    call.drain()
    assert not call.is_full
    call.received(response(item(Kind.STREAMING_STREAMING, text="a")))
    assert not call.inputs, "the method has ended"
