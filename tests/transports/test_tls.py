"""TLS with roots of one's own, client certificates, and message limits."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from clarigrpc import RetryPolicy, errors, v2
from tests.both import Both
from tests.conftest import Connect
from tests.scripted import ScriptedServer, reply

ONCE = RetryPolicy(max_attempts=1)
GET = v2.GetModelRequest(model_id="m")


class Authority:
    """A certificate authority, with a certificate for a server on this machine."""

    def __init__(self) -> None:
        self.ca = trustme.CA()
        self.roots = self.ca.cert_pem.bytes()
        issued = self.ca.issue_cert("localhost", "127.0.0.1")
        self.key = issued.private_key_pem.bytes()
        self.chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)

    def server(self, *, clients: bool = False) -> grpc.ServerCredentials:
        """Credentials of a server; ``clients``: that asks for a client certificate."""
        return grpc.ssl_server_credentials(
            [(self.key, self.chain)], self.roots if clients else None, clients
        )

    def client(self) -> dict[str, bytes]:
        """A client certificate, as arguments of a client."""
        issued = self.ca.issue_cert("client@tests.example")
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        return {"client_key": issued.private_key_pem.bytes(), "client_certificate": chain}


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def secured(authority: Authority, **options: Any) -> ScriptedServer:
    server = ScriptedServer(authority.server(**options))
    server.always("GetModel", reply("GetModel", model=v2.Model(id="m")))
    return server


async def works(both: Both) -> None:
    assert (await both.call("GetModel", GET)).model.id == "m"


async def test_own_roots(connect: Connect, authority: Authority, tmp_path: Path) -> None:
    path = tmp_path / "roots.pem"
    path.write_bytes(authority.roots)
    with secured(authority) as server:
        for roots in (authority.roots, path, str(path)):
            await works(connect(server.base, timeout=10, root_certificates=roots))
        await works(connect(f"https://localhost:{server.port}", timeout=10, root_certificates=path))


async def test_roots_from_the_environment(
    connect: Connect, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "roots.pem"
    path.write_bytes(authority.roots)
    monkeypatch.setenv("CLARIFAI_ROOT_CERTIFICATES_PATH", str(path))
    with secured(authority) as server:
        await works(connect(server.base, timeout=10))


async def test_client_certificates(connect: Connect, authority: Authority) -> None:
    with secured(authority, clients=True) as server:
        own = authority.client()
        await works(connect(server.base, timeout=10, root_certificates=authority.roots, **own))
        without = connect(server.base, timeout=20, root_certificates=authority.roots, retry=ONCE)
        with pytest.raises(errors.UnavailableError) as caught:
            await without.call("GetModel", GET)
        assert "client_certificate=" in str(caught.value)


@pytest.mark.parametrize("given", ["none", "others"])
@pytest.mark.measures
async def test_wrong_roots(connect: Connect, authority: Authority, given: str) -> None:
    roots: dict[str, Any] = {} if given == "none" else {"root_certificates": Authority().roots}
    with secured(authority) as server:
        both = connect(server.base, timeout=20, retry=ONCE, **roots)
        began = time.monotonic()
        with pytest.raises(errors.UnavailableError) as caught:
            await both.call("GetModel", GET)
        assert time.monotonic() - began < 4
    assert "root_certificates=" in str(caught.value)
    assert server.base in str(caught.value)


async def test_a_certificate_for_another_host(connect: Connect, authority: Authority) -> None:
    other = authority.ca.issue_cert("other.example")
    chain = b"".join(blob.bytes() for blob in other.cert_chain_pems)
    credentials = grpc.ssl_server_credentials([(other.private_key_pem.bytes(), chain)])
    with ScriptedServer(credentials) as server:
        both = connect(server.base, timeout=20, root_certificates=authority.roots, retry=ONCE)
        with pytest.raises(errors.UnavailableError) as caught:
            await both.call("GetModel", GET)
    assert "certificate" in str(caught.value)


@pytest.mark.parametrize("given", [b"\x30\x82 DER", "file"])
async def test_roots_that_are_no_pem(connect: Connect, tmp_path: Path, given: Any) -> None:
    if given == "file":
        given = tmp_path / "roots.der"
        given.write_bytes(b"\x30\x82")
    with pytest.raises(errors.ConfigurationError, match=r"root_certificates: .* is not PEM"):
        connect("https://127.0.0.1:1", root_certificates=given)


async def test_roots_that_are_broken_pem(connect: Connect, authority: Authority) -> None:
    broken = authority.roots.replace(b"A", b"")
    with secured(authority) as server:
        both = connect(server.base, timeout=20, root_certificates=broken, retry=ONCE)
        with pytest.raises(errors.UnavailableError, match="root_certificates="):
            await both.call("GetModel", GET)


async def test_tls_where_the_server_is_plaintext(
    connect: Connect, scripted: ScriptedServer
) -> None:
    both = connect(f"https://127.0.0.1:{scripted.port}", timeout=20, retry=ONCE)
    with pytest.raises(errors.UnavailableError) as caught:
        await both.call("GetModel", GET)
    assert "plaintext" in str(caught.value)
    assert "http://" in str(caught.value)


async def test_plaintext_where_the_server_wants_tls(connect: Connect, authority: Authority) -> None:
    with secured(authority) as server:
        both = connect(f"http://127.0.0.1:{server.port}", timeout=20, retry=ONCE)
        with pytest.raises(errors.UnavailableError) as caught:
            await both.call("GetModel", GET)
    assert "https://" in str(caught.value)


async def test_a_request_larger_than_the_limit(connect: Connect, scripted: ScriptedServer) -> None:
    both = connect(scripted.base, max_message_bytes=10_000)
    request = v2.PostInputsRequest()
    request.inputs.add().data.image.base64 = b"x" * 20_000
    with pytest.raises(errors.InvalidArgumentError, match="raise max_message_bytes"):
        await both.call("PostInputs", request)


async def test_a_response_larger_than_the_limit(connect: Connect, scripted: ScriptedServer) -> None:
    both = connect(scripted.base, max_message_bytes=10_000)
    scripted.on("GetModel", reply("GetModel", model=v2.Model(description="x" * 20_000)))
    with pytest.raises(errors.InvalidArgumentError, match="raise max_message_bytes"):
        await both.call("GetModel", GET)
    scripted.on("GenerateModelOutputs", [reply("GetModel", model=v2.Model(notes="x" * 20_000))])
    stream = both.open("GenerateModelOutputs", v2.PostModelOutputsRequest())
    with pytest.raises(errors.InvalidArgumentError, match="raise max_message_bytes"):
        await both.collect(stream)


async def test_a_server_with_a_smaller_limit(connect: Connect) -> None:
    options = [("grpc.max_receive_message_length", 10_000)]
    with ScriptedServer(options=options) as server:
        both = connect(server.base)
        request = v2.PostInputsRequest()
        request.inputs.add().data.image.base64 = b"x" * 20_000
        with pytest.raises(errors.InvalidArgumentError) as caught:
            await both.call("PostInputs", request)
    assert "send less at a time" in str(caught.value)


async def test_messages_far_beyond_grpc_s_own_limit(
    connect: Connect, scripted: ScriptedServer
) -> None:
    both = connect(scripted.base, timeout=20)
    scripted.on("GetModel", reply("GetModel", model=v2.Model(notes="x" * (6 << 20))))
    assert len((await both.call("GetModel", GET)).model.notes) == 6 << 20  # gRPC's is 4 MiB


@pytest.mark.measures
async def test_a_name_that_does_not_resolve(connect: Connect) -> None:
    both = connect("https://nowhere.invalid", timeout=20, retry=ONCE)
    began = time.monotonic()
    with pytest.raises(errors.UnavailableError) as caught:
        await both.call("GetModel", GET)
    assert time.monotonic() - began < 3
    assert "nowhere.invalid" in str(caught.value)
    assert "cannot be resolved" in str(caught.value)
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo("nowhere.invalid", 443)
