"""Exceptions, and the one table that maps a status to them.

The service reports at two layers: the gRPC status of a call, and the V2 status inside a response
(a call that is OK for gRPC can carry ``MODEL_DOES_NOT_EXIST``). Both end in one tree::

    ClarigrpcError
    +-- ConfigurationError          settings that contradict each other or are missing
    +-- ClosedError                 the client was closed before the call
    +-- ApiError                    the service, or the way to it, reported a failure
        +-- AuthenticationError     the credential is missing, wrong or expired
        +-- PermissionDeniedError   the credential is known and may not do this
        +-- NotFoundError           no such resource, or none that the credential may see
        +-- AlreadyExistsError      the id, or the URL of an input, is taken
        +-- InvalidArgumentError    the request cannot succeed as it is
        +-- RateLimitError          too many requests; ``retry_after`` says how long to wait
        +-- QuotaExceededError      the plan or the account is used up; waiting a moment is no help
        +-- NotReadyError           the model is still being deployed, the index being built
        +-- UnavailableError        the service cannot be reached or a part of it is down
        +-- DeadlineExceededError   the call's deadline passed
        +-- CancelledError          the call was cancelled
        +-- UnimplementedError      the service does not have this method
        +-- InternalError           the service failed
        +-- PartialFailureError     some items of a bulk call failed; the others are in ``response``

A failure that fits none of these (a training that failed, say) is a plain ``ApiError``.
"""

from __future__ import annotations

import contextlib
import enum
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc

from clarigrpc import v2

if TYPE_CHECKING:
    from google.protobuf.message import Message

Metadata = Sequence[tuple[str, str | bytes]]


class Kind(enum.Enum):
    """What a status means for the caller."""

    SUCCESS = "success"
    PENDING = "pending"
    PARTIAL = "partial"
    FAILED = "failed"
    AUTHENTICATION = "authentication"
    PERMISSION_DENIED = "permission denied"
    NOT_FOUND = "not found"
    ALREADY_EXISTS = "already exists"
    INVALID_ARGUMENT = "invalid argument"
    RATE_LIMIT = "rate limit"
    QUOTA_EXCEEDED = "quota exceeded"
    NOT_READY = "not ready"
    UNAVAILABLE = "unavailable"
    DEADLINE_EXCEEDED = "deadline exceeded"
    CANCELLED = "cancelled"
    UNIMPLEMENTED = "unimplemented"
    INTERNAL = "internal"


RETRYABLE = frozenset({Kind.RATE_LIMIT, Kind.NOT_READY, Kind.UNAVAILABLE})
"""Kinds that may pass when the same request is sent again after a while."""

_GRPC_KINDS = {
    grpc.StatusCode.OK: Kind.SUCCESS,
    grpc.StatusCode.CANCELLED: Kind.CANCELLED,
    grpc.StatusCode.UNKNOWN: Kind.INTERNAL,
    grpc.StatusCode.INVALID_ARGUMENT: Kind.INVALID_ARGUMENT,
    grpc.StatusCode.DEADLINE_EXCEEDED: Kind.DEADLINE_EXCEEDED,
    grpc.StatusCode.NOT_FOUND: Kind.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS: Kind.ALREADY_EXISTS,
    grpc.StatusCode.PERMISSION_DENIED: Kind.PERMISSION_DENIED,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Kind.RATE_LIMIT,
    grpc.StatusCode.FAILED_PRECONDITION: Kind.INVALID_ARGUMENT,
    grpc.StatusCode.ABORTED: Kind.UNAVAILABLE,
    grpc.StatusCode.OUT_OF_RANGE: Kind.INVALID_ARGUMENT,
    grpc.StatusCode.UNIMPLEMENTED: Kind.UNIMPLEMENTED,
    grpc.StatusCode.INTERNAL: Kind.INTERNAL,
    grpc.StatusCode.UNAVAILABLE: Kind.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS: Kind.INTERNAL,
    grpc.StatusCode.UNAUTHENTICATED: Kind.AUTHENTICATION,
}

