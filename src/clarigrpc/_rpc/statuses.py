"""What a V2 status or a gRPC status means, and which exception stands for it."""

from __future__ import annotations

import enum
from typing import Any

import grpc

from clarigrpc import v2
from clarigrpc._contract.methods import item_status
from clarigrpc._contract.status_names import code_name
from clarigrpc._rpc.grpc_failures import (
    WRITE_FAILED,
    connection_was_lost,
    explain,
    is_by_server,
    may_pass,
    retry_after_of,
    retry_info,
    rich_details,
    text_of,
    was_not_sent,
    was_refused,
)
from clarigrpc._transports.transport import Metadata
from clarigrpc.errors import (
    AlreadyExistsError,
    ApiError,
    AuthenticationError,
    CancelledError,
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    ItemStatus,
    NotFoundError,
    NotReadyError,
    PartialFailureError,
    PermissionDeniedError,
    QuotaExceededError,
    RateLimitError,
    UnavailableError,
    UnimplementedError,
)


class StatusKind(enum.Enum):
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


RETRYABLE = frozenset({StatusKind.RATE_LIMIT, StatusKind.NOT_READY, StatusKind.UNAVAILABLE})
"""Kinds of failures that may pass when the same request is sent again after a while."""

_GRPC_KINDS = {
    grpc.StatusCode.OK: StatusKind.SUCCESS,
    grpc.StatusCode.CANCELLED: StatusKind.CANCELLED,
    grpc.StatusCode.UNKNOWN: StatusKind.INTERNAL,
    grpc.StatusCode.INVALID_ARGUMENT: StatusKind.INVALID_ARGUMENT,
    grpc.StatusCode.DEADLINE_EXCEEDED: StatusKind.DEADLINE_EXCEEDED,
    grpc.StatusCode.NOT_FOUND: StatusKind.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS: StatusKind.ALREADY_EXISTS,
    grpc.StatusCode.PERMISSION_DENIED: StatusKind.PERMISSION_DENIED,
    grpc.StatusCode.RESOURCE_EXHAUSTED: StatusKind.RATE_LIMIT,
    grpc.StatusCode.FAILED_PRECONDITION: StatusKind.INVALID_ARGUMENT,
    grpc.StatusCode.ABORTED: StatusKind.UNAVAILABLE,
    grpc.StatusCode.OUT_OF_RANGE: StatusKind.INVALID_ARGUMENT,
    grpc.StatusCode.UNIMPLEMENTED: StatusKind.UNIMPLEMENTED,
    grpc.StatusCode.INTERNAL: StatusKind.INTERNAL,
    grpc.StatusCode.UNAVAILABLE: StatusKind.UNAVAILABLE,
    grpc.StatusCode.DATA_LOSS: StatusKind.INTERNAL,
    grpc.StatusCode.UNAUTHENTICATED: StatusKind.AUTHENTICATION,
}


