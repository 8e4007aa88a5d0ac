"""How a call fails: with a V2 status in its response, or without a response."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

import grpc

from clarigrpc import v2
from clarigrpc._contract.status_names import code_name
from clarigrpc._rpc import statuses
from clarigrpc._rpc.statuses import StatusKind
from clarigrpc.v2 import StatusCode

StatusCodeValue: TypeAlias = StatusCode.ValueType


class ServiceError(Exception):
    """A failure that becomes the V2 status of a response.

    Args:
        code: V2 status code.
        details: What is wrong with this request, for the person who sent it.
        description: Short text for the code; derived from the code's name by default.
    """

    def __init__(self, code: StatusCodeValue, details: str = "", description: str = "") -> None:
        super().__init__(details or description or code_name(code))
        self.code = code
        self.details = details
        self.description: str = description or describe(code)

    def status(self) -> v2.Status:
        """This failure as a status message."""
        return v2.Status(code=self.code, description=self.description, details=self.details)


class CallAborted(Exception):
    """The call ends without a response, as by a transport failure or an unknown method.

    Args:
        code: gRPC status that the call ends with.
        details: Text of that status.
    """

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(details)
        self.code = code
        self.details = details


_DESCRIPTIONS: Mapping[int, str] = {
    StatusCode.SUCCESS: "Ok",
    StatusCode.MIXED_STATUS: "Mixed Success",
    StatusCode.FAILURE: "Failure",
    StatusCode.TRY_AGAIN: "Try the request again",
    StatusCode.CONN_TOKEN_INVALID: "Invalid authentication token",
    StatusCode.CONN_CREDENTIALS_INVALID: "Invalid credentials",
    StatusCode.CONN_EXCEED_HOURLY_LIMIT: "Throttle hourly request limit exceeded",
    StatusCode.CONN_EXCEED_MONTHLY_LIMIT: "Throttle monthly request limit exceeded",
    StatusCode.CONN_THROTTLED: "Making too many requests",
    StatusCode.CONN_EXCEEDS_LIMITS: "Account limits exceeded",
    StatusCode.CONN_INSUFFICIENT_SCOPES: "API key has insufficient scopes",
    StatusCode.CONN_KEY_INVALID: "Invalid API key or Invalid API key/application pair",
    StatusCode.CONN_KEY_NOT_FOUND: "API key not found",
    StatusCode.CONN_BAD_REQUEST_FORMAT: "Bad request format",
    StatusCode.CONN_DOES_NOT_EXIST: "Resource does not exist",
    StatusCode.CONN_INVALID_REQUEST: "Invalid request",
    StatusCode.CONN_METHOD_NOT_ALLOWED: "Method not allowed",
    StatusCode.MODEL_TRAINED: "Model is trained and ready",
    StatusCode.MODEL_TRAINING: "Model is currently training",
    StatusCode.MODEL_UNTRAINED: "Model has not yet been trained",
    StatusCode.MODEL_QUEUED_FOR_TRAINING: "Model is currently in queue for training.",
    StatusCode.MODEL_TRAINING_NO_DATA: "Custom model training had no data",
    StatusCode.MODEL_TRAINING_NO_POSITIVES: "Custom model training had no positive examples",
    StatusCode.MODEL_TRAINING_ONE_VS_N_SINGLE_CLASS: (
        "Custom model training was ONE_VS_N but with a single class"
    ),
    StatusCode.MODEL_TRAINING_INSUFFICIENT_DATA: (
        "Training got error due to insufficient labelled data"
    ),
    StatusCode.MODEL_TRAINING_INVALID_PARAMS: "Invalid parameters during model training",
    StatusCode.MODEL_DOES_NOT_EXIST: "Model does not exist",
    StatusCode.MODEL_PERMISSION_DENIED: "Model permission denied",
    StatusCode.MODEL_INVALID_ARGUMENT: "Invalid model argument",
    StatusCode.MODEL_INVALID_REQUEST: "Invalid model request",
    StatusCode.MODEL_EVALUATED: "Model was successfully evaluated",
    StatusCode.MODEL_EVALUATING: "Model is evaluating",
    StatusCode.MODEL_NOT_EVALUATED: "Model is not yet evaluated",
    StatusCode.MODEL_QUEUED_FOR_EVALUATION: "Model is queued for evaluation",
    StatusCode.MODEL_PREDICTION_FAILED: "Model prediction failed",
    StatusCode.WORKFLOW_NO_MATCHING_INPUT: "Workflow does not have specified input model",
    StatusCode.WORKFLOW_REQUIRE_TRAINED_MODEL: "New model in workflow needs to be trained",
    StatusCode.WORKFLOW_DOES_NOT_EXIST: "Workflow does not exist",
    StatusCode.WORKFLOW_PERMISSION_DENIED: "Workflow permission denied",
    StatusCode.WORKFLOW_INVALID_ARGUMENT: "Workflow invalid argument",
    StatusCode.WORKFLOW_INVALID_GRAPH: "Workflow graph is invalid",
    StatusCode.WORKFLOW_INVALID_REQUEST: "Invalid request",
    StatusCode.ANNOTATION_SUCCESS: "Annotation success",
    StatusCode.ANNOTATION_PENDING: "Annotation pending",
    StatusCode.ANNOTATION_INVALID_ARGUMENT: "Annotation invalid argument",
    StatusCode.ANNOTATION_PERMISSION_DENIED: "Permission to annotation denied",
    StatusCode.ANNOTATION_AWAITING_REVIEW: "Annotation still waiting for review",
    StatusCode.ANNOTATION_REVIEW_DENIED: "Annotation review denied",
    StatusCode.ANNOTATION_AWAITING_CONSENSUS_REVIEW: (
        "Annotation still waiting for consensus review"
    ),
    StatusCode.INPUT_SUCCESS: "Download complete",
    StatusCode.INPUT_PENDING: "Download pending",
    StatusCode.INPUT_FAILED: "Download failed; check URL",
    StatusCode.INPUT_IN_PROGRESS: "Download in progress",
    StatusCode.INPUT_DUPLICATE: "Duplicate URL in your application",
    StatusCode.INPUT_UNSUPPORTED_FORMAT: "Input image format unsupported",
    StatusCode.INPUT_DOES_NOT_EXIST: "Input does not exist",
    StatusCode.INPUT_PERMISSION_DENIED: "Input permission denied",
    StatusCode.INPUT_INVALID_ARGUMENT: "Input invalid argument",
    StatusCode.INPUT_OVER_LIMIT: "Input image is larger than the allowed limit",
    StatusCode.INPUT_INVALID_URL: "Input image URL invalid",
    StatusCode.INPUT_MODIFY_SUCCESS: "Input image modification success",
    StatusCode.INPUT_CONNECTION_FAILED: "Connection attempts to the input URL failed",
    StatusCode.INPUT_INVALID_REQUEST: "Invalid input request",
    StatusCode.PREDICT_INVALID_REQUEST: "Invalid request",
    StatusCode.SEARCH_INVALID_REQUEST: "Invalid search request",
    StatusCode.CONCEPTS_INVALID_REQUEST: "Invalid request",
    StatusCode.DATABASE_DUPLICATE_KEY: (
        "Object has a duplicate ID; another object with same ID already exist"
    ),
    StatusCode.SEARCH_BY_NOT_FULLY_INDEXED_INPUT: "Can only search by a fully indexed input",
    StatusCode.TASK_CONFLICT: (
        "The task operation is in conflict with the current state of the server"
    ),
    StatusCode.DATASET_VERSION_PENDING: "The dataset version is pending to be processed",
    StatusCode.DATASET_VERSION_IN_PROGRESS: "The dataset version is currently being processed",
    StatusCode.DATASET_VERSION_READY: "The dataset version is ready to be used",
    StatusCode.DATASET_VERSION_FAILURE: "An error occurred during the dataset version processing",
    StatusCode.DATASET_VERSION_CONFLICT: (
        "An alteration to dataset version would create a conflict"
    ),
    StatusCode.DATASET_INPUT_SUCCESS: "The dataset input was successfully added",
    StatusCode.DATASET_INPUT_DUPLICATE: "The dataset input is a duplicate",
}
"""The service's own texts, as its documentation lists them and shows them in responses
(https://docs.clarifai.com/resources/api-overview/status-codes/), without what it explains there,
and as the tests of its gRPC client have them."""


def describe(code: StatusCodeValue) -> str:
    """Short text for a status code: the service's own, or else words made of the code's name."""
    known = _DESCRIPTIONS.get(code)
    return known or code_name(code).replace("_", " ").capitalize()


def make_status(code: StatusCodeValue, details: str = "") -> v2.Status:
    """A status message with the code's own description."""
    return v2.Status(code=code, description=describe(code), details=details)


def overall(items: Iterable[v2.Status]) -> v2.Status:
    """The status of a bulk call from those of its items: SUCCESS, MIXED_STATUS or FAILURE."""
    good = bad = 0
    for item in items:
        if item.code in statuses.PASSING:
            good += 1
        else:
            bad += 1
    if not bad:
        return make_status(StatusCode.SUCCESS)
    if good:
        return make_status(StatusCode.MIXED_STATUS, f"{bad} of {good + bad} items failed")
    return make_status(StatusCode.FAILURE, "all items failed; see the status of each")


HTTP_STATUSES = {
    StatusKind.SUCCESS: 200,
    StatusKind.PENDING: 200,
    StatusKind.PARTIAL: 200,
    StatusKind.FAILED: 400,
    StatusKind.AUTHENTICATION: 401,
    StatusKind.PERMISSION_DENIED: 403,
    StatusKind.NOT_FOUND: 404,
    StatusKind.ALREADY_EXISTS: 409,
    StatusKind.INVALID_ARGUMENT: 400,
    StatusKind.RATE_LIMIT: 429,
    StatusKind.QUOTA_EXCEEDED: 402,
    StatusKind.NOT_READY: 503,
    StatusKind.UNAVAILABLE: 503,
    StatusKind.DEADLINE_EXCEEDED: 504,
    StatusKind.CANCELLED: 499,
    StatusKind.UNIMPLEMENTED: 501,
    StatusKind.INTERNAL: 500,
}
"""HTTP status of a response by what its V2 status means."""

# Codes for which HTTP has a word of its own. For ACCEPTED the service's definitions say 202.
_HTTP_STATUSES_BY_CODE = {
    StatusCode.ACCEPTED: 202,
    StatusCode.CONN_METHOD_NOT_ALLOWED: 405,
    StatusCode.RPC_MAX_MESSAGE_SIZE_EXCEEDED: 413,
}


def http_status(code: int) -> int:
    """The HTTP status of a response with this V2 status code."""
    return _HTTP_STATUSES_BY_CODE.get(code, HTTP_STATUSES[statuses.kind_of(code)])  # type: ignore[call-overload, no-any-return]
