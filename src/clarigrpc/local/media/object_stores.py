"""Files in object stores: Amazon S3 and what speaks its protocol, Google Cloud Storage, Azure Blob.

The sources of inputs name them as ``s3://bucket/prefix``, ``gs://bucket/prefix`` and
``azure://container/prefix``. Whoever names one gives the credentials; without any it is read as
everybody may read it, and never with credentials of the machine that the server runs on. The
package that reads them looks into the environment, too: what is set here goes before that.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, urlsplit

from clarigrpc import v2
from clarigrpc._config.settings import has_google_bearer_token
from clarigrpc._extras import NeedsExtra
from clarigrpc.errors import ConfigurationError
from clarigrpc.local.media.archive_files import MAX_ARCHIVE_BYTES, MAX_FILE_BYTES, is_archive
from clarigrpc.local.service_errors import ServiceError
from clarigrpc.v2 import StatusCode

if TYPE_CHECKING:
    from obstore.store import ObjectStore

SCHEMES = ("s3", "gs", "azure")
"""Schemes of the URLs of object stores."""

_TIMEOUT_SECONDS = 20
_FILES_PER_STRETCH = 1000  # as many as the stores list at once
# They become parts of the address that is called.
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,221}")
_REGION = re.compile(r"[a-z0-9-]{1,40}")
_AZURE_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")


class StoredFile(NamedTuple):
    """A file of an object store: its path below the folder that was asked for, and its content.

    The content is there until the next file is asked for.
    """

    name: str
    content: IO[bytes]


def check(url: str) -> None:
    """Refuses a URL that names no bucket, and any without the package that reads them.

    Raises:
        ServiceError: INPUT_INVALID_URL (30106), NOT_IMPLEMENTED (10040).
    """
    _parts(url)
    try:
        with NeedsExtra("object-stores", f"{urlsplit(url).scheme}: sources"):
            import obstore  # noqa: F401 (only whether it is there)
    except ConfigurationError as error:
        raise ServiceError(StatusCode.NOT_IMPLEMENTED, str(error)) from error


def files(
    url: str,
    credentials: v2.DataSourceCredentials,
    endpoints: Mapping[str, str],
    wanted: Callable[[str], bool],
) -> Iterator[StoredFile | None]:
    """The files whose paths begin with that of the URL, in the order of their paths.

    None comes after each stretch of the listing: who reads may stop where nothing is wanted.

    Args:
        url: Of a file, of a folder, or the beginning of both.
        credentials: Of whoever asks.
        endpoints: Scheme -> address that takes the place of the public one.
        wanted: Says by its name whether a file is to be read.

    Raises:
        ServiceError: LIST_OBJECTS_FAILED (66000) where the store does not answer or refuses,
            INPUT_OVER_LIMIT (30105) for a file that is too large.
    """
    import obstore

    scheme, bucket, key = _parts(url)
    with _failures(url):
        store = _store(scheme, bucket, credentials, endpoints.get(scheme, ""))
        folder = key.rpartition("/")[0]
        if is_archive(key):
            # Whoever may read one file need not be allowed to list.
            with _content(store, key) as content:
                yield StoredFile(key[len(folder) :].lstrip("/"), content)
            return
        for chunk in obstore.list(store, prefix=folder or None, chunk_size=_FILES_PER_STRETCH):
            for found in chunk:
                path = found["path"]
                if path.startswith(key) and wanted(path):
                    with _content(store, path) as content:
                        yield StoredFile(path[len(folder) :].lstrip("/"), content)
            yield None


def _parts(url: str) -> tuple[str, str, str]:
    """Scheme, bucket and path of a URL."""
    parts = urlsplit(url)
    if not _BUCKET.fullmatch(parts.netloc):
        raise ServiceError(
            StatusCode.INPUT_INVALID_URL,
            f"{url!r} names no bucket; write it as {parts.scheme}://bucket/path",
        )
    return parts.scheme, parts.netloc, unquote(parts.path.lstrip("/"))


@contextmanager
def _failures(url: str) -> Iterator[None]:
    from obstore.exceptions import BaseError

    try:
        yield
    except (BaseError, OSError, ValueError) as error:
        # Their texts go on with the whole response, over many lines.
        reason = str(error).strip().partition("\n")[0][:200]
        raise ServiceError(
            StatusCode.LIST_OBJECTS_FAILED, f"{url} cannot be read: {reason}"
        ) from error


@contextmanager
def _content(store: ObjectStore, path: str) -> Iterator[IO[bytes]]:
    import obstore

    found = obstore.get(store, path)
    size, most = found.meta["size"], MAX_ARCHIVE_BYTES if is_archive(path) else MAX_FILE_BYTES
    if size > most:
        raise ServiceError(StatusCode.INPUT_OVER_LIMIT, f"{path} has more than {most} bytes")
    with tempfile.SpooledTemporaryFile(max_size=MAX_FILE_BYTES) as content:
        for part in found:
            content.write(part)
        content.seek(0)
        yield content


def _store(
    scheme: str, bucket: str, credentials: v2.DataSourceCredentials, endpoint: str
) -> ObjectStore:
    options: dict[str, Any] = {
        "client_options": {
            "timeout": f"{_TIMEOUT_SECONDS}s",
            "allow_http": endpoint.startswith("http://"),
        },
        "retry_config": {"max_retries": 1},
    }
    kind = credentials.WhichOneof("credentials")
    if kind is not None and kind != _CREDENTIALS_OF_SCHEME[scheme]:
        raise ServiceError(
            StatusCode.INPUT_INVALID_ARGUMENT,
            f"{scheme}: sources need {_CREDENTIALS_OF_SCHEME[scheme]}",
        )
    return _OPEN[scheme](bucket, credentials, endpoint, options)


def _s3(
    bucket: str, credentials: v2.DataSourceCredentials, endpoint: str, options: dict[str, Any]
) -> ObjectStore:
    from obstore.store import S3Store

    given = credentials.s3_creds
    region = given.region or "us-east-1"
    if not _REGION.fullmatch(region):
        raise ServiceError(StatusCode.INPUT_INVALID_ARGUMENT, f"{region!r} is no region")
    if endpoint:
        options["endpoint"] = endpoint
    is_signed = bool(given.id or given.secret)
    if is_signed:
        options["credential_provider"] = lambda: {
            "access_key_id": given.id,
            "secret_access_key": given.secret,
            "token": given.token or None,
            "expires_at": None,
        }
    return S3Store(bucket, region=region, skip_signature=not is_signed, **options)


def _gcs(
    bucket: str, credentials: v2.DataSourceCredentials, endpoint: str, options: dict[str, Any]
) -> ObjectStore:
    from obstore.store import GCSStore

    account: dict[str, Any] = {}
    if credentials.gcp_creds:
        account = _service_account(credentials.gcp_creds)
        if has_google_bearer_token():
            # It goes before any account, and cannot be taken away.
            raise ServiceError(
                StatusCode.NOT_IMPLEMENTED,
                "this server cannot use gcp_creds: its environment has a GOOGLE_BEARER_TOKEN",
            )
    if endpoint:
        nobody = {"client_email": "", "private_key": "", "private_key_id": ""}
        account = {**nobody, **account, "gcs_base_url": endpoint}
        account["disable_oauth"] = not credentials.gcp_creds
    if account:
        options["service_account_key"] = json.dumps(account)
    return GCSStore(bucket, skip_signature=not credentials.gcp_creds, **options)


_ACCOUNT_FIELDS = ("client_email", "private_key", "private_key_id")


def _service_account(content: bytes) -> dict[str, Any]:
    """The account of a credentials file, without what would send requests to other addresses."""
    try:
        account = json.loads(content)
    except (ValueError, RecursionError):
        account = None
    if not isinstance(account, dict):
        raise ServiceError(
            StatusCode.INPUT_INVALID_ARGUMENT, "gcp_creds is no credentials file in JSON"
        )
    kept = {name: account.get(name) for name in _ACCOUNT_FIELDS}
    # Without one of them, those of the machine would be used.
    missing = [name for name, value in kept.items() if not (value and isinstance(value, str))]
    if missing:
        raise ServiceError(
            StatusCode.INPUT_INVALID_ARGUMENT,
            f"gcp_creds is no file of a service account: it has no {', '.join(missing)}",
        )
    return kept


def _azure(
    bucket: str, credentials: v2.DataSourceCredentials, endpoint: str, options: dict[str, Any]
) -> ObjectStore:
    from obstore.store import AzureStore

    given = credentials.azure_blob_creds
    if not _AZURE_ACCOUNT.fullmatch(given.account_name):
        raise ServiceError(
            StatusCode.INPUT_INVALID_ARGUMENT,
            "azure: sources need the account_name in azure_blob_creds",
        )
    if endpoint:
        options["endpoint"] = endpoint
    if given.account_key:
        options["credential_provider"] = lambda: {
            "access_key": given.account_key,
            "expires_at": None,
        }
    return AzureStore(
        bucket,
        account_name=given.account_name,
        skip_signature=not given.account_key,
        use_emulator=False,
        **options,
    )


_CREDENTIALS_OF_SCHEME = {"s3": "s3_creds", "gs": "gcp_creds", "azure": "azure_blob_creds"}
_OPEN: Mapping[str, Callable[[str, v2.DataSourceCredentials, str, dict[str, Any]], ObjectStore]] = {
    "s3": _s3,
    "gs": _gcs,
    "azure": _azure,
}
