"""The status tables, and the exceptions that users see."""

from __future__ import annotations

import asyncio
import copy
import logging
import pickle
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from clarigrpc import RetryPolicy, errors, v2
from clarigrpc._contract import methods
from clarigrpc._contract.status_names import code_name
from clarigrpc._rpc import grpc_failures, statuses
from clarigrpc._rpc.statuses import StatusKind
from tests.both import Both
from tests.conftest import PAT, Connect
from tests.scripted import SUCCESS, Answer, Fail, ScriptedServer, refuse, reply

Code = v2.StatusCode
ONCE = RetryPolicy(max_attempts=1)

# StatusKind -> its class.
CLASSES = {
    StatusKind.PARTIAL: errors.PartialFailureError,
    StatusKind.FAILED: errors.ApiError,
    StatusKind.AUTHENTICATION: errors.AuthenticationError,
    StatusKind.PERMISSION_DENIED: errors.PermissionDeniedError,
    StatusKind.NOT_FOUND: errors.NotFoundError,
    StatusKind.ALREADY_EXISTS: errors.AlreadyExistsError,
    StatusKind.INVALID_ARGUMENT: errors.InvalidArgumentError,
    StatusKind.RATE_LIMIT: errors.RateLimitError,
    StatusKind.QUOTA_EXCEEDED: errors.QuotaExceededError,
    StatusKind.NOT_READY: errors.NotReadyError,
    StatusKind.UNAVAILABLE: errors.UnavailableError,
    StatusKind.DEADLINE_EXCEEDED: errors.DeadlineExceededError,
    StatusKind.CANCELLED: errors.CancelledError,
    StatusKind.UNIMPLEMENTED: errors.UnimplementedError,
    StatusKind.INTERNAL: errors.InternalError,
}
RETRYABLE = {StatusKind.RATE_LIMIT, StatusKind.NOT_READY, StatusKind.UNAVAILABLE}


def unclassified(codes: Mapping[str, int]) -> list[str]:
    return [name for name, number in codes.items() if number not in statuses.STATUS_KINDS]


def test_every_status_code_is_classified() -> None:
    names = dict(Code.items())
    assert len(names) == 433  # aliases included: 430-odd values of the contract
    assert unclassified(names) == []


def test_a_new_status_code_is_noticed() -> None:
    assert unclassified({**dict(Code.items()), "BRAND_NEW": 99_999}) == ["BRAND_NEW"]
    assert statuses.kind_of(99_999) is StatusKind.INTERNAL
    assert code_name(99_999) == "UNKNOWN"


def test_no_status_code_is_classified_twice_or_made_up() -> None:
    listed = [
        (name, kind) for kind, names in statuses._STATUS_NAMES.items() for name in names.split()
    ]
    kinds: dict[int, StatusKind] = {}
    for name, kind in listed:
        number = Code.Value(name)
        assert kinds.setdefault(number, kind) is kind, name
    assert len({name for name, _ in listed}) == len(listed)


def test_every_grpc_code_is_classified() -> None:
    for code in grpc.StatusCode:
        assert isinstance(statuses.kind_of_grpc(code), StatusKind), code
    assert statuses._GRPC_KINDS.keys() == set(grpc.StatusCode)


def test_every_kind_is_a_success_or_has_a_class() -> None:
    assert set(CLASSES) == set(StatusKind) - {StatusKind.SUCCESS, StatusKind.PENDING}
    assert statuses.RETRYABLE == RETRYABLE


