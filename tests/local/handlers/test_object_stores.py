"""Inputs from object stores, against a server of the S3 protocol that others wrote."""

from __future__ import annotations

import base64
import hmac
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import httpx
import obstore
import pytest
from obstore.store import AzureStore

from clarigrpc import v2
from clarigrpc.local import LocalServer
from clarigrpc.local.media import object_stores
from clarigrpc.local.service_errors import ServiceError
from clarigrpc.local.store.resource_store import StoredCollection
from tests.contract.peer import environment
from tests.local.conftest import Raw, message, ok, png
from tests.waiting import until

Code = v2.StatusCode
SECRET = "a-secret-of-the-caller"
KEYS = {"s3_creds": {"region": "eu-west-1", "id": "somebody", "secret": SECRET}}


def archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        packed.writestr("inside/red.png", png("red"))
        packed.writestr("notes.bin", "no input")
    return file.getvalue()


OBJECTS = {
    "photos/2024/cat1.png": png("red"),
    "photos/2024/cats.zip": archive(),
    "photos/2024/cats/two.png": png("blue"),
    "photos/2024/dog.png": png("green"),
    "photos/2024/cat.bin": b"no input",
    "words.txt": b"hello",
}


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """Address of a server of S3 with a bucket."""
    python = environment("moto", ("moto[s3]==5.2.5", "flask==3.1.3", "flask-cors==6.0.5"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    running = subprocess.Popen(
        [str(python), "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    base = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=base, trust_env=False) as web:
            end = time.monotonic() + 60
            while True:
                try:
                    for bucket in ("album", "open-album"):
                        headers = {"x-amz-acl": "public-read"} if "open" in bucket else {}
                        assert web.put(f"/{bucket}", headers=headers).status_code == 200
                    break
                except httpx.TransportError:
                    assert running.poll() is None, "it ended at its start"
                    assert time.monotonic() < end, "it does not start"
                    time.sleep(0.05)
            for path, content in OBJECTS.items():
                assert web.put(f"/album/{path}", content=content).status_code == 200
            shown = {"x-amz-acl": "public-read"}
            for path in ("a.txt", "b/c.txt"):
                put = web.put(f"/open-album/{path}", content=b"hello", headers=shown)
                assert put.status_code == 200
        yield base
    finally:
        running.kill()
        running.wait()


@pytest.fixture(scope="module")
def raw(store: str) -> Iterator[Raw]:
    with (
        LocalServer(object_stores={"s3": store}) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        yield Raw(server, v2.V2Stub(channel))


def added(raw: Raw, app: str, url: str, **credentials: Any) -> tuple[list[str], v2.Status]:
    """Ids of the inputs of a new app after it took them from a source, and how that went."""
    ok(raw("PostApps", v2.PostAppsRequest(apps=[v2.App(id=app)])))
    ids = v2.UserAppIDSet(user_id="me", app_id=app)
    source = {"url": {"url": url, "credentials": credentials}}
    request = message(v2.PostInputsDataSourcesRequest, data_sources=[source])
    request.user_app_id.CopyFrom(ids)
    job = ok(raw("PostInputsDataSources", request)).inputs_add_jobs[0]
    wanted = v2.ListInputsExtractionJobsRequest(user_app_id=ids)

    def over() -> v2.InputsExtractionJob | None:
        (found,) = ok(raw("ListInputsExtractionJobs", wanted)).inputs_extraction_jobs
        assert SECRET not in str(found)
        assert found.url == url
        return found if found.status.code in (Code.JOB_COMPLETED, Code.JOB_FAILED) else None

    done = until(over, 30)
    assert SECRET not in str(job)
    listed = ok(raw("ListInputs", v2.ListInputsRequest(user_app_id=ids))).inputs
    return sorted(item.id for item in listed), done.status


@pytest.mark.parametrize(
    ("app", "url", "expected"),
    [
        # A prefix of paths, whatever comes after it.
        ("prefix", "s3://album/photos/2024/cat", ["cat1", "cats-two", "inside-red"]),
        (
            "folder",
            "s3://album/photos/2024/",
            ["cat1", "cats-two", "dog", "inside-red"],
        ),
        ("one-file", "s3://album/words.txt", ["words"]),
        ("archive", "s3://album/photos/2024/cats.zip", ["inside-red"]),
        ("nothing", "s3://album/none/", []),
    ],
)
def test_what_a_url_means(raw: Raw, app: str, url: str, expected: list[str]) -> None:
    found, status = added(raw, app, url, **KEYS)
    assert (found, status.code) == (expected, Code.JOB_COMPLETED)


def test_without_credentials_it_reads_what_everybody_may_read(
    raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Those of the machine that the server runs on are not the caller's.
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-the-machine")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-the-machine")
    found, status = added(raw, "open", "s3://open-album")
    assert (found, status.code) == (["a", "b-c"], Code.JOB_COMPLETED)
    found, status = added(raw, "closed", "s3://album/words.txt")
    assert (found, status.code) == ([], Code.JOB_FAILED)


@pytest.mark.parametrize("url", ["s3://no-such-bucket/x/", "s3://album/none.zip"])
def test_a_source_that_cannot_be_read_says_so(raw: Raw, url: str) -> None:
    found, status = added(raw, f"lost-{len(url)}", url, **KEYS)
    assert (found, status.code) == ([], Code.JOB_FAILED)
    assert url in status.details
    assert "\n" not in status.details


def test_secrets_go_with_the_job(raw: Raw) -> None:
    added(raw, "secretive", "s3://album/words.txt", **KEYS)
    service = raw.server._service
    assert service is not None
    kept = service.state.store._rows("SELECT data FROM contents")
    assert kept
    assert not [data for (data,) in kept if SECRET.encode() in data]


@pytest.mark.parametrize(
    ("url", "credentials", "code"),
    [
        ("s3:///photos/", {}, Code.INPUT_INVALID_URL),
        ("s3://album@evil.example/x/", {}, Code.INPUT_INVALID_URL),
        ("ftp://album/x/", {}, Code.NOT_IMPLEMENTED),
    ],
)
def test_what_is_no_source(raw: Raw, url: str, credentials: Any, code: int) -> None:
    source = {"url": {"url": url, "credentials": credentials}}
    request = message(v2.PostInputsDataSourcesRequest, data_sources=[source])
    assert raw("PostInputsDataSources", request).status.code == code


@pytest.mark.parametrize(
    ("url", "credentials", "expected"),
    [
        ("gs://album/x/", KEYS, "need gcp_creds"),
        ("gs://album/x/", {"gcp_creds": "eA=="}, "no credentials file"),
        ("gs://album/y/", {"gcp_creds": "W10="}, "no credentials file"),  # []
        # {}, which must not become the credentials of the machine.
        ("gs://album/x/", {"gcp_creds": "e30="}, "no client_email, private_key, private_key_id"),
        ("azure://album/x/", {}, "account_name"),
        ("azure://album/x/", {"azure_blob_creds": {"account_name": "evil.example/"}}, "name"),
        ("s3://album/x/", {"s3_creds": {"region": "evil.example/"}}, "no region"),
    ],
)
def test_credentials_that_do_not_fit(
    raw: Raw, url: str, credentials: dict[str, Any], expected: str
) -> None:
    app = f"misfit-{abs(hash((url, expected)))}"
    found, status = added(raw, app, url, **credentials)
    assert (found, status.code) == ([], Code.JOB_FAILED)
    assert expected in status.details


_OF_THE_MACHINE = {
    "AWS_ACCESS_KEY_ID": "of-the-machine",
    "AWS_SECRET_ACCESS_KEY": "of-the-machine",
    "AWS_SESSION_TOKEN": "of-the-machine",
    "AWS_SKIP_SIGNATURE": "true",
    "AZURE_STORAGE_TOKEN": "of-the-machine",
    "AZURE_STORAGE_SAS_KEY": "of-the-machine",
    "AZURE_SKIP_SIGNATURE": "true",
    "GOOGLE_BEARER_TOKEN": "of-the-machine",
}
_ACCOUNT = dict.fromkeys(("client_email", "private_key", "private_key_id"), "x")


@pytest.mark.parametrize(
    ("url", "credentials", "expected"),
    [
        ("s3://album/x/", KEYS, "Credential=somebody/"),
        ("s3://album/x/", {}, None),
        (
            "azure://album/x/",
            {"azure_blob_creds": {"account_name": "somebody", "account_key": "a2V5"}},
            "SharedKey somebody:",
        ),
        ("azure://album/x/", {"azure_blob_creds": {"account_name": "somebody"}}, None),
        ("gs://album/x/", {}, None),
    ],
)
def test_nothing_of_the_environment_goes_out(
    monkeypatch: pytest.MonkeyPatch, url: str, credentials: Any, expected: str | None
) -> None:
    for name, value in _OF_THE_MACHINE.items():
        monkeypatch.setenv(name, value)
    given = message(v2.DataSourceCredentials, **credentials)
    with refusing() as (address, seen):
        stores = dict.fromkeys(("s3", "azure", "gs"), address)
        with pytest.raises(ServiceError, match="cannot be read"):
            list(object_stores.files(url, given, stores, bool))
    assert seen
    for headers in seen:
        assert "of-the-machine" not in str(headers)
        found = headers.get("authorization")
        assert found is None if expected is None else expected in str(found)


def test_a_token_of_google_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_BEARER_TOKEN", "of-the-machine")
    given = v2.DataSourceCredentials(gcp_creds=json.dumps(_ACCOUNT).encode())
    with pytest.raises(ServiceError, match="GOOGLE_BEARER_TOKEN") as refused:
        list(object_stores.files("gs://album/x/", given, {}, bool))
    assert "of-the-machine" not in str(refused.value)


@contextmanager
def refusing() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Address of a server that answers 403, and the headers of what it was asked."""
    seen: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(403)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", seen
        finally:
            server.shutdown()
            thread.join()


def test_a_listing_lets_its_reader_stop(raw: Raw, store: str) -> None:
    given = message(v2.DataSourceCredentials, **KEYS)
    found = object_stores.files("s3://album/photos/", given, {"s3": store}, lambda name: False)
    assert list(found) == [None]


def test_secrets_go_with_a_cancelled_job(raw: Raw) -> None:
    server = raw.server
    assert server._service is not None
    store = server._service.state.store
    where = StoredCollection("inputs_extraction_job", server.user_id, server.app_id, "")
    job = v2.InputsExtractionJob(id="waits")
    # Of no status that a thread waits for.
    store.insert(where, job.id, job.SerializeToString(), content=SECRET.encode())
    ok(raw("CancelInputsExtractionJobs", v2.CancelInputsExtractionJobsRequest(ids=["waits"])))
    row = store.get(where, "waits")
    assert row is not None
    assert row.status == Code.JOB_CANCELLED
    assert store.content(row.seq) == b""


def test_without_the_package(raw: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    source = {"url": {"url": "s3://album/x/"}}
    request = message(v2.PostInputsDataSourcesRequest, data_sources=[source])
    status = raw("PostInputsDataSources", request).status
    assert status.code == Code.NOT_IMPLEMENTED
    assert "pip install 'clarigrpc[object-stores]'" in status.details


@pytest.mark.parametrize("given", [{"ftp": "http://127.0.0.1:1"}, {"s3": "127.0.0.1:9000"}])
def test_addresses_of_stores_that_cannot_be(given: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="object_stores"):
        LocalServer(object_stores=given)


# Azure, against Azurite where it is installed (`npm install -g azurite`)

_AZURITE = shutil.which("azurite-blob")
_AZURE_ACCOUNT, _AZURE_KEY = "devstoreaccount1", base64.b64encode(b"the key of a test").decode()


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of an account of a server that others wrote, with a container."""
    assert _AZURITE is not None
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = {
        "blobHost": "127.0.0.1",
        "blobPort": str(port),
        "location": str(tmp_path_factory.mktemp("azurite")),
    }
    running = subprocess.Popen(
        [_AZURITE, "--skipApiVersionCheck", *(f"--{k}={v}" for k, v in options.items())],
        env={**os.environ, "AZURITE_ACCOUNTS": f"{_AZURE_ACCOUNT}:{_AZURE_KEY}"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    base = f"http://127.0.0.1:{port}/{_AZURE_ACCOUNT}"
    try:
        until(lambda: _put_container(base), 60)
        files = AzureStore(
            "album",
            account_name=_AZURE_ACCOUNT,
            account_key=_AZURE_KEY,
            endpoint=base,
            client_options={"allow_http": True},
        )
        for path, content in OBJECTS.items():
            obstore.put(files, path, content)
        yield base
    finally:
        running.kill()
        running.wait()


def _put_container(base: str) -> bool:
    """Whether the container is there now: that is no method of the package that reads files."""
    headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    lines = ["PUT", *[""] * 11, *(f"{k}:{v}" for k, v in sorted(headers.items()))]
    lines += [f"/{_AZURE_ACCOUNT}/{_AZURE_ACCOUNT}/album", "restype:container"]
    key = base64.b64decode(_AZURE_KEY)
    signature = hmac.digest(key, "\n".join(lines).encode(), "sha256")
    headers["authorization"] = f"SharedKey {_AZURE_ACCOUNT}:{base64.b64encode(signature).decode()}"
    try:
        with httpx.Client(trust_env=False) as web:
            made = web.put(f"{base}/album", params={"restype": "container"}, headers=headers)
    except httpx.TransportError:
        return False
    assert made.status_code == 201, made.text
    return True


@pytest.mark.skipif(_AZURITE is None, reason="needs azurite-blob, of the npm package azurite")
def test_azure(azure: str) -> None:
    def read(path: str, key: str = _AZURE_KEY) -> list[str]:
        given = v2.DataSourceCredentials()
        given.azure_blob_creds.account_name, given.azure_blob_creds.account_key = (
            _AZURE_ACCOUNT,
            key,
        )
        return [
            found.name
            for found in object_stores.files(
                f"azure://album/{path}", given, {"azure": azure}, lambda name: ".bin" not in name
            )
            if found is not None
        ]

    assert read("photos/2024/cat") == ["cat1.png", "cats.zip", "cats/two.png"]
    assert read("words.txt") == ["words.txt"]
    assert read("photos/2024/cats.zip") == ["cats.zip"]
    for key in ("", base64.b64encode(b"another key").decode()):
        with pytest.raises(ServiceError, match="cannot be read"):
            read("words.txt", key)