# V2 status codes by meaning. A code of an item or a resource (an input that is pending, a model
# that is training) stands here beside those of a whole response: the meaning is the same.
_STATUS_NAMES = {
    Kind.SUCCESS: """
        SUCCESS MODEL_TRAINED MODEL_UNTRAINED MODEL_MODIFY_SUCCESS MODEL_EVALUATED
        MODEL_NOT_EVALUATED MODEL_EXPORTED WORKFLOW_MODIFY_SUCCESS CONCEPT_MODIFY_SUCCESS
        ANNOTATION_SUCCESS ANNOTATION_MODIFY_SUCCESS ANNOTATION_TRACK_IDLE
        ANNOTATION_TRACK_APPROVED TRAINER_JOB_STATE_NONE TRAINER_JOB_STATE_COMPLETE
        DATA_DUMP_SUCCESS DATA_DUMP_EXPORT_SUCCESS APP_DUPLICATION_SUCCESS BULK_OPERATION_SUCCESS
        RUNNER_STREAM_START RUNNER_STREAM_END PIPELINE_STEP_READY INPUT_SUCCESS
        INPUT_MODIFY_SUCCESS INPUT_CLUSTER_SUCCESS INPUT_REINDEX_SUCCESS
        INPUT_VIDEO_DOWNLOAD_SUCCESS INPUT_VIDEO_MODIFY_SUCCESS INPUT_VIDEO_PROCESSING_SUCCESS
        EVALUATION_SUCCESS WORKER_ACTIVE WORKER_INACTIVE COLLECTOR_ACTIVE COLLECTOR_INACTIVE
        TASK_DONE TASK_WONT_DO TASK_IDLE TASK_ASSIGNMENT_SUCCESS TASK_ASSIGNMENT_REVIEW_SUCCESS
        TASK_ASSIGNMENT_REVIEW_DISMISSED LABEL_ORDER_SUCCESS LICENSE_ACTIVE
        PASSWORD_VALIDATION_SUCCESS MAINTENANCE_SUCCESS DATASET_VERSION_READY
        DATASET_INPUT_SUCCESS DATASET_VERSION_EXPORT_SUCCESS JOB_COMPLETED JOB_PAUSED UPLOAD_DONE
    """,
    Kind.PENDING: """
        ACCEPTED MODEL_TRAINING MODEL_QUEUED_FOR_TRAINING MODEL_UPLOADING MODEL_BUILDING
        MODEL_MODIFY_PENDING MODEL_EVALUATING MODEL_QUEUED_FOR_EVALUATION MODEL_EXPORTING
        MODEL_EXPORT_PENDING WORKFLOW_MODIFY_PENDING CONCEPT_MODIFY_PENDING ANNOTATION_PENDING
        ANNOTATION_AWAITING_REVIEW ANNOTATION_AWAITING_CONSENSUS_REVIEW ANNOTATION_MODIFY_PENDING
        ANNOTATION_TRACK_IN_PROGRESS ANNOTATION_TRACK_PENDING TRAINER_JOB_STATE_QUEUED
        TRAINER_JOB_STATE_RUNNING DATA_DUMP_PENDING DATA_DUMP_IN_PROGRESS DATA_DUMP_EXPORT_PENDING
        DATA_DUMP_EXPORT_IN_PROGRESS APP_DUPLICATION_PENDING APP_DUPLICATION_IN_PROGRESS
        BULK_OPERATION_PENDING BULK_OPERATION_IN_PROGRESS PIPELINE_STEP_UPLOADING
        PIPELINE_STEP_BUILDING INPUT_PENDING INPUT_IN_PROGRESS INPUT_MODIFY_PENDING
        INPUT_CLUSTER_PENDING INPUT_CLUSTER_IN_PROGRESS INPUT_REINDEX_PENDING
        INPUT_REINDEX_IN_PROGRESS INPUT_VIDEO_DOWNLOAD_PENDING INPUT_VIDEO_MODIFY_PENDING
        INPUT_VIDEO_PROCESSING_PENDING EVALUATION_QUEUED EVALUATION_IN_PROGRESS EVALUATION_PENDING
        TASK_IN_PROGRESS TASK_ASSIGNMENT_PENDING TASK_ASSIGNMENT_AWAITING_REVIEW
        TASK_ASSIGNMENT_AWAITING_CONSENSUS_REVIEW TASK_ASSIGNMENT_REVIEW_PENDING
        LABEL_ORDER_PENDING LABEL_ORDER_IN_PROGRESS DATASET_VERSION_PENDING
        DATASET_VERSION_IN_PROGRESS DATASET_VERSION_EXPORT_PENDING
        DATASET_VERSION_EXPORT_IN_PROGRESS JOB_QUEUED JOB_RUNNING UPLOAD_IN_PROGRESS
    """,
    Kind.PARTIAL: "MIXED_STATUS EVALUATION_MIXED ASYNC_WORKER_MULTI_ERRORS",
    Kind.FAILED: """
        FAILURE MODEL_UPLOADING_FAILED MODEL_TRAINING_FAILED MODEL_BUILDING_FAILED
        MODEL_BUILD_UNEXPECTED_ERROR MODEL_TRAINING_NO_DATA MODEL_TRAINING_NO_POSITIVES
        MODEL_TRAINING_ONE_VS_N_SINGLE_CLASS MODEL_TRAINING_TIMED_OUT
        MODEL_TRAINING_WAITING_ERROR MODEL_TRAINING_UNKNOWN_ERROR
        MODEL_TRAINING_INSUFFICIENT_DATA MODEL_TRAINING_INVALID_DATA_TOLERANCE_EXCEEDED
        MODEL_MODIFY_FAILED MODEL_EVALUATION_TIMED_OUT MODEL_EVALUATION_WAITING_ERROR
        MODEL_EVALUATION_UNKNOWN_ERROR MODEL_PREDICTION_FAILED MODEL_EVALUATION_NEED_LABELS
        MODEL_EVALUATION_NEED_INPUTS MODEL_EVALUATION_FAILED MODEL_DEPLOYMENT_FAILED
        MODEL_EXPORTING_FAILED WORKFLOW_INTERNAL_FAILURE WORKFLOW_MODIFY_FAILED
        WORKFLOW_REINDEX_FAILED CONCEPT_MODIFY_FAILED ANNOTATION_FAILED ANNOTATION_UNKNOWN_STATUS
        ANNOTATION_REVIEW_DENIED ANNOTATION_MODIFY_FAILED ANNOTATION_TRACK_FAILED
        TRAINER_JOB_STATE_ERROR DATA_DUMP_FAILED DATA_DUMP_NO_DATA DATA_DUMP_UNEXPECTED_ERROR
        DATA_DUMP_EXPORT_FAILED DATA_DUMP_EXPORT_UNEXPECTED_ERROR APP_DUPLICATION_FAILED
        BULK_OPERATION_FAILED BULK_OPERATION_UNEXPECTED_ERROR RUNNER_PROCESSING_FAILED
        RUNNER_SPECIAL_HANDLING_NOT_COMPLETE PIPELINE_STEP_UPLOADING_FAILED
        PIPELINE_STEP_BUILDING_FAILED PIPELINE_STEP_BUILD_UNEXPECTED_ERROR INPUT_FAILED
        INPUT_STATUS_UPDATE_FAILED INPUT_DELETE_FAILED INPUT_MODIFY_FAILED
        INPUT_STORAGE_HOST_FAILED INPUT_CLUSTER_FAILED INPUT_REINDEX_FAILED
        INPUT_VIDEO_DOWNLOAD_FAILED INPUT_VIDEO_MODIFY_FAILED INPUT_VIDEO_STORAGE_HOST_FAILED
        INPUT_VIDEO_PROCESSING_FAILED INPUT_VIDEO_STORAGE_INCONSISTENCY
        INPUT_VIDEO_STORAGE_FAILURE INPUT_VIDEO_URL_GENERATION_FAILURE SEARCH_PROJECTION_FAILURE
        SEARCH_PREDICTION_FAILURE SAVED_SEARCH_MODIFY_FAILED EVALUATION_FAILED_TO_RETRIEVE_DATA
        EVALUATION_FAILED EVALUATION_TIMED_OUT EVALUATION_UNEXPECTED_ERROR
        COLLECTOR_POST_INPUT_FAILED TASK_FAILED TASK_ASSIGNMENT_REJECTED MAINTENANCE_FAILED
        DATASET_VERSION_FAILURE DATASET_VERSION_UNEXPECTED_ERROR DATASET_VERSION_EXPORT_FAILED
        DATASET_VERSION_EXPORT_UNEXPECTED_ERROR JOB_FAILED JOB_UNEXPECTED_ERROR
        LIST_OBJECTS_FAILED ARCHIVE_EXTRACT_FAILED UPLOAD_FAILED UPLOAD_UNEXPECTED_ERROR
        UPLOAD_EXPIRED MP_DOWNLOAD_ERROR MP_RESOLVE_DNS_ERROR MP_DOWNLOAD_MAX_SIZE_EXCEEDED_ERROR
        MP_IMAGE_DECODE_ERROR MP_IMAGE_PROCESSING_ERROR MOVED TEAPOT
    """,
    Kind.AUTHENTICATION: """
        CONN_ACCOUNT_ISSUES CONN_TOKEN_INVALID CONN_CREDENTIALS_INVALID CONN_KEY_INVALID
        CONN_KEY_NOT_FOUND CONN_AUTH_METHOD_DISABLED SSO_IDENTITY_PROVIDER_DOES_NOT_EXIST
        AUTH_MISSING_IDP_ASSOC PASSWORD_VALIDATION_FAILED
    """,
    Kind.PERMISSION_DENIED: """
        CONN_INSUFFICIENT_SCOPES CONN_NO_GDPR_CONSENT MODEL_PERMISSION_DENIED
        WORKFLOW_PERMISSION_DENIED ANNOTATION_PERMISSION_DENIED MODULE_PERMISSION_DENIED
        RUNNER_PERMISSION_DENIED INPUT_PERMISSION_DENIED INPUT_VIDEO_PERMISSION_DENIED
        TASK_PERMISSION_DENIED SIGNUP_FLAGGED USER_FLAGGED USER_CONSENT_FACE FEATUREFLAG_BLOCKED
        LICENSE_NEED_UPDATE LICENSE_EXPIRED LICENSE_REVOKED LICENSE_DELETED
        TWILIO_PHONE_NUMBER_BLOCKED
    """,
    Kind.NOT_FOUND: """
        CONN_DOES_NOT_EXIST MODEL_DOES_NOT_EXIST WORKFLOW_DOES_NOT_EXIST MODULE_DOES_NOT_EXIST
        RUNNER_DOES_NOT_EXIST NODEPOOL_DOES_NOT_EXIST COMPUTE_CLUSTER_DOES_NOT_EXIST
        DEPLOYMENT_DOES_NOT_EXIST INSTANCE_TYPE_DOES_NOT_EXIST PIPELINE_STEP_DOES_NOT_EXIST
        PIPELINE_DOES_NOT_EXIST ARTIFACT_DOES_NOT_EXIST ARTIFACT_VERSION_DOES_NOT_EXIST
        INPUT_DOES_NOT_EXIST INPUT_VIDEO_DOES_NOT_EXIST CACHE_MISS WORKER_MISSING
        COLLECTOR_MISSING TASK_MISSING LICENSE_DOES_NOT_EXIST FEATUREFLAG_CONFIG_NOT_FOUND
        FEATUREFLAG_NOT_FOUND
    """,
    Kind.ALREADY_EXISTS: """
        WORKFLOW_DUPLICATE INPUT_DUPLICATE INPUT_VIDEO_DUPLICATE DATABASE_DUPLICATE_KEY
        DATASET_INPUT_DUPLICATE DATASET_VERSION_CONFLICT JOB_CONFLICT TASK_CONFLICT
        UPLOAD_CONFLICT
    """,
    Kind.INVALID_ARGUMENT: """
        CONN_BAD_REQUEST_FORMAT CONN_INVALID_REQUEST CONN_METHOD_NOT_ALLOWED CONN_INVALID_RANGE
        MODEL_TRAINING_INVALID_PARAMS MODEL_INVALID_ARGUMENT MODEL_INVALID_REQUEST
        MODEL_REFERENCE_INVALID_ARGUMENT MODEL_EXAMPLE_INPUT_INVALID_ARGUMENT
        WORKFLOW_NO_MATCHING_INPUT WORKFLOW_REQUIRE_TRAINED_MODEL WORKFLOW_UNSUPPORTED_FORMAT
        WORKFLOW_INVALID_ARGUMENT WORKFLOW_INVALID_RECIPE WORKFLOW_INVALID_TEMPLATE
        WORKFLOW_INVALID_GRAPH WORKFLOW_INVALID_REQUEST ANNOTATION_INVALID_ARGUMENT
        METADATA_INVALID_PATCH_ARGUMENTS METADATA_PARSING_ISSUE METADATA_MANIPULATION_ISSUE
        APP_DUPLICATION_INVALID_REQUEST MODULE_INVALID_ARGUMENT MODULE_INVALID_REQUEST
        BULK_OPERATION_INVALID_REQUEST RUNNER_INVALID_ARGUMENT RUNNER_INVALID_REQUEST
        NODEPOOL_INVALID_ARGUMENT NODEPOOL_INVALID_REQUEST COMPUTE_CLUSTER_INVALID_ARGUMENT
        COMPUTE_CLUSTER_INVALID_REQUEST DEPLOYMENT_INVALID_ARGUMENT DEPLOYMENT_INVALID_REQUEST
        DEPLOYMENT_DISABLED INSTANCE_TYPE_INVALID_ARGUMENT INSTANCE_TYPE_INVALID_REQUEST
        COMPUTE_PLANE_METRICS_INVALID_REQUEST PIPELINE_STEP_INVALID_ARGUMENT
        PIPELINE_STEP_INVALID_REQUEST PIPELINE_INVALID_ARGUMENT PIPELINE_INVALID_REQUEST
        ARTIFACT_INVALID_ARGUMENT ARTIFACT_INVALID_REQUEST ARTIFACT_VERSION_INVALID_ARGUMENT
        ARTIFACT_VERSION_INVALID_REQUEST INPUT_UNSUPPORTED_FORMAT INPUT_INVALID_ARGUMENT
        INPUT_INVALID_URL ALL_INPUT_INVALID_BYTES INPUT_VIDEO_UNSUPPORTED_FORMAT
        INPUT_VIDEO_INVALID_ARGUMENT INPUT_VIDEO_INVALID_URL ALL_INPUT_VIDEOS_INVALID_BYTES
        INPUT_INVALID_REQUEST PREDICT_INVALID_REQUEST SEARCH_INVALID_REQUEST
        CONCEPTS_INVALID_REQUEST STATS_INVALID_REQUEST DATABASE_CONSTRAINT_VIOLATED
        RPC_MAX_MESSAGE_SIZE_EXCEEDED QUERY_INVALID_SYNTAX EVALUATION_INVALID_ARGUMENT
        FILETYPE_UNSUPPORTED APP_COUNT_INVALID_MESSAGE MP_INVALID_ARGUMENT
        PASSWORDPOLICY_INVALID_ARGUMENT FEATUREFLAG_INVALID_ARGUMENT BILLING_INVALID_INFO
        LOG_ENTRIES_INVALID_REQUEST SQS_INVALID_RECEIPT_HANDLE BAD_REQUEST
    """,
    Kind.RATE_LIMIT: """
        CONN_THROTTLED CONN_EXCEED_HOURLY_LIMIT RPC_REQUEST_QUEUE_FULL SQS_OVERLIMIT
        TWILIO_MAX_VERIFICATION_BEGIN_EXCEEDED TWILIO_MAX_VERIFICATION_CHECK_EXCEEDED
        INTERNAL_RESOURCE_EXHAUSTED
    """,
    Kind.QUOTA_EXCEEDED: """
        CONN_EXCEED_MONTHLY_LIMIT CONN_EXCEEDS_LIMITS INPUT_OVER_LIMIT INPUT_VIDEO_OVER_LIMIT
        LICENSE_VOLUME_EXCEEDED BILLING_MISSING_TOKENS
    """,
    Kind.NOT_READY: """
        TRY_AGAIN MODEL_DEPLOYING MODEL_QUEUED_FOR_DEPLOYMENT MODEL_NOT_DEPLOYED
        MODEL_BUSY_PLEASE_RETRY MODEL_LOADING MODEL_TRAINING_MSG_REDELIVER
        MODEL_EVALUATION_MSG_REDELIVER RUNNER_NEEDS_RETRY PIPELINE_STEP_NOT_READY
        SEARCH_BY_NOT_FULLY_INDEXED_INPUT SEARCH_COUNTS_UNAVAILABLE REDIS_STREAM_BACKOFF
    """,
    Kind.UNAVAILABLE: """
        INPUT_CONNECTION_FAILED REQUEST_DISABLED_FOR_MAINTENANCE
        INPUT_WRITES_DISABLED_FOR_MAINTENANCE DATABASE_STATEMENT_TIMEOUT
        DATABASE_DEADLOCK_DETECTED DATABASE_FAIL_TO_GET_CONNECTIONS DATABASE_TOO_MANY_CLIENTS
        RPC_SERVER_UNAVAILABLE EXTERNAL_CONNECTION_ERROR QUEUE_CONN_ERROR
        QUEUE_CLOSE_REQUEST_TIMEOUT QUEUE_CONN_CLOSED QUEUE_PUBLISH_ACK_TIMEOUT
        QUEUE_SUBSCRIPTION_TIMEOUT REDIS_NO_CONSUMERS DATATIER_CONN_ERROR
        INTERNAL_REDIS_UNAVAILABLE
    """,
    Kind.DEADLINE_EXCEEDED: "RPC_REQUEST_TIMEOUT INTERNAL_UNEXPECTED_TIMEOUT",
    Kind.CANCELLED: """
        BULK_OPERATION_CANCELLED RUNNER_ITEM_CANCELLED DATABASE_CANCELED RPC_CANCELED
        REQUEST_CANCELED_BY_USER LABEL_ORDER_CANCELED JOB_CANCELLED UPLOAD_CANCELED
        INTERNAL_CONTEXT_CANCELED
    """,
    Kind.UNIMPLEMENTED: "NOT_IMPLEMENTED RPC_UNKNOWN_METHOD TASK_NOT_IMPLEMENTED",
    Kind.INTERNAL: """
        ZERO DATABASE_INVALID_ROWS_AFFECTED DATABASE_FAIL_TASK CLUSTER_INTERNAL_FAILURE
        QUEUE_PUBLISH_ERROR QUEUE_SUBSCRIPTION_ERROR QUEUE_MARSHALLING_FAILED
        QUEUE_UNMARSHALLING_FAILED QUEUE_MAX_MSG_REDELIVERY_EXCEEDED QUEUE_ACK_FAILURE SQS_UNKNOWN
        SEARCH_INTERNAL_FAILURE STRIPE_EVENT_ERROR STRIPE_UNEXPECTED_ERROR
        REDIS_SCRIPT_EXITED_WITH_FAILURE REDIS_STREAM_ERR REDIS_CHANNEL_ERR SIGNUP_EVENT_ERROR
        LOGIN_EVENT_ERROR SIFT_UNCATEGORIZED_ERROR APP_COUNT_UPDATE_INCREMENT_FAILED
        APP_COUNT_REBUILD_FAILED APP_COUNT_INTERNAL_FAILURE INTERNAL_SERVER_ISSUE
        INTERNAL_FETCHING_ISSUE INTERNAL_DATABASE_ISSUE INTERNAL_UNEXPECTED_V1
        INTERNAL_UNEXPECTED_PANIC INTERNAL_UNEXPECTED_SPIRE INTERNAL_REDIS_UNCATEGORIZED
        INTERNAL_AWS_UNCATEGORIZED INTERNAL_AZURE_UNCATEGORIZED INTERNAL_VECTORDB_UNCATEGORIZED
        INTERNAL_ORACLE_UNCATEGORIZED INTERNAL_VULTR_UNCATEGORIZED INTERNAL_GCP_UNCATEGORIZED
        CONN_UNCATEGORIZED MODEL_UNCATEGORIZED INPUT_UNCATEGORIZED ANNOTATION_UNCATEGORIZED
        BILLING_UNCATEGORIZED INTERNAL_UNCATEGORIZED SERVER_ERROR
    """,
}