@pytest.mark.parametrize("name", Code.keys())
def test_a_response_with_a_code_becomes_the_class_of_its_kind(name: str) -> None:
    code = Code.Value(name)
    response = v2.SingleModelResponse(status=v2.Status(code=code, description="d", details="x"))
    error = statuses.from_response(response, method="GetModel", request_id="r", item_field="")
    kind = statuses.STATUS_KINDS[code]
    if kind in (StatusKind.SUCCESS, StatusKind.PENDING):
        assert error is None
        return
    assert type(error) is CLASSES[kind]
    assert error.code == code
    assert error.retryable is (kind in RETRYABLE)
    assert str(code) in str(error)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("SUCCESS", StatusKind.SUCCESS),
        ("MIXED_STATUS", StatusKind.PARTIAL),
        ("FAILURE", StatusKind.FAILED),
        ("CONN_KEY_INVALID", StatusKind.AUTHENTICATION),
        ("CONN_INSUFFICIENT_SCOPES", StatusKind.PERMISSION_DENIED),
        ("CONN_THROTTLED", StatusKind.RATE_LIMIT),
        ("CONN_EXCEED_MONTHLY_LIMIT", StatusKind.QUOTA_EXCEEDED),
        ("MODEL_DOES_NOT_EXIST", StatusKind.NOT_FOUND),
        ("MODEL_DEPLOYING", StatusKind.NOT_READY),
        ("MODEL_LOADING", StatusKind.NOT_READY),
        ("MODEL_BUILDING", StatusKind.PENDING),
        ("UPLOAD_DONE", StatusKind.SUCCESS),
        ("INPUT_DUPLICATE", StatusKind.ALREADY_EXISTS),
        ("INPUT_PENDING", StatusKind.PENDING),
        ("RPC_REQUEST_TIMEOUT", StatusKind.DEADLINE_EXCEEDED),
        ("NOT_IMPLEMENTED", StatusKind.UNIMPLEMENTED),
        ("INTERNAL_SERVER_ISSUE", StatusKind.INTERNAL),
    ],
)
def test_kinds_of_well_known_codes(name: str, kind: StatusKind) -> None:
    assert statuses.kind_of(Code.Value(name)) is kind


def test_every_response_has_a_status() -> None:
    for name in methods.names():
        fields = methods.lookup(name).response_class().DESCRIPTOR.fields_by_name
        assert fields["status"].message_type.full_name == "clarifai.api.status.Status", name


def test_the_tree() -> None:
    assert issubclass(errors.ConfigurationError, errors.ClarigrpcError)
    assert issubclass(errors.ClosedError, errors.ClarigrpcError)
    for kind, found in CLASSES.items():
        assert issubclass(found, errors.ApiError), kind
    assert not issubclass(errors.ConfigurationError, errors.ApiError)


async def test_attributes_of_a_v2_failure(both: Both, scripted: ScriptedServer) -> None:
    answer = refuse("GetModel", Code.MODEL_DOES_NOT_EXIST, "Model does not exist", "no 'm' here")
    scripted.on("GetModel", answer)
    with pytest.raises(errors.NotFoundError) as caught:
        await both.call("GetModel", v2.GetModelRequest(model_id="m"))
    error = caught.value
    assert error.code == 21200
    assert error.grpc_code is grpc.StatusCode.OK
    assert error.description == "Model does not exist"
    assert error.details == "no 'm' here"
    assert error.method == "GetModel"
    assert error.request_id == scripted.seen[0].metadata["x-clarifai-request-id-prefix"]
    assert error.retryable is False
    assert error.retry_after is None
    assert error.status == answer.status
    text = str(error)
    for part in ("GetModel", "Model does not exist", "no 'm' here", "21200", error.request_id):
        assert part in text


async def test_the_service_s_own_request_id_wins(both: Both, scripted: ScriptedServer) -> None:
    answer = refuse("GetModel", Code.MODEL_DOES_NOT_EXIST)
    answer.status.req_id = "abc-service"
    scripted.on("GetModel", answer)
    with pytest.raises(errors.NotFoundError) as caught:
        await both.call("GetModel", v2.GetModelRequest())
    assert caught.value.request_id == "abc-service"


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code.value[0]])
async def test_every_grpc_code_as_users_see_it(
    connect: Connect, scripted: ScriptedServer, code: grpc.StatusCode
) -> None:
    both = connect(scripted.base, retry=ONCE)
    scripted.on("GetModel", Fail(code, "the reason"))
    with pytest.raises(errors.ApiError) as caught:
        await both.call("GetModel", v2.GetModelRequest())
    error = caught.value
    kind = statuses.kind_of_grpc(code)
    assert type(error) is CLASSES[kind]
    assert error.grpc_code is code
    assert error.code is None
    assert error.details == "the reason"
    assert error.retryable is (kind in RETRYABLE)
    assert "the reason" in str(error)
    assert isinstance(error.__cause__, grpc.RpcError)


