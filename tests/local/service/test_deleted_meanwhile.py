"""What is made in an app or upload that is deleted meanwhile never appears in a later one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from clarigrpc import v2
from clarigrpc.local.accounts.user_accounts import Accounts
from tests.local.conftest import Raw, message, ok

Code = v2.StatusCode
APP = {"user_id": "me", "app_id": "shop"}
UPLOAD = {"id": "u", "content_name": "a.txt", "content_length": 4}

Between = Callable[[str, Callable[[], None]], None]
"""Does something in another thread when a method has found the app that it is for."""


def call(raw: Raw, method: str, **fields: Any) -> Any:
    request = getattr(v2, f"{method}Request")
    if "user_app_id" in request.DESCRIPTOR.fields_by_name:
        fields.setdefault("user_app_id", APP)
    return raw(method, message(request, **fields))


def make_app(raw: Raw) -> None:
    ok(call(raw, "PostApps", user_app_id={"user_id": "me"}, apps=[{"id": "shop"}]))


def make_app_anew(raw: Raw) -> None:
    ok(call(raw, "DeleteApp"))
    make_app(raw)


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Iterator[Between]:
    threads: list[threading.Thread] = []
    resolve = Accounts.resolve

    def set_up(method: str, work: Callable[[], None]) -> None:
        def resolved(self: Accounts, caller: Any, asked: str, *rest: Any, **options: Any) -> Any:
            found = resolve(self, caller, asked, *rest, **options)
            if asked == method and not threads:
                threads.append(threading.Thread(target=work))
                threads[0].start()
                # It ends now, or has to wait until the method is done.
                threads[0].join(0.5)
            return found

        monkeypatch.setattr(Accounts, "resolve", resolved)

    yield set_up
    for thread in threads:
        thread.join()


MADE: dict[str, tuple[dict[str, Any], str]] = {
    "PostConcepts": ({"concepts": [{"id": "x"}]}, "ListConcepts"),
    "PostInputs": ({"inputs": [{"id": "x", "data": {"text": {"raw": "words"}}}]}, "ListInputs"),
    "PostDatasets": ({"datasets": [{"id": "x"}]}, "ListDatasets"),
    "PostModels": ({"models": [{"id": "x", "model_type_id": "any-to-any"}]}, "ListModels"),
    "PostUploads": ({"uploads": [UPLOAD]}, "ListUploads"),
    "PostInputsUploads": ({"inputs_uploads": [{"upload": UPLOAD}]}, "ListInputsAddJobs"),
    "PostTasks": ({"tasks": [{"id": "x", "type": "CONCEPTS_CLASSIFICATION"}]}, "ListTasks"),
}


@pytest.mark.parametrize("method", MADE)
def test_nothing_reappears_in_a_new_app(raw: Raw, between: Between, method: str) -> None:
    fields, listing = MADE[method]
    make_app(raw)
    done = threading.Event()

    def renew() -> None:
        make_app_anew(raw)
        done.set()

    between(method, renew)
    call(raw, method, **fields)
    assert done.wait(10)
    assert not any(
        isinstance(value, list) or field.is_repeated
        for field, value in call(raw, listing).ListFields()
    )


def test_parts_for_an_upload_that_is_deleted(raw: Raw, between: Between) -> None:
    make_app(raw)
    ok(call(raw, "PostUploads", uploads=[UPLOAD]))
    part = {"part_number": 1, "range_start": 0, "data": "YWI="}

    def renew() -> None:
        make_app_anew(raw)
        ok(call(raw, "PostUploads", uploads=[UPLOAD]))

    between("PutUploadContentParts", renew)
    late = call(raw, "PutUploadContentParts", upload_id="u", content_parts=[part])
    assert late.status.code in (Code.SUCCESS, Code.CONN_DOES_NOT_EXIST)
    ok(call(raw, "DeleteUploads", ids=["u"]))
    ok(call(raw, "PostUploads", uploads=[UPLOAD]))
    other = {"part_number": 1, "range_start": 0, "data": "eHk="}
    made = ok(call(raw, "PutUploadContentParts", upload_id="u", content_parts=[other]))
    assert made.upload.status.percent_completed == 50
    gone = call(raw, "PutUploadContentParts", upload_id="not-there", content_parts=[part])
    assert gone.status.code == Code.CONN_DOES_NOT_EXIST


def test_an_upload_of_the_same_id_begins_with_nothing(raw: Raw) -> None:
    part = {"part_number": 1, "range_start": 0, "data": "YWI="}
    make_app(raw)
    for _ in range(2):
        ok(call(raw, "PostUploads", uploads=[UPLOAD]))
        made = ok(call(raw, "PutUploadContentParts", upload_id="u", content_parts=[part]))
        assert made.upload.status.percent_completed == 50
        make_app_anew(raw)
        part["data"] = "eHk="


def test_a_model_that_is_deleted_before_its_upload_begins(raw: Raw, between: Between) -> None:
    make_app(raw)
    ok(call(raw, "PostModels", models=[{"id": "m", "model_type_id": "any-to-any"}]))

    def renew() -> None:
        make_app_anew(raw)
        ok(call(raw, "PostModels", models=[{"id": "m", "model_type_id": "any-to-any"}]))

    between("PostModelVersionsUpload", renew)
    config = message(
        v2.PostModelVersionsUploadRequest,
        upload_config={
            "user_app_id": APP,
            "model_id": "m",
            "model_version": {},
            "total_size": 5,
        },
    )
    list(raw.stub.PostModelVersionsUpload(iter([config]), metadata=raw.metadata, timeout=20))
    for _ in range(100):
        if not call(raw, "ListModelVersions", model_id="m").model_versions:
            break
        threading.Event().wait(0.05)
    assert not call(raw, "ListModelVersions", model_id="m").model_versions
