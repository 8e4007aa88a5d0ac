"""``clarigrpc upload``."""

from __future__ import annotations

import hashlib
from pathlib import Path

from clarigrpc import v2
from clarigrpc.local import LocalServer
from tests.cli.conftest import Run


def test_it_uploads_to_what_is_named(server: LocalServer, cli: Run, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content" * 1000)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with server.client() as client:
        client.v2.PostModels(v2.PostModelsRequest(models=[v2.Model(id="for-upload")]))
        client.artifacts.create("for-upload")
        result = cli("upload", str(path), "--model", "for-upload", "--description", "mine")
        assert result.code == 0
        assert digest in result.err
        version = result.out.strip()
        (found,) = client.model("for-upload").versions()
        assert (found.id, found.description) == (version, "mine")
        result = cli("upload", str(path), "--artifact", "for-upload")
        assert client.artifacts.versions("for-upload").get(result.out.strip())
        result = cli("upload", str(path))
        assert client.uploads.get(result.out.strip()).content_length == 7000


def test_what_cannot_be(cli: Run, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"content")
    result = cli("upload", str(path), "--model", "a", "--artifact", "b")
    assert (result.code, "give only one of" in result.err) == (2, True)
    result = cli("upload", str(tmp_path / "nothing"))
    assert (result.code, "no such file" in result.err) == (1, True)
    result = cli("upload", str(path), "--model", "no-such-model")
    assert (result.code, "Traceback" in result.err) == (1, False)