def every_error() -> list[errors.ApiError]:
    made: list[errors.ApiError] = [
        found(
            "what",
            code=10000 + index,
            grpc_code=grpc.StatusCode.UNAVAILABLE,
            details="why",
            request_id="r-1",
            method="GetModel",
            retryable=True,
            retry_after=1.5,
            status=v2.Status(code=Code.FAILURE),
            rich_details=(error_details_pb2.ErrorInfo(reason="R"),),
        )
        for index, found in enumerate(CLASSES.values())
    ]
    failed = refuse("PostInputs", Code.MIXED_STATUS)
    for code in (Code.INPUT_PENDING, Code.INPUT_DUPLICATE):
        failed.inputs.add().status.code = code
    partial = statuses.from_response(
        failed, method="PostInputs", request_id="r", item_field="inputs"
    )
    assert partial is not None
    return [*made, partial]


@pytest.mark.parametrize("error", every_error(), ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("duplicate", ["pickle", "copy", "deepcopy"])
def test_errors_survive_pickling(error: errors.ApiError, duplicate: str) -> None:
    ways: dict[str, Callable[[], Any]] = {
        "pickle": lambda: pickle.loads(pickle.dumps(error)),
        "copy": lambda: copy.copy(error),
        "deepcopy": lambda: copy.deepcopy(error),
    }
    again = ways[duplicate]()
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.__dict__ == error.__dict__


def test_configuration_and_closed_errors_survive_pickling() -> None:
    for error in (errors.ConfigurationError("set it"), errors.ClosedError()):
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error)
        assert str(again) == str(error)


async def test_an_error_from_a_call_survives_pickling(both: Both, scripted: ScriptedServer) -> None:
    scripted.on("GetModel", Fail(grpc.StatusCode.NOT_FOUND, "gone"))
    with pytest.raises(errors.NotFoundError) as caught:
        await both.call("GetModel", v2.GetModelRequest())
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)


@pytest.mark.parametrize("script", ["v2", "grpc"])
async def test_no_secret_in_errors_tracebacks_and_logs(
    both: Both, scripted: ScriptedServer, caplog: pytest.LogCaptureFixture, script: str
) -> None:
    caplog.set_level(logging.DEBUG)
    answers = {
        "v2": refuse("GetModel", Code.CONN_KEY_INVALID, "bad key"),
        "grpc": Fail(grpc.StatusCode.UNAUTHENTICATED, "bad key"),
    }
    scripted.on("GetModel", answers[script])
    with pytest.raises(errors.AuthenticationError) as caught:
        await both.call("GetModel", v2.GetModelRequest())
    text = "".join(traceback.format_exception(caught.value))
    for shown in (str(caught.value), repr(caught.value), text, caplog.text, repr(both.client)):
        assert PAT not in shown
    assert PAT[-4:] not in repr(both.client)


def mixed() -> Any:
    response = refuse("PostInputs", Code.MIXED_STATUS, "some failed")
    response.inputs.add(id="a").status.code = Code.INPUT_PENDING
    bad = response.inputs.add(id="b")
    bad.status.code = Code.INPUT_DUPLICATE
    bad.status.description = "duplicate"
    bad.status.details = "it is there"
    response.inputs.add(id="c").status.code = Code.INPUT_SUCCESS
    return response


INPUTS = v2.PostInputsRequest(inputs=[v2.Input(id=name) for name in "abc"])


