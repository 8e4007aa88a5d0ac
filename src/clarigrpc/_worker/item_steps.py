"""What the plans of a worker have to wait for. Two drivers do it, one blocks and one awaits."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, NamedTuple, TypeAlias, TypeVar

from clarigrpc import v2
from clarigrpc._named_methods.python_methods import MethodRun, ModelMethod
from clarigrpc._rpc.plan import Call
from clarigrpc._worker.item_call import ItemCall

T = TypeVar("T")


class OpenCall(NamedTuple):
    """Open a call; what comes over it is read into its state from then on."""

    call: ItemCall
    hello: v2.PostRunnerItemOutputsRequest


class AwaitChange(NamedTuple):
    """Wait until something happens to a call, at most for so many seconds."""

    call: ItemCall
    seconds: float


class WriteMessage(NamedTuple):
    """Send a message once there is room; the plan is sent False where the call is over."""

    call: ItemCall
    message: v2.PostRunnerItemOutputsRequest


class HalfClose(NamedTuple):
    """No further message follows."""

    call: ItemCall


class WakeCall(NamedTuple):
    """Tell those who wait for a change of a call that there is one."""

    call: ItemCall


class CancelCall(NamedTuple):
    """End a call at once."""

    call: ItemCall


class Pause(NamedTuple):
    """Wait for so many seconds, or until the worker is to stop."""

    seconds: float


class StartMethod(NamedTuple):
    """Start a method; the plan is sent an iterator of its results.

    Attributes:
        run: The method.
        call: The item that it is for.
        streamed: Whether its streamed argument are the inputs of the item.
    """

    run: MethodRun
    call: ItemCall
    streamed: bool = False


class NextResult(NamedTuple):
    """Wait for the next result of a method; the plan is sent None at the end.

    ItemAbortedError is raised in the plan where the item is aborted meanwhile.
    """

    results: Any
    call: ItemCall


class EndMethods(NamedTuple):
    """End the methods that were started for the item of a call and still run."""

    call: ItemCall


class NextRequest(NamedTuple):
    """Wait for the next request of a streaming item; the plan is sent None at the end."""

    call: ItemCall


class RunBatch(NamedTuple):
    """Run a batched method; the plan is sent the result, or the exception, for each row."""

    method: ModelMethod
    rows: list[dict[str, Any]]
    call: ItemCall


class RunFunction(NamedTuple):
    """Run a function that may block; the plan is sent what it returns."""

    function: Callable[[], Any]


WorkerStep: TypeAlias = (
    OpenCall
    | AwaitChange
    | WriteMessage
    | HalfClose
    | WakeCall
    | CancelCall
    | Pause
    | StartMethod
    | NextResult
    | EndMethods
    | NextRequest
    | RunBatch
    | RunFunction
    | Call
)
WorkerPlan: TypeAlias = Generator[WorkerStep, Any, T]
