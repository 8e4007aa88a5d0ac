"""A worker's loop in every order of faults: no item is forgotten, none is answered twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from clarigrpc import RetryPolicy, errors, v2
from clarigrpc._named_methods.python_methods import PythonMethods
from clarigrpc._named_methods.values import MediaReader
from clarigrpc._rpc.plan import Call
from clarigrpc._worker import item_steps as steps
from clarigrpc._worker.item_answers import ItemAnswer
from clarigrpc._worker.item_call import ItemCall
from clarigrpc._worker.item_loop import ItemLoop, Registration
from clarigrpc._worker.item_messages import RunnerIdentity

Code = v2.StatusCode
Kind = v2.RunnerMethodType


class Model:
    def predict(self, text: str) -> str:
        return text

    def generate(self, text: str) -> Iterator[str]:
        yield from text


@dataclass
class Told:
    """What one call of the service does.

    Attributes:
        kind: Of the item; UNKNOWN gives none.
        breaks_after: So many messages arrive, then the call breaks; None: none does.
        cancelled_after: So many messages arrive, then the caller leaves.
        post: What becomes of outputs that are handed back by a call of their own.
    """

    kind: Kind.ValueType
    breaks_after: int | None = None
    cancelled_after: int | None = None
    post: str = "taken"
    arrived: list[v2.PostRunnerItemOutputsRequest] = field(default_factory=list)
    posted: list[v2.PostRunnerItemOutputsRequest] = field(default_factory=list)
    ended_well: bool = False


TOLD = st.builds(
    Told,
    st.sampled_from([Kind.UNKNOWN, Kind.UNARY_UNARY, Kind.UNARY_STREAMING]),
    st.none() | st.integers(0, 3),
    st.none() | st.integers(0, 2),
    st.sampled_from(["taken", "not waited for", "unreachable"]),
)


class Driver:
    """Does the steps of a plan as the calls say."""

    def __init__(self, script: list[Told]) -> None:
        self.now = 0.0
        self._script = iter(script)
        self._told: dict[int, Told] = {}
        self._last: Told | None = None
        methods = PythonMethods(Model)
        self.loop = ItemLoop(
            RunnerIdentity("u", "", "", "r", "one"),
            Registration("", "", "", ""),
            ItemAnswer(methods, MediaReader()),
            RetryPolicy(),
            lambda: self.now,
            lambda: 0.5,
        )

    def run(self) -> None:
        plan = self.loop.serve(0)
        value: Any = None
        step = next(plan)
        try:
            while True:
                try:
                    value = self._do(step)
                except errors.ApiError as error:
                    step = plan.throw(error)
                else:
                    step = plan.send(value)
        except StopIteration:
            return

    def _do(self, step: Any) -> Any:
        match step:
            case steps.OpenCall(call=call):
                told = next(self._script, None)
                if told is None:
                    self.loop.stopping = True
                    call.ended(None)
                    return None
                self._told[id(call)] = self._last = told
                if told.breaks_after == 0 and told.kind == Kind.UNKNOWN:
                    call.ended(errors.UnavailableError("broken"))
                elif told.kind != Kind.UNKNOWN:
                    call.received(_item(told.kind))
                    self._cancel_or_break(call, told)
                return None
            case steps.WriteMessage(call=call, message=message):
                told = self._told[id(call)]
                if call.over:
                    return False
                told.arrived.append(message)
                self._cancel_or_break(call, told)
                return True
            case steps.HalfClose(call=call):
                if not call.over:
                    call.ended(None)
                    self._told.get(id(call), Told(Kind.UNKNOWN)).ended_well = True
            case steps.CancelCall(call=call):
                if not call.over:
                    call.ended(errors.CancelledError("cancelled here"))
            case steps.AwaitChange(seconds=seconds):
                self.now += seconds
            case steps.Pause(seconds=seconds):
                self.now += seconds
            case steps.StartMethod(run=run):
                return run.results(lambda: True)
            case steps.NextResult(results=results):
                return next(results, None)
            case Call(request=request):
                assert self._last is not None
                self._last.posted.append(request)
                if self._last.post == "not waited for":
                    raise errors.CancelledError("late", code=Code.RUNNER_ITEM_CANCELLED)
                if self._last.post == "unreachable":
                    raise errors.UnavailableError("unreachable")
        return None

    def _cancel_or_break(self, call: ItemCall, told: Told) -> None:
        if told.cancelled_after == len(told.arrived):
            call.cancel()
        if told.breaks_after == len(told.arrived):
            call.ended(errors.UnavailableError("broken"))


def _item(kind: Kind.ValueType) -> v2.MultiRunnerItemResponse:
    response = v2.MultiRunnerItemResponse(status=v2.Status(code=Code.SUCCESS))
    item = response.runner_items.add(id="i")
    item.processing_info.runner_method_type = kind
    item.post_model_outputs_request.inputs.add().data.text.raw = "ab"
    return response


def _outputs(messages: list[v2.PostRunnerItemOutputsRequest]) -> list[str]:
    return [
        part.data.string_value
        for message in messages
        for one in message.runner_item_outputs
        for output in one.multi_output_response.outputs
        for part in output.data.parts
    ]


@given(st.lists(TOLD, max_size=12))
def test_every_item_has_one_end(script: list[Told]) -> None:
    driver = Driver(script)
    driver.run()
    stats = driver.loop.stats
    items = [told for told in script if told.kind != Kind.UNKNOWN]
    ends = stats.succeeded + stats.failed + stats.cancelled + stats.lost
    assert (ends, stats.running) == (len(items), 0)
    assert driver.loop.calls == []
    for told in items:
        whole = ["ab"] if told.kind == Kind.UNARY_UNARY else ["a", "b"]
        arrived = _outputs(told.arrived)
        assert arrived == whole[: len(arrived)], "in order, and each once"
        if told.ended_well:
            assert arrived == whole or told.cancelled_after is not None
            assert told.posted == []
        elif told.cancelled_after is not None:
            pass  # nobody waits
        elif told.kind == Kind.UNARY_UNARY:
            # Whether it arrived is not known: it is handed back again, as it was.
            assert _outputs(told.posted) == whole
        elif arrived:
            (failure,) = told.posted
            assert failure.status.code == Code.RUNNER_PROCESSING_FAILED
            assert not failure.runner_item_outputs
        else:
            assert told.posted == [], "another worker makes the outputs"