async def test_mixed_status(both: Both, scripted: ScriptedServer) -> None:
    scripted.on("PostInputs", mixed())
    with pytest.raises(errors.PartialFailureError) as caught:
        await both.call("PostInputs", INPUTS)
    error = caught.value
    assert error.response == mixed()
    assert [index for index, _ in error.succeeded] == [0, 2]
    assert [(pair.index, pair.status.code) for pair in error.failed] == [(1, Code.INPUT_DUPLICATE)]
    assert "1 of 3 items failed" in str(error)
    assert "INPUT_DUPLICATE duplicate: it is there" in str(error)


async def test_mixed_status_returned_per_call(both: Both, scripted: ScriptedServer) -> None:
    scripted.on("PostInputs", mixed())
    assert await both.call("PostInputs", INPUTS, raise_on_partial=False) == mixed()


async def test_mixed_status_returned_per_client(connect: Connect, scripted: ScriptedServer) -> None:
    both = connect(scripted.base, raise_on_partial=False)
    scripted.on("PostInputs", mixed(), mixed())
    assert await both.call("PostInputs", INPUTS) == mixed()
    with pytest.raises(errors.PartialFailureError):
        await both.call("PostInputs", INPUTS, raise_on_partial=True)


async def test_all_items_failed_is_told_item_by_item(both: Both, scripted: ScriptedServer) -> None:
    response = refuse("PostInputs", Code.FAILURE)
    for _ in range(2):
        response.inputs.add().status.code = Code.INPUT_DUPLICATE
    scripted.on("PostInputs", response)
    with pytest.raises(errors.PartialFailureError) as caught:
        await both.call("PostInputs", INPUTS)
    assert [pair.index for pair in caught.value.failed] == [0, 1]
    assert caught.value.succeeded == []


async def test_raise_on_partial_false_hides_no_other_failure(
    both: Both, scripted: ScriptedServer
) -> None:
    scripted.on("PostInputs", refuse("PostInputs", Code.CONN_KEY_INVALID))
    with pytest.raises(errors.AuthenticationError):
        await both.call("PostInputs", INPUTS, raise_on_partial=False)


async def test_a_response_without_a_status_is_no_failure(
    both: Both, scripted: ScriptedServer
) -> None:
    scripted.on("GetModel", v2.SingleModelResponse(model=v2.Model(id="m")))
    assert (await both.call("GetModel", v2.GetModelRequest())).model.id == "m"


def test_a_status_of_zero_that_was_sent_is_a_failure() -> None:
    response = v2.SingleModelResponse(status=v2.Status(description="odd"))
    error = statuses.from_response(response, method="GetModel", request_id="", item_field="")
    assert type(error) is errors.InternalError


def rich(code: int, *details: Any) -> tuple[tuple[str, bytes], ...]:
    status = status_pb2.Status(code=code, message="the reason")
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return (("grpc-status-details-bin", status.SerializeToString()),)


async def test_rich_details(both: Both, scripted: ScriptedServer) -> None:
    bad = error_details_pb2.BadRequest()
    bad.field_violations.add(field="inputs[0].id", description="too long")
    unknown = any_pb2.Any(type_url="type.googleapis.com/some.Thing", value=b"x")
    scripted.on(
        "GetModel",
        Fail(
            grpc.StatusCode.INVALID_ARGUMENT,
            "the reason",
            rich(code_pb2.INVALID_ARGUMENT, bad, unknown),
        ),
    )
    with pytest.raises(errors.InvalidArgumentError) as caught:
        await both.call("GetModel", v2.GetModelRequest())
    assert caught.value.rich_details == (bad,)


async def test_retry_info_in_rich_details(connect: Connect, scripted: ScriptedServer) -> None:
    both = connect(scripted.base, retry=ONCE)
    info = error_details_pb2.RetryInfo()
    info.retry_delay.FromMilliseconds(2500)
    trailing = rich(code_pb2.RESOURCE_EXHAUSTED, info)
    scripted.on("GetModel", Fail(grpc.StatusCode.RESOURCE_EXHAUSTED, "the reason", trailing))
    with pytest.raises(errors.RateLimitError) as caught:
        await both.call("GetModel", v2.GetModelRequest())
    assert caught.value.retry_after == 2.5
    assert "retry after 2.5 s" in str(caught.value)