class ItemStatus(NamedTuple):
    """The status of one item of a bulk call; ``index`` is its place in the response."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody calls on a pair
    status: v2.Status


class ClarigrpcError(Exception):
    """The root of everything that clarigrpc raises on purpose."""


class ConfigurationError(ClarigrpcError):
    """Settings are missing, malformed or contradict each other; the text says what to set."""


class ClosedError(ClarigrpcError):
    """The client was closed."""

    def __init__(self, text: str = "this client is closed; make a new one") -> None:
        super().__init__(text)


class ApiError(ClarigrpcError):
    """The service, or the way to it, reported a failure.

    Attributes:
        code: V2 status code (a value of ``v2.StatusCode``), None where only gRPC spoke.
        grpc_code: gRPC status code, None where the failure came over REST.
        description: What happened, in the service's words.
        details: More words of the service, often the reason; may be empty.
        request_id: Id of the call for the service's support and logs.
        method: Name of the method, ``PostInputs`` say.
        retryable: Whether the same request may succeed later.
        retry_after: Seconds that the service asks to wait, None where it does not say.
        status: The V2 status message, where there was one.
        rich_details: Messages of ``google.rpc`` from the trailers (``BadRequest``, ...).
        response: The whole response, where there was one.
    """

    response: Message | None = None

    def __init__(
        self,
        description: str,
        *,
        code: int | None = None,
        grpc_code: grpc.StatusCode | None = None,
        details: str = "",
        request_id: str = "",
        method: str = "",
        retryable: bool = False,
        retry_after: float | None = None,
        status: v2.Status | None = None,
        rich_details: Sequence[Message] = (),
    ) -> None:
        super().__init__(description)
        self.description = description
        self.code = code
        self.grpc_code = grpc_code
        self.details = details
        self.request_id = request_id
        self.method = method
        self.retryable = retryable
        self.retry_after = retry_after
        self.status = status
        self.rich_details = tuple(rich_details)

    def __str__(self) -> str:
        text = f"{self.method}: {self.description}" if self.method else self.description
        if self.details and self.details != self.description:
            text += f": {self.details}"
        facts = []
        if self.code is not None:
            facts.append(f"{self.code} {code_name(self.code)}")
        if self.grpc_code not in (None, grpc.StatusCode.OK):
            facts.append(f"gRPC {self.grpc_code.name}")
        if self.request_id:
            facts.append(f"request {self.request_id}")
        if self.retry_after is not None:
            facts.append(f"retry after {self.retry_after:g} s")
        return f"{text} ({', '.join(facts)})" if facts else text

    def __reduce__(self) -> tuple[Any, ...]:
        # The default would call the class with the description alone.
        return (_restore, (type(self), self.args, self.__dict__))


def _restore(cls: type[ApiError], args: tuple[Any, ...], state: dict[str, Any]) -> ApiError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class AuthenticationError(ApiError):
    """The credential is missing, wrong or expired."""


class PermissionDeniedError(ApiError):
    """The credential is known and may not do this."""


class NotFoundError(ApiError):
    """There is no such resource, or none that this credential may see."""


class AlreadyExistsError(ApiError):
    """The id, or the URL of an input, is taken."""


class InvalidArgumentError(ApiError):
    """The request cannot succeed as it is."""


class RateLimitError(ApiError):
    """Too many requests; ``retry_after`` says how long to wait, where the service does."""


class QuotaExceededError(ApiError):
    """The plan or the account is used up."""


class NotReadyError(ApiError):
    """The model is still being deployed, the index being built."""


class UnavailableError(ApiError):
    """The service cannot be reached, or a part of it is down."""


class DeadlineExceededError(ApiError):
    """The deadline of the call passed. The service may have done the work all the same."""


class CancelledError(ApiError):
    """The call was cancelled."""


class UnimplementedError(ApiError):
    """The service does not have this method."""


class InternalError(ApiError):
    """The service failed."""


class PartialFailureError(ApiError):
    """Some items of a bulk call failed.

    Attributes:
        response: The whole response, with the good items in it.
        succeeded: ``(index, status)`` of every item that is done or being worked on.
        failed: ``(index, status)`` of every item that failed.
    """

    response: Message
    succeeded: list[ItemStatus]
    failed: list[ItemStatus]


_CLASSES: dict[Kind, type[ApiError]] = {
    Kind.PARTIAL: PartialFailureError,
    Kind.FAILED: ApiError,
    Kind.AUTHENTICATION: AuthenticationError,
    Kind.PERMISSION_DENIED: PermissionDeniedError,
    Kind.NOT_FOUND: NotFoundError,
    Kind.ALREADY_EXISTS: AlreadyExistsError,
    Kind.INVALID_ARGUMENT: InvalidArgumentError,
    Kind.RATE_LIMIT: RateLimitError,
    Kind.QUOTA_EXCEEDED: QuotaExceededError,
    Kind.NOT_READY: NotReadyError,
    Kind.UNAVAILABLE: UnavailableError,
    Kind.DEADLINE_EXCEEDED: DeadlineExceededError,
    Kind.CANCELLED: CancelledError,
    Kind.UNIMPLEMENTED: UnimplementedError,
    Kind.INTERNAL: InternalError,
}


def _kinds_by_code() -> dict[int, Kind]:
    return {
        v2.StatusCode.Value(name): kind
        for kind, names in _STATUS_NAMES.items()
        for name in names.split()
    }


STATUS_KINDS = _kinds_by_code()
"""Every V2 status code -> what it means."""

PASSING = frozenset(
    code for code, kind in STATUS_KINDS.items() if kind in (Kind.SUCCESS, Kind.PENDING)
)
"""V2 status codes that are no failure."""


def kind_of(code: int) -> Kind:
    """What a V2 status code means; a code newer than this package counts as INTERNAL."""
    return STATUS_KINDS.get(code, Kind.INTERNAL)


def kind_of_grpc(code: grpc.StatusCode) -> Kind:
    """What a gRPC status code means."""
    return _GRPC_KINDS[code]


def code_name(code: int) -> str:
    """Name of a V2 status code, ``MODEL_DOES_NOT_EXIST`` say; UNKNOWN for a newer one."""
    value = v2.StatusCode.DESCRIPTOR.values_by_number.get(code)
    return value.name if value is not None else "UNKNOWN"


# Fragments of gRPC's error text that tell that no byte of the request left this process.
_NOT_SENT = (
    "failed to connect to all addresses",
    "connections to all backends failing",
    "DNS resolution failed",
    "errors resolving",
    "empty address list",
)

WRITE_FAILED = "Internal error from Core"
"""What grpc.aio says when it writes to a stream that has just ended, or a connection that broke."""

_THROTTLE_KEYS = ("retry-after", "x-throttle-wait-seconds")
_PUSHBACK_KEY = "grpc-retry-pushback-ms"


def retry_after_of(metadata: Iterable[tuple[str, str | bytes]] | None) -> float | None:
    """Seconds that trailing metadata or HTTP headers ask to wait.

    None where they do not say, ``inf`` where they ask not to come back (a negative or malformed
    ``grpc-retry-pushback-ms``, as gRFC A6 has it).
    """
    for key, value in metadata or ():
        text = value.decode("ascii", "replace") if isinstance(value, bytes) else value
        key = key.lower()
        if key == _PUSHBACK_KEY:
            return float(text) / 1000 if text.isdecimal() else float("inf")
        if key in _THROTTLE_KEYS:
            try:
                seconds = float(text)
            except ValueError:  # an HTTP date; nobody of this service sends one
                continue
            if not math.isnan(seconds):
                return max(0.0, seconds)
    return None


def from_response(
    response: Any,
    *,
    method: str,
    request_id: str,
    item_field: str,
    trailing: Metadata | None = None,
) -> ApiError | None:
    """The exception that a response's V2 status stands for, or None when it is no failure.

    A response without a status is none: gRPC's OK then stands alone.
    """
    status = response.status
    code = status.code
    if code in PASSING or not (code or response.HasField("status")):
        return None
    kind = kind_of(code)
    items = getattr(response, item_field, ()) if item_field else ()
    if kind is Kind.FAILED and any(_failed(item.status) for item in items):
        kind = Kind.PARTIAL  # every item may have failed for a reason of its own
    error = _CLASSES[kind](
        status.description or code_name(code).replace("_", " ").lower(),
        code=code,
        grpc_code=grpc.StatusCode.OK,
        details=status.details,
        request_id=status.req_id or request_id,
        method=method,
        retryable=kind in RETRYABLE,
        retry_after=retry_after_of(trailing),
        status=status,
    )
    error.response = response
    if isinstance(error, PartialFailureError):
        pairs = [ItemStatus(index, item.status) for index, item in enumerate(items)]
        error.failed = [pair for pair in pairs if _failed(pair.status)]
        error.succeeded = [pair for pair in pairs if not _failed(pair.status)]
        if error.failed:
            index, first = error.failed[0]
            said = ": ".join(filter(None, (first.description, first.details)))
            error.details = (
                f"{len(error.failed)} of {len(pairs)} items failed, the first is item {index}: "
                f"{first.code} {code_name(first.code)} {said}".rstrip()
            )
    return error


def from_item(status: v2.Status, *, method: str, request_id: str) -> ApiError | None:
    """The exception for the status of a single item, or None when it is no failure."""
    if not _failed(status):
        return None
    kind = kind_of(status.code)
    return _CLASSES[kind](
        status.description or code_name(status.code).replace("_", " ").lower(),
        code=status.code,
        details=status.details,
        request_id=status.req_id or request_id,
        method=method,
        retryable=kind in RETRYABLE,
        status=status,
    )


def _failed(status: v2.Status) -> bool:
    return status.code != 0 and status.code not in PASSING


def from_rpc(error: Any, *, method: str, request_id: str, target: str) -> ApiError:
    """The exception for a call that gRPC ended: ``error`` is a ``grpc.RpcError`` with a code."""
    code: grpc.StatusCode = error.code()
    text: str = error.details() or ""
    trailing = error.trailing_metadata()
    kind = _GRPC_KINDS[code]
    if code is grpc.StatusCode.INTERNAL and text == WRITE_FAILED:
        code, kind = grpc.StatusCode.UNAVAILABLE, Kind.UNAVAILABLE
    rich = _rich_details(error)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "message larger than max" in text:
        kind = Kind.INVALID_ARGUMENT
        text += "; raise max_message_bytes of the client, or send less at a time"
    retry_after = retry_after_of(trailing)
    if retry_after is None:
        retry_after = _retry_info(rich)
    result = _CLASSES[kind](
        _explain(code, text, target),
        grpc_code=code,
        details=text,
        request_id=request_id,
        method=method,
        retryable=kind in RETRYABLE,
        retry_after=retry_after,
        rich_details=rich,
    )
    result.__cause__ = error
    return result


def was_not_sent(error: ApiError) -> bool:
    """Whether the server provably did not see the request."""
    return error.grpc_code is grpc.StatusCode.UNAVAILABLE and _is_not_sent_text(error.details)


def _is_not_sent_text(text: str) -> bool:
    """The same, of the text that gRPC gives with UNAVAILABLE."""
    return any(fragment in text for fragment in _NOT_SENT)


# Fragments of gRPC's error text, in lower case -> what they mean; the first that fits counts.
# The texts differ between versions of gRPC.
_EXPLANATIONS = (
    (
        ("http1", "http/1", "http2 preface", "failed parsing http/2"),
        "{} speaks HTTP/1, not gRPC; give a gRPC address, or transport='rest'",
    ),
    (
        # What an HTTP/1 client makes of the frames that a gRPC server greets it with.
        ("illegal request line", "illegal status line"),
        "{} does not speak HTTP/1; transport='rest' needs the server's address for REST",
    ),
    (
        ("certificate_verify_failed",),
        "the TLS certificate of {} is not trusted; give root_certificates=",
    ),
    (
        ("hostname verification", "is not in peer certificate"),
        "the TLS certificate of {} is for another host; check base=",
    ),
    (
        ("security handshaker",),
        "no TLS with {}: root_certificates=, client_key= or client_certificate= is no valid PEM",
    ),
    (
        # Older versions of gRPC say no more than this when they cannot read the PEM.
        ("empty address list",),
        "no usable address for {}; check base=, and that root_certificates=, client_key= and "
        "client_certificate= are valid PEM",
    ),
    (
        ("wrong_version_number",),
        "{} does not speak TLS; if it is a plaintext server, give base='http://...'",
    ),
    (
        ("handshake", "ssl"),
        "no TLS with {}; if it is a plaintext server, give base='http://...', and if it asks for "
        "a client certificate, client_key= and client_certificate=",
    ),
    (
        ("connection refused",),
        "nothing listens at {}; check base= and that the server is running",
    ),
    (
        ("dns", "errors resolving"),
        "the name of {} cannot be resolved; check base= and the network",
    ),
)


def _explain(code: grpc.StatusCode, text: str, target: str) -> str:
    """What happened on the way to the server, and what to do, as far as gRPC's text tells."""
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"no complete answer from {target} in time; raise timeout= for a slow call"
    if code is not grpc.StatusCode.UNAVAILABLE:
        return text or code.name.replace("_", " ").lower()
    lower = text.lower()
    for fragments, explanation in _EXPLANATIONS:
        if any(fragment in lower for fragment in fragments):
            return explanation.format(target)
    if _is_not_sent_text(text) and ("closed" in lower or "reset" in lower):
        advice = (
            "a client certificate, give client_key= and client_certificate="
            if target.startswith("https:")
            else "TLS, give base='https://...'"
        )
        return f"{target} accepts connections and closes them at once; if it wants {advice}"
    return f"the connection to {target} failed"


def _rich_details(error: Any) -> tuple[Message, ...]:
    """The messages in ``grpc-status-details-bin``; none when it is absent or does not parse."""
    if not any(key == "grpc-status-details-bin" for key, _ in error.trailing_metadata() or ()):
        return ()
    from google.protobuf.message import DecodeError
    from google.rpc import error_details_pb2
    from grpc_status import rpc_status

    found = []
    # A trailer that does not parse, or contradicts the status of the call, must not hide the error.
    with contextlib.suppress(DecodeError, ValueError):
        status = rpc_status.from_call(error)
        for packed in status.details if status is not None else ():
            name = packed.TypeName().rpartition(".")[2]
            detail_class = getattr(error_details_pb2, name, None)
            if detail_class is not None:
                detail = detail_class()
                if packed.Unpack(detail):
                    found.append(detail)
    return tuple(found)


def _retry_info(details: Iterable[Any]) -> float | None:
    for detail in details:
        if detail.DESCRIPTOR.full_name == "google.rpc.RetryInfo":
            return float(detail.retry_delay.ToTimedelta().total_seconds())
    return None
