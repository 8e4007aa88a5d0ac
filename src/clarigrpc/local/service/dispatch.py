"""The service behind both fronts: who calls, which handler, what becomes of its failures."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message

from clarigrpc import v2
from clarigrpc.local import json_values
from clarigrpc.local.accounts.default_credentials import DefaultCredentials
from clarigrpc.local.accounts.oauth_applications import TOKEN_SECONDS, Applications
from clarigrpc.local.accounts.principal import Principal
from clarigrpc.local.accounts.user_accounts import Accounts
from clarigrpc.local.byte_budget import BudgetFullError, ByteBudget, Held
from clarigrpc.local.engine import hosted_media
from clarigrpc.local.engine.background_tasks import BackgroundTask, BackgroundWorker, Waiting
from clarigrpc.local.engine.builtin_models import PUBLIC_WORKFLOWS, public_models
from clarigrpc.local.engine.context import Context, State
from clarigrpc.local.engine.faults import Faults
from clarigrpc.local.engine.input_embeddings import Embeddings
from clarigrpc.local.engine.input_processing import InputProcessor
from clarigrpc.local.engine.model_catalog import Catalog, CatalogEntry
from clarigrpc.local.engine.prediction_metrics import PredictionMetrics
from clarigrpc.local.engine.public_vocabulary import PublicVocabulary
from clarigrpc.local.engine.request_checks import check_request_counts
from clarigrpc.local.engine.runner_queues import RunnerQueues
from clarigrpc.local.engine.search_index import INDEXERS
from clarigrpc.local.handlers import (
    account_methods,
    annotation_methods,
    audit_log_methods,
    bulk_operations,
    cloud_methods,
    concept_methods,
    dataset_methods,
    evaluation_methods,
    file_upload_methods,
    input_jobs,
    input_methods,
    kind_handlers,
    log_methods,
    metric_methods,
    model_exports,
    model_methods,
    model_tag_methods,
    model_training,
    model_type_methods,
    module_methods,
    nodepool_methods,
    predictions,
    publication_methods,
    runner_items,
    search_methods,
    status_code_methods,
    task_assignments,
    video_annotations,
    video_manifests,
    workflow_results,
)
from clarigrpc.local.media.media_copies import MediaCopy
from clarigrpc.local.media.url_fetching import Fetcher
from clarigrpc.local.resource_facts import new_id
from clarigrpc.local.served_call import ServedCall, close_iterator
from clarigrpc.local.service import retired_options, seeding
from clarigrpc.local.service.call_recorder import CallRecorder
from clarigrpc.local.service.seeding import Seed
from clarigrpc.local.service.stub_answers import StubAnswers
from clarigrpc.local.service.user_limits import Limiter, Limits
from clarigrpc.local.service_errors import CallAborted, ServiceError, make_status
from clarigrpc.local.store.download_files import Downloads
from clarigrpc.local.store.resource_store import (
    MAX_INDEX_ROWS,
    MAX_PAGE_BYTES,
    PageTooLargeError,
    Store,
    StoreError,
    TransactionTooLargeError,
)
from clarigrpc.local.store.upload_files import UploadStore
from clarigrpc.local.user_app import PUBLIC_APP
from clarigrpc.v2 import StatusCode
from clarigrpc.v2._index import METHODS

_UNARY: Mapping[str, Callable[[Context, Any], Message]] = {
    **kind_handlers.UNARY,
    # Those that follow replace some of the handlers above.
    **account_methods.UNARY,
    **annotation_methods.UNARY,
    **audit_log_methods.UNARY,
    **bulk_operations.UNARY,
    **cloud_methods.UNARY,
    **concept_methods.UNARY,
    **dataset_methods.UNARY,
    **evaluation_methods.UNARY,
    **log_methods.UNARY,
    **metric_methods.UNARY,
    **module_methods.UNARY,
    **nodepool_methods.UNARY,
    **publication_methods.UNARY,
    **runner_items.UNARY,
    **input_methods.UNARY,
    **model_tag_methods.UNARY,
    **model_type_methods.UNARY,
    **model_exports.UNARY,
    **model_methods.UNARY,
    **predictions.UNARY,
    **search_methods.UNARY,
    **status_code_methods.UNARY,
    **task_assignments.UNARY,
    **model_training.UNARY,
    **file_upload_methods.UNARY,
    **video_annotations.UNARY,
    **video_manifests.UNARY,
    **input_jobs.UNARY,
    **workflow_results.UNARY,
}
_SERVER_STREAM: Mapping[str, Callable[[Context, Any], Iterator[Message]]] = {
    **log_methods.SERVER_STREAM,
    **predictions.SERVER_STREAM,
    **video_annotations.SERVER_STREAM,
}
_BACKGROUND_TASKS: Mapping[Waiting, BackgroundTask] = {
    **bulk_operations.BACKGROUND_TASKS,
    **dataset_methods.BACKGROUND_TASKS,
    **evaluation_methods.BACKGROUND_TASKS,
    **input_jobs.BACKGROUND_TASKS,
    **model_exports.BACKGROUND_TASKS,
    **model_training.BACKGROUND_TASKS,
}
_DUPLEX: Mapping[str, Callable[[Context, Any], Iterator[Message]]] = {
    **predictions.DUPLEX,
    **runner_items.DUPLEX,
    **file_upload_methods.DUPLEX,
}

_logger = logging.getLogger(__name__)


class V2Service:
    """Does what the methods say, for any front.

    A response always carries a status: SUCCESS, MIXED_STATUS, or the failure. What cannot be
    said in a response (an unknown method, a fault that was asked for) raises CallAborted.

    Attributes:
        budget: Memory of all calls together.
        stub: What answers in place of the handlers, None for them.

    Args:
        credentials: The user and the secrets.
        data_dir: Folder that keeps everything over a restart; None keeps nothing.
        entries: Models besides the public ones.
        faults: What to do wrong.
        fetcher: Downloads URLs of inputs; the default refuses private addresses other than
            loopback.
        build_seconds: How long an uploaded version is being built.
        seed: What the server is to have from its start.
        input_roots: Folders that data sources of inputs may name.
        object_stores: Scheme of an object store (``s3``, ``gs``, ``azure``) -> its address.
        limits: What each user may ask of it; None for as much as there is.
        token_seconds: How long an access token is valid.
        has_public_models: Whether the public app has models, workflows and concepts; without, it
            has the embedding models that trainings work on, and nothing else.
        recorder: Keeps the latest calls; None keeps none.

    Raises:
        OSError: The folder cannot be used.
        ValueError: The seed does not fit.
    """

    def __init__(
        self,
        credentials: DefaultCredentials,
        *,
        data_dir: Path | None = None,
        entries: list[CatalogEntry] | None = None,
        faults: Faults | None = None,
        fetcher: Fetcher | None = None,
        build_seconds: float = 0.2,
        seed: Seed | None = None,
        input_roots: Iterable[Path] = (),
        object_stores: Mapping[str, str] | None = None,
        limits: Limits | None = None,
        token_seconds: int = TOKEN_SECONDS,
        has_public_models: bool = True,
        recorder: CallRecorder | None = None,
    ) -> None:
        self.stub: StubAnswers | None = None
        self._recorder = recorder or CallRecorder(0)
        self._limiter = Limiter(limits) if limits is not None else None
        with ExitStack() as opened:
            if data_dir is None:
                folder = Path(tempfile.mkdtemp(prefix="clarigrpc-local-"))
                opened.callback(shutil.rmtree, folder, ignore_errors=True)
            else:
                folder = data_dir
                folder.mkdir(parents=True, exist_ok=True)
            for entry in entries or ():
                if entry.runtime is not None:
                    opened.callback(entry.runtime.close)
            store = Store(data_dir / "clarigrpc.sqlite" if data_dir else None, INDEXERS)
            opened.callback(store.close)
            uploads = UploadStore(folder / "uploads")
            opened.callback(uploads.close)
            applications = Applications(store, token_seconds)
            fetcher = fetcher or Fetcher()
            self.budget: ByteBudget = fetcher.budget
            faults = faults or Faults()
            embeddings = Embeddings(store)
            public = public_models(only_bases=not has_public_models)
            downloads = Downloads(folder / "downloads", store)
            self.state: State = State(
                store=store,
                accounts=Accounts(store, credentials, applications),
                applications=applications,
                catalog=Catalog(store, [*public, *(entries or [])], build_seconds),
                vocabulary=PublicVocabulary(has_concepts=has_public_models),
                input_processor=InputProcessor(store, fetcher, faults, embeddings, downloads),
                background=BackgroundWorker(_BACKGROUND_TASKS, input_jobs.THREADS),
                uploads=uploads,
                downloads=downloads,
                fetcher=fetcher,
                embeddings=embeddings,
                faults=faults,
                build_seconds=build_seconds,
                input_roots=tuple(root.resolve() for root in input_roots),
                object_stores=dict(object_stores or {}),
                predictions=PredictionMetrics(),
                runners=RunnerQueues(),
            )
            with store.transaction():
                seeding.put_workflows(
                    self.state, PUBLIC_APP, PUBLIC_WORKFLOWS, wanted=has_public_models
                )
                if seed is not None:
                    seed.apply(self.state)
                self.state.accounts.put_defaults()
            # Not before: another server may have the folder.
            credentials.keep()
            self._resources = opened.pop_all()
        self.state.input_processor.start()
        self.state.background.start(self.state)

    def end_waiting(self) -> None:
        """Ends the calls of runners that only wait for work. The service is to be closed."""
        self.state.runners.close()

    def close(self) -> None:
        """Ends background work and closes the store. Calls in work must have ended."""
        self.state.input_processor.close()
        self.state.background.close()
        self._resources.close()

    @staticmethod
    def implements(method: str) -> bool:
        """Whether the server has this method of V2."""
        return method in _UNARY or method in _SERVER_STREAM or method in _DUPLEX

    def unrouted(self, address: str) -> None:
        """A request came for a path or an address that is none of the service."""
        if self.stub is not None:
            self.stub.unexpected.append(address)

    @staticmethod
    def only_stores(method: str) -> bool:
        """Whether the method keeps or shows resources without further consequences."""
        return getattr(_UNARY.get(method), "__self__", None) in kind_handlers.WITHOUT_HOOKS

    def download(self, name: str) -> Path | None:
        """A file that the service made for its users, None where there is none."""
        return self.state.downloads.find(name)

    def hosted(self, call: ServedCall, path: str) -> tuple[MediaCopy, Held]:
        """A medium of an input, and its bytes in the budget of all calls.

        Args:
            call: Of ``GetInput``, with the credentials of the caller; it counts towards the limits
                of the user.
            path: Names the medium.

        Raises:
            ServiceError: There is none, or none that the caller may see, or not now.
        """
        try:
            caller = self.state.accounts.caller(call.method, call.metadata)
            with self._admitted(call, caller, None):
                found = hosted_media.read(Context(self.state, call, caller), path)
                return found, self.budget.take_for_body(len(found.content))
        except BudgetFullError as error:
            call.trailing["retry-after"] = "1"
            raise ServiceError(StatusCode.CONN_THROTTLED, str(error)) from error
        except ServiceError:
            raise
        except Exception as error:
            status: v2.Status = self._failure(call, error).status  # type: ignore[attr-defined]
            raise ServiceError(status.code, status.details, status.description) from error

    def authorize(self, call: ServedCall) -> None:
        """Raises ServiceError unless the caller is known and may call the method.

        Also for a method that anybody may call without a credential.
        """
        if self.stub is None:
            self.state.accounts.known_caller(call.method, call.metadata)

    def unary(self, method: str, request: Message, call: ServedCall) -> Message:
        """The response to one request.

        Raises:
            CallAborted: There is no response: the method is not implemented, or a fault.
        """
        handler = _UNARY.get(method) or self._missing(method)
        self._recorder.record(call, request)
        try:
            if self.stub is not None:
                return self._named(call, next(iter(self.stub.respond(call, request))))
            with self._serving(call, request) as context:
                if method in audit_log_methods.RECORDED:
                    return self._recorded(context, handler, request)
                if not _changes(method):
                    response = handler(context, request)
                    self.state.faults.mix(call, response)
                    return self._named(call, response)
                # What is checked, such as the app, is still there when something is kept.
                with self.state.store.transaction(bounded=True):
                    return self._named(call, handler(context, request))
        except Exception as error:  # noqa: BLE001 (all end in a status)
            return self._failure(call, error)

    def _recorded(
        self, context: Context, handler: Callable[[Context, Any], Message], request: Message
    ) -> Message:
        """Serves a call that changes something, and keeps a record of it, refused or not."""
        store = self.state.store
        try:
            with store.transaction(bounded=True):
                response = self._named(context.call, handler(context, request))
                audit_log_methods.record(context, request, response)
        except ServiceError as error:
            response = self._failure(context.call, error)
            audit_log_methods.record(context, request, response)
        return response

    def server_stream(self, method: str, request: Message, call: ServedCall) -> Iterator[Message]:
        """The responses to one request; a failure is the last of them.

        Raises:
            CallAborted: As for ``unary``, or in mid-stream as a fault.
        """
        handler = _SERVER_STREAM.get(method) or self._missing(method)
        self._recorder.record(call, request)
        return self._stream(handler, request, call, request)

    def duplex(
        self, method: str, requests: Iterator[Message], call: ServedCall
    ) -> Iterator[Message]:
        """Responses to a stream of requests, while it goes on; a failure is the last of them.

        Raises:
            CallAborted: As for ``server_stream``.
        """
        handler = _DUPLEX.get(method) or self._missing(method)
        return self._stream(handler, self._recorder.each(call, requests), call)

    def _stream(
        self,
        handler: Callable[[Context, Any], Iterator[Message]],
        payload: Any,
        call: ServedCall,
        request: Message | None = None,
    ) -> Iterator[Message]:
        responses: Iterator[Message] = iter(())
        try:
            if self.stub is not None:
                for response in self.stub.respond(call, payload):
                    yield self._named(call, response)
                return
            with self._serving(call, request) as context:
                if request is None:
                    payload = self._checked(context, payload)
                responses = handler(context, payload)
                for response in self.state.faults.cut(call, responses):
                    yield self._named(call, response)
        except Exception as error:  # noqa: BLE001 (all end in a status)
            yield self._failure(call, error)
        finally:
            # Whoever stops listening frees at once what the stream holds.
            close_iterator(responses)

    def _missing(self, method: str) -> Any:
        """Stands for the handler of a method without one; raises CallAborted, except for a stub."""
        if self.stub is None:
            raise CallAborted(
                grpc.StatusCode.UNIMPLEMENTED, f"the local server does not implement {method}"
            )
        return None

    @contextmanager
    def _serving(self, call: ServedCall, request: Message | None) -> Iterator[Context]:
        """What a handler needs; the call counts towards its user's limits while it runs."""
        self.state.faults.before(call, request)
        context = Context(self.state, call, self.state.accounts.caller(call.method, call.metadata))
        if request is not None:
            check_request_counts(request)
            json_values.check(request)
            retired_options.check(call.method, request)
        with self._admitted(call, context.caller, request):
            yield context

    @contextmanager
    def _admitted(
        self, call: ServedCall, caller: Principal, request: Message | None
    ) -> Iterator[None]:
        """The call counts towards the limits of its user; ServiceError beyond them."""
        if self._limiter is None:
            yield
            return
        release = self._limiter.admit(caller.user_id, call, request)
        try:
            yield
        finally:
            release()

    def _checked(self, context: Context, requests: Iterator[Message]) -> Iterator[Message]:
        for request in requests:
            json_values.check(request)
            if self._limiter is not None:
                self._limiter.count(context.caller.user_id, context.call, request)
            yield request

    def _failure(self, call: ServedCall, error: Exception) -> Message:
        if isinstance(error, CallAborted):
            raise error
        if isinstance(error, BudgetFullError):
            raise CallAborted(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error)) from error
        if isinstance(error, ServiceError):
            status = error.status()
        elif isinstance(error, PageTooLargeError):
            status = make_status(
                StatusCode.CONN_INVALID_REQUEST,
                f"the page has more than {MAX_PAGE_BYTES} bytes; ask for fewer items per page",
            )
        elif isinstance(error, TransactionTooLargeError):
            status = make_status(
                StatusCode.CONN_INVALID_REQUEST,
                f"the request has more than {MAX_INDEX_ROWS} concepts and other values that "
                "searches look up; send it in parts",
            )
        elif isinstance(error, DecodeError):
            _logger.error("%s failed: %s", call.method, error)
            status = make_status(
                StatusCode.INTERNAL_DATABASE_ISSUE, "what is stored of the resource is damaged"
            )
        elif isinstance(error, StoreError):
            _logger.error("%s failed: %s", call.method, error)
            status = make_status(StatusCode.INTERNAL_DATABASE_ISSUE, str(error))
        elif not call.is_active():
            # Reading the requests of a client that has gone fails; nobody hears the answer.
            raise CallAborted(grpc.StatusCode.CANCELLED, "the client disconnected") from error
        else:
            _logger.error("%s failed", call.method, exc_info=error)
            status = make_status(
                StatusCode.INTERNAL_UNCATEGORIZED, "internal error; see the server's log"
            )
        response: Any = getattr(v2, METHODS[call.method][1])()
        response.status.CopyFrom(status)
        return self._named(call, response)

    def _named(self, call: ServedCall, response: Any) -> Message:
        """Gives the response the id of its request, which the caller may prefix."""
        prefix = call.metadata.get("x-clarifai-request-id-prefix", "")
        response.status.req_id = f"{prefix}-{new_id()}" if prefix else new_id()
        return response  # type: ignore[no-any-return]


# Methods that only read, wait, or work for long: all others would have to wait for them.
_WITHOUT_TRANSACTION = frozenset(
    (
        "DeleteDatasets",
        "PostModelOutputs",
        "PostWorkflowResults",
        "PostWorkflowResultsSimilarity",
        "PostRunnerItemOutputs",
        "PutUploadContentParts",
        "PostSearches",
        "PostSearchesByID",
        "PostValidatePassword",
    )
)
_CHANGING = ("Post", "Put", "Patch", "Delete", "Cancel")


def _changes(method: str) -> bool:
    """Whether the whole method is one transaction; searches never are."""
    return (
        method.startswith(_CHANGING)
        and not (method.startswith("Post") and method.endswith("Searches"))
        and method not in _WITHOUT_TRANSACTION
    )