# V2 status codes by meaning. A code of an item or a resource (an input that is pending, a model
# that is training) stands here beside those of a whole response: the meaning is the same.
_STATUS_NAMES = {
    StatusKind.SUCCESS: """
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
    StatusKind.PENDING: """
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
    StatusKind.PARTIAL: "MIXED_STATUS EVALUATION_MIXED ASYNC_WORKER_MULTI_ERRORS",
    StatusKind.FAILED: """
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
    StatusKind.AUTHENTICATION: """
        CONN_ACCOUNT_ISSUES CONN_TOKEN_INVALID CONN_CREDENTIALS_INVALID CONN_KEY_INVALID
        CONN_KEY_NOT_FOUND CONN_AUTH_METHOD_DISABLED SSO_IDENTITY_PROVIDER_DOES_NOT_EXIST
        AUTH_MISSING_IDP_ASSOC PASSWORD_VALIDATION_FAILED
    """,
    StatusKind.PERMISSION_DENIED: """
        CONN_INSUFFICIENT_SCOPES CONN_NO_GDPR_CONSENT MODEL_PERMISSION_DENIED
        WORKFLOW_PERMISSION_DENIED ANNOTATION_PERMISSION_DENIED MODULE_PERMISSION_DENIED
        RUNNER_PERMISSION_DENIED INPUT_PERMISSION_DENIED INPUT_VIDEO_PERMISSION_DENIED
        TASK_PERMISSION_DENIED SIGNUP_FLAGGED USER_FLAGGED USER_CONSENT_FACE FEATUREFLAG_BLOCKED
        LICENSE_NEED_UPDATE LICENSE_EXPIRED LICENSE_REVOKED LICENSE_DELETED
        TWILIO_PHONE_NUMBER_BLOCKED
    """,
    StatusKind.NOT_FOUND: """
        CONN_DOES_NOT_EXIST MODEL_DOES_NOT_EXIST WORKFLOW_DOES_NOT_EXIST MODULE_DOES_NOT_EXIST
        RUNNER_DOES_NOT_EXIST NODEPOOL_DOES_NOT_EXIST COMPUTE_CLUSTER_DOES_NOT_EXIST
        DEPLOYMENT_DOES_NOT_EXIST INSTANCE_TYPE_DOES_NOT_EXIST PIPELINE_STEP_DOES_NOT_EXIST
        PIPELINE_DOES_NOT_EXIST ARTIFACT_DOES_NOT_EXIST ARTIFACT_VERSION_DOES_NOT_EXIST
        INPUT_DOES_NOT_EXIST INPUT_VIDEO_DOES_NOT_EXIST CACHE_MISS WORKER_MISSING
        COLLECTOR_MISSING TASK_MISSING LICENSE_DOES_NOT_EXIST FEATUREFLAG_CONFIG_NOT_FOUND
        FEATUREFLAG_NOT_FOUND
    """,
    StatusKind.ALREADY_EXISTS: """
        WORKFLOW_DUPLICATE INPUT_DUPLICATE INPUT_VIDEO_DUPLICATE DATABASE_DUPLICATE_KEY
        DATASET_INPUT_DUPLICATE DATASET_VERSION_CONFLICT JOB_CONFLICT TASK_CONFLICT
        UPLOAD_CONFLICT
    """,
    StatusKind.INVALID_ARGUMENT: """
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
    StatusKind.RATE_LIMIT: """
        CONN_THROTTLED CONN_EXCEED_HOURLY_LIMIT RPC_REQUEST_QUEUE_FULL SQS_OVERLIMIT
        TWILIO_MAX_VERIFICATION_BEGIN_EXCEEDED TWILIO_MAX_VERIFICATION_CHECK_EXCEEDED
        INTERNAL_RESOURCE_EXHAUSTED
    """,
    StatusKind.QUOTA_EXCEEDED: """
        CONN_EXCEED_MONTHLY_LIMIT CONN_EXCEEDS_LIMITS INPUT_OVER_LIMIT INPUT_VIDEO_OVER_LIMIT
        LICENSE_VOLUME_EXCEEDED BILLING_MISSING_TOKENS
    """,
    StatusKind.NOT_READY: """
        TRY_AGAIN MODEL_DEPLOYING MODEL_QUEUED_FOR_DEPLOYMENT MODEL_NOT_DEPLOYED
        MODEL_BUSY_PLEASE_RETRY MODEL_LOADING MODEL_TRAINING_MSG_REDELIVER
        MODEL_EVALUATION_MSG_REDELIVER RUNNER_NEEDS_RETRY PIPELINE_STEP_NOT_READY
        SEARCH_BY_NOT_FULLY_INDEXED_INPUT SEARCH_COUNTS_UNAVAILABLE REDIS_STREAM_BACKOFF
    """,
    StatusKind.UNAVAILABLE: """
        INPUT_CONNECTION_FAILED REQUEST_DISABLED_FOR_MAINTENANCE
        INPUT_WRITES_DISABLED_FOR_MAINTENANCE DATABASE_STATEMENT_TIMEOUT
        DATABASE_DEADLOCK_DETECTED DATABASE_FAIL_TO_GET_CONNECTIONS DATABASE_TOO_MANY_CLIENTS
        RPC_SERVER_UNAVAILABLE EXTERNAL_CONNECTION_ERROR QUEUE_CONN_ERROR
        QUEUE_CLOSE_REQUEST_TIMEOUT QUEUE_CONN_CLOSED QUEUE_PUBLISH_ACK_TIMEOUT
        QUEUE_SUBSCRIPTION_TIMEOUT REDIS_NO_CONSUMERS DATATIER_CONN_ERROR
        INTERNAL_REDIS_UNAVAILABLE
    """,
    StatusKind.DEADLINE_EXCEEDED: "RPC_REQUEST_TIMEOUT INTERNAL_UNEXPECTED_TIMEOUT",
    StatusKind.CANCELLED: """
        BULK_OPERATION_CANCELLED RUNNER_ITEM_CANCELLED DATABASE_CANCELED RPC_CANCELED
        REQUEST_CANCELED_BY_USER LABEL_ORDER_CANCELED JOB_CANCELLED UPLOAD_CANCELED
        INTERNAL_CONTEXT_CANCELED
    """,
    StatusKind.UNIMPLEMENTED: "NOT_IMPLEMENTED RPC_UNKNOWN_METHOD TASK_NOT_IMPLEMENTED",
    StatusKind.INTERNAL: """
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


_LONGEST_ID = 128
"""Characters of an item's id that an error's text shows."""

ERROR_CLASSES: dict[StatusKind, type[ApiError]] = {
    StatusKind.PARTIAL: PartialFailureError,
    StatusKind.FAILED: ApiError,
    StatusKind.AUTHENTICATION: AuthenticationError,
    StatusKind.PERMISSION_DENIED: PermissionDeniedError,
    StatusKind.NOT_FOUND: NotFoundError,
    StatusKind.ALREADY_EXISTS: AlreadyExistsError,
    StatusKind.INVALID_ARGUMENT: InvalidArgumentError,
    StatusKind.RATE_LIMIT: RateLimitError,
    StatusKind.QUOTA_EXCEEDED: QuotaExceededError,
    StatusKind.NOT_READY: NotReadyError,
    StatusKind.UNAVAILABLE: UnavailableError,
    StatusKind.DEADLINE_EXCEEDED: DeadlineExceededError,
    StatusKind.CANCELLED: CancelledError,
    StatusKind.UNIMPLEMENTED: UnimplementedError,
    StatusKind.INTERNAL: InternalError,
}
"""Kind of a failure -> the exception that stands for it."""


def _kinds_by_code() -> dict[int, StatusKind]:
    return {
        v2.StatusCode.Value(name): kind
        for kind, names in _STATUS_NAMES.items()
        for name in names.split()
    }


STATUS_KINDS = _kinds_by_code()
"""V2 status code -> its kind, for every code."""

PASSING = frozenset(
    code for code, kind in STATUS_KINDS.items() if kind in (StatusKind.SUCCESS, StatusKind.PENDING)
)
"""V2 status codes that are no failure."""


def kind_of(code: int) -> StatusKind:
    """What a V2 status code means; a code newer than this package counts as INTERNAL."""
    return STATUS_KINDS.get(code, StatusKind.INTERNAL)


def kind_of_status(status: v2.Status) -> StatusKind:
    """What a V2 status means: its code, and the details where the code alone leaves it open."""
    code = status.code
    # A concept that exists already is an invalid request, as the tests of the service's published
    # gRPC client have it.
    if code == v2.StatusCode.CONCEPTS_INVALID_REQUEST and "duplicate" in status.details:
        return StatusKind.ALREADY_EXISTS
    return kind_of(code)


def kind_of_grpc(code: grpc.StatusCode) -> StatusKind:
    """What a gRPC status code means."""
    return _GRPC_KINDS[code]


def from_response(
    response: Any,
    *,
    method: str,
    request_id: str,
    item_field: str,
    trailing: Metadata | None = None,
) -> ApiError | None:
    """The exception for the V2 status of a response; None if it is no failure.

    A response without a V2 status is no failure: gRPC's OK counts.
    """
    status = response.status
    code = status.code
    if code in PASSING or not (code or response.HasField("status")):
        return None
    kind = kind_of_status(status)
    items = getattr(response, item_field, ()) if item_field else ()
    if kind is StatusKind.FAILED and any(_failed(item_status(item)) for item in items):
        kind = StatusKind.PARTIAL  # every item may have failed for a reason of its own
    error = ERROR_CLASSES[kind](
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
    pairs = [ItemStatus(index, item_status(item)) for index, item in enumerate(items)]
    error.failed = [pair for pair in pairs if _failed(pair.status)]
    if isinstance(error, PartialFailureError):
        error.succeeded = [pair for pair in pairs if not _failed(pair.status)]
        if error.failed:
            index, first = error.failed[0]
            said = ": ".join(filter(None, (first.description, first.details)))
            item_id = getattr(items[index], "id", "")
            named = f"item {index} ({item_id[:_LONGEST_ID]!r})" if item_id else f"item {index}"
            error.details = (
                f"{len(error.failed)} of {len(pairs)} items failed, the first is {named}: "
                f"{first.code} {code_name(first.code)} {said}".rstrip()
            )
    return error


def from_item(status: v2.Status, *, method: str, request_id: str) -> ApiError | None:
    """The exception for the V2 status of one item; None if it is no failure."""
    if not _failed(status):
        return None
    kind = kind_of_status(status)
    return ERROR_CLASSES[kind](
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


def from_rpc(
    error: Any, *, method: str, request_id: str, target: str, connected: bool | None = None
) -> ApiError:
    """The exception for a failed call.

    Args:
        error: A ``grpc.RpcError`` with a code.
        method: Name of the method.
        request_id: Id of the call.
        target: URL of the server.
        connected: Whether the connection is still up after the failure; None if that is not known.
    """
    code: grpc.StatusCode = error.code()
    text = text_of(error)
    trailing = error.trailing_metadata()
    kind = _GRPC_KINDS[code]
    if code is grpc.StatusCode.INTERNAL and text == WRITE_FAILED:
        code, kind = grpc.StatusCode.UNAVAILABLE, StatusKind.UNAVAILABLE
    rich = rich_details(error)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "message larger than max" in text:
        kind = StatusKind.INVALID_ARGUMENT
        text += "; raise max_message_bytes of the client, or send less at a time"
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "metadata size exceeds" in text:
        kind = StatusKind.INVALID_ARGUMENT
        text += "; the metadata of the call are too large for the server"
    retry_after = retry_after_of(trailing)
    if retry_after is None:
        retry_after = retry_info(rich)
    not_sent = was_not_sent(error, connected=connected)
    lost = connection_was_lost(error, not_sent=not_sent)
    result = ERROR_CLASSES[kind](
        explain(
            code,
            text,
            target,
            not_sent=not_sent,
            by_server=is_by_server(error, connected=connected, failed=not_sent or lost),
        ),
        grpc_code=code,
        details=text,
        request_id=request_id,
        method=method,
        retryable=kind in RETRYABLE,
        retry_after=retry_after,
        rich_details=rich,
        not_sent=not_sent,
    )
    result.not_reached = not_sent and may_pass(text)
    result.refused = was_refused(error, connected=connected)
    result.connection_lost = lost
    result.__cause__ = error
    return result
