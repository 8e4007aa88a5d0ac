"""What a handler works with: the parts of the server, and the call that it serves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clarigrpc import v2
from clarigrpc.local.accounts.oauth_applications import Applications
from clarigrpc.local.accounts.principal import Principal, Rights
from clarigrpc.local.accounts.user_accounts import Accounts
from clarigrpc.local.media.url_fetching import Fetcher
from clarigrpc.local.resource_facts import is_public
from clarigrpc.local.served_call import ServedCall
from clarigrpc.local.service_errors import ServiceError
from clarigrpc.local.store.download_files import Downloads
from clarigrpc.local.store.resource_store import Store
from clarigrpc.local.store.upload_files import UploadStore
from clarigrpc.local.user_app import PUBLIC_APP, UserApp
from clarigrpc.v2 import StatusCode

if TYPE_CHECKING:
    from clarigrpc.local.engine.background_tasks import BackgroundWorker
    from clarigrpc.local.engine.faults import Faults
    from clarigrpc.local.engine.input_embeddings import Embeddings
    from clarigrpc.local.engine.input_processing import InputProcessor
    from clarigrpc.local.engine.model_catalog import Catalog, CatalogEntry
    from clarigrpc.local.engine.prediction_metrics import PredictionMetrics
    from clarigrpc.local.engine.public_vocabulary import PublicVocabulary
    from clarigrpc.local.engine.runner_queues import RunnerQueues


@dataclass(frozen=True, slots=True)
class State:
    """The parts of a running server that handlers work with."""

    store: Store
    accounts: Accounts
    applications: Applications
    catalog: Catalog
    vocabulary: PublicVocabulary
    input_processor: InputProcessor
    background: BackgroundWorker
    uploads: UploadStore
    downloads: Downloads
    fetcher: Fetcher
    embeddings: Embeddings
    faults: Faults
    build_seconds: float
    input_roots: tuple[Path, ...]
    object_stores: Mapping[str, str]
    predictions: PredictionMetrics
    runners: RunnerQueues


@dataclass(frozen=True, slots=True)
class Context:
    """One call being served."""

    state: State
    call: ServedCall
    caller: Principal

    def readable(
        self, ids: v2.UserAppIDSet, *, all_apps: bool = False, method: str = ""
    ) -> UserApp:
        """User and app of a request; what it leaves empty is filled from the caller.

        Args:
            ids: The request's ``user_app_id``.
            all_apps: A user id without an app id means all apps of that user.
            method: What a collaborator has to be allowed there, in place of the method called.
        """
        method = method or self.call.method
        return self.state.accounts.resolve(self.caller, method, ids, all_apps=all_apps)

    def writable(self, ids: v2.UserAppIDSet) -> UserApp:
        """Like ``readable``, and refuses an app that the caller may only read."""
        return self.state.accounts.resolve(self.caller, self.call.method, ids, write=True)

    def user(self, ids: v2.UserAppIDSet, *, write: bool = False) -> str:
        """The user that a request for what belongs to a user means; the caller alone may."""
        return self.state.accounts.user(self.caller, ids, write=write)

    def apps_of(self, user_id: str) -> list[str]:
        """Ids of a user's apps in which the caller may read."""
        return self.state.accounts.apps_of(self.caller, self.call.method, user_id)

    def is_stranger(self, app: UserApp, method: str = "") -> bool:
        """Whether the caller is neither the owner of an app nor a collaborator with the method."""
        return self.state.accounts.is_stranger(self.caller, method or self.call.method, app)

    def sees(self, app: UserApp, item: Any) -> bool:
        """Whether the caller may see a resource of an app that the caller may see."""
        return is_public(item) or not self.is_stranger(app)

    def may_give(self, app: UserApp, rights: Rights) -> bool:
        """Whether the caller has in an app (or as a user) rights that somebody is to get."""
        return self.state.accounts.may_give(self.caller, app, rights)

    def model(self, app: UserApp, model_id: str, method: str = "") -> CatalogEntry:
        """The model, with those of its versions that the caller may see; ServiceError without."""
        only_public = self.is_stranger(app, method)
        return self.state.catalog.find(app, model_id, only_public=only_public)

    def named_model(
        self, model: v2.Model, home: UserApp | None = None, *, method: str = "GetModel"
    ) -> tuple[UserApp, CatalogEntry]:
        """The app and the model that a resource names, which may be in another app.

        Args:
            model: Names the model. Without user and app it is the model of that id in ``home`` or
                else in the public app.
            home: The app that is meant where the name has none; by default the caller's.
            method: What a collaborator has to be allowed there.
        """
        user_id, app_id = (home.user_id, home.app_id) if home is not None else ("", "")
        ids = v2.UserAppIDSet(user_id=model.user_id or user_id, app_id=model.app_id or app_id)
        app = self.readable(ids, method=method)
        if model.user_id or model.app_id:
            return app, self.model(app, model.id, method)
        try:
            return app, self.model(app, model.id, method)
        except ServiceError as missing:
            if missing.code != StatusCode.MODEL_DOES_NOT_EXIST:
                raise
            try:
                found = self.state.catalog.find(PUBLIC_APP, model.id, only_public=True)
            except ServiceError:
                raise missing from None
            return PUBLIC_APP, found

    def models(self, app: UserApp) -> list[CatalogEntry]:
        """Every model of the app, or of all apps of the user, that the caller may see."""
        apps = (app.app_id,) if app.app_id else self.apps_of(app.user_id)
        found: list[CatalogEntry] = []
        for inner in (UserApp(app.user_id, app_id) for app_id in apps):
            found += self.state.catalog.all(inner, only_public=self.is_stranger(inner))
        return found