@pytest.mark.parametrize(
    "trailing",
    [
        (("grpc-status-details-bin", b"\xff\xffnonsense"),),
        rich(code_pb2.ABORTED),  # contradicts the status of the call
    ],
    ids=["garbage", "contradiction"],
)
async def test_broken_rich_details_do_not_hide_the_failure(
    both: Both, scripted: ScriptedServer, trailing: Any
) -> None:
    scripted.on("GetModel", Fail(grpc.StatusCode.INVALID_ARGUMENT, "the reason", trailing))
    with pytest.raises(errors.InvalidArgumentError, match="the reason") as caught:
        await both.call("GetModel", v2.GetModelRequest())
    assert caught.value.rich_details == ()


@pytest.mark.parametrize(
    ("pairs", "seconds"),
    [
        ((), None),
        (None, None),
        ((("other", "5"),), None),
        ((("retry-after", "5"),), 5.0),
        ((("Retry-After", "0.25"),), 0.25),
        ((("retry-after", "-1"),), 0.0),
        ((("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT"),), 0.0),  # a date that has passed
        ((("retry-after", "Wed, 41 Oct 2015 07:28:00 GMT"),), None),
        ((("x-throttle-wait-seconds", "3"),), 3.0),
        ((("grpc-retry-pushback-ms", "1500"),), 1.5),
        ((("grpc-retry-pushback-ms", "0"),), 0.0),
        ((("grpc-retry-pushback-ms", "-1"),), float("inf")),
        ((("grpc-retry-pushback-ms", "soon"),), float("inf")),
        ((("retry-after", b"2"),), 2.0),
        ((("retry-after", "nan"),), None),
    ],
)
def test_retry_after(pairs: Any, seconds: float | None) -> None:
    assert grpc_failures.retry_after_of(pairs) == seconds


async def test_retry_after_beside_a_v2_status(connect: Connect, scripted: ScriptedServer) -> None:
    both = connect(scripted.base, retry=ONCE)
    throttled = refuse("GetModel", Code.CONN_THROTTLED)
    scripted.on("GetModel", Answer([throttled], trailing=(("retry-after", "7"),)))
    with pytest.raises(errors.RateLimitError) as caught:
        await both.call("GetModel", v2.GetModelRequest())
    assert caught.value.retry_after == 7


async def test_a_failure_inside_a_stream(both: Both, scripted: ScriptedServer) -> None:
    good = reply("GenerateModelOutputs", outputs=[v2.Output(id="1")])
    bad = refuse("GenerateModelOutputs", Code.MODEL_PREDICTION_FAILED, "it broke")
    scripted.on("GenerateModelOutputs", [good, bad])
    got: list[Any] = []
    with pytest.raises(errors.ApiError, match="it broke"):
        await both.collect(
            both.open("GenerateModelOutputs", v2.PostModelOutputsRequest()), into=got
        )
    assert got == [good]


def test_from_item() -> None:
    assert statuses.from_item(v2.Status(), method="m", request_id="") is None
    assert statuses.from_item(v2.Status(code=SUCCESS), method="m", request_id="") is None
    error = statuses.from_item(
        v2.Status(code=Code.INPUT_DUPLICATE, details="x"), method="m", request_id="r"
    )
    assert type(error) is errors.AlreadyExistsError
    assert (error.method, error.request_id, error.details) == ("m", "r", "x")
    assert "input duplicate" in str(error)


async def test_errors_end_in_the_log_with_the_request_id(
    both: Both, scripted: ScriptedServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="clarigrpc")
    scripted.on("GetModel", Fail(grpc.StatusCode.NOT_FOUND, "gone"))
    with pytest.raises(errors.NotFoundError) as caught:
        await both.call("GetModel", v2.GetModelRequest())
    assert caught.value.request_id in caplog.text
    await asyncio.sleep(0)
