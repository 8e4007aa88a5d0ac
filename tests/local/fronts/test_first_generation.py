"""The first API generation: tokens and tags over HTTP, against the page that documents them."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clarigrpc import Client, errors, v2
from clarigrpc.local import LocalServer
from clarigrpc.local.accounts import oauth_applications, user_accounts
from tests.local.conftest import Raw, png

CONFIG: dict[str, Any] = {
    "users": [
        {
            "id": "alice",
            "pat": "alice-pat",
            "apps": [
                {
                    "id": "shop",
                    "applications": [
                        {"id": "shop-client", "secret": "shop-secret"},
                        {"id": "mine-client", "secret": "mine-secret", "model": "mine"},
                    ],
                }
            ],
        }
    ]
}
RED, BLUE = png("red"), png("blue")


def mine(image: v2.Image) -> v2.Data:
    return v2.Data(concepts=[v2.Concept(id="seen", name="Seen", value=1)])


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with LocalServer(rest_port=0, config=CONFIG, models={"mine": mine}) as running:
        yield running


@pytest.fixture(scope="module")
def http(server: LocalServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=str(server.rest_base), timeout=20) as client:
        yield client


def token(
    http: httpx.Client, client_id: str = "shop-client", secret: str = "shop-secret", **more: str
) -> httpx.Response:
    form = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": secret}
    return http.post("/v1/token/", data=form | more)


@pytest.fixture(scope="module")
def bearer(http: httpx.Client) -> dict[str, str]:
    return {"authorization": f"Bearer {token(http).json()['access_token']}"}


Tag = Callable[..., httpx.Response]


@pytest.fixture(scope="module")
def tag(http: httpx.Client, bearer: dict[str, str]) -> Tag:
    def send(method: str = "POST", headers: dict[str, str] = bearer, **body: Any) -> httpx.Response:
        return http.request(method, "/v1/tag/", headers=headers, **body)

    return send


def classes(response: httpx.Response) -> list[list[str]]:
    assert response.status_code == 200, response.text
    return [result["result"]["tag"]["classes"] for result in response.json()["results"]]


# Tokens


def test_a_token_has_the_fields_of_the_page(http: httpx.Client) -> None:
    response = token(http)
    assert response.status_code == 200
    answer = response.json()
    assert answer.pop("access_token")
    assert answer == {"expires_in": 36000, "scope": "api_access", "token_type": "Bearer"}
    assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["/v1/token", "/v1/token/"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_id_and_secret_may_be_in_the_header(http: httpx.Client, path: str, method: str) -> None:
    grant = {"grant_type": "client_credentials"}
    content: dict[str, Any] = {"params": grant} if method == "GET" else {"data": grant}
    response = http.request(method, path, auth=("shop-client", "shop-secret"), **content)
    assert response.json()["token_type"] == "Bearer"


def test_a_token_may_be_asked_for_in_json(http: httpx.Client) -> None:
    ids = {"client_id": "shop-client", "client_secret": "shop-secret"}
    response = http.post("/v1/token/", json={"grant_type": "client_credentials", **ids})
    assert response.json()["scope"] == "api_access"


@pytest.mark.parametrize(
    ("client_id", "secret"), [("shop-client", "wrong"), ("nobody", "shop-secret"), ("", "")]
)
def test_wrong_credentials(http: httpx.Client, client_id: str, secret: str) -> None:
    response = token(http, client_id, secret)
    assert response.status_code == 401
    assert response.json()["error"] == "invalid_client"
    assert response.json()["status_code"] == "TOKEN_APP_INVALID"
    assert "access_token" not in response.json()


def test_a_malformed_basic_header_is_a_wrong_credential(http: httpx.Client) -> None:
    grant = {"grant_type": "client_credentials"}
    response = http.post("/v1/token/", data=grant, headers={"authorization": "Basic %%%"})
    assert (response.status_code, response.json()["error"]) == (401, "invalid_client")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"grant_type": ""}, "invalid_request"),
        ({"scope": "everything"}, "invalid_scope"),
    ],
)
def test_other_grants_and_scopes_are_refused(
    http: httpx.Client, change: dict[str, str], error: str
) -> None:
    response = token(http, **change)
    assert (response.status_code, response.json()["error"]) == (400, error)


def test_the_default_application_outlives_a_restart(tmp_path: Any) -> None:
    with LocalServer(tmp_path, rest_port=0) as first, httpx.Client() as http:
        known = (first.client_id, first.client_secret)
        form = {"grant_type": "client_credentials"}
        answer = http.post(str(first.token_url), data=form, auth=known).json()
    with LocalServer(tmp_path, rest_port=0) as second, httpx.Client() as http:
        assert (second.client_id, second.client_secret) == known
        headers = {"authorization": f"Bearer {answer['access_token']}"}
        assert http.get(f"{second.rest_base}/v1/info/", headers=headers).status_code == 200


def test_a_new_secret_replaces_the_kept_one(tmp_path: Any) -> None:
    with LocalServer(tmp_path, rest_port=0, client_id="c", client_secret="old"):
        pass
    with (
        LocalServer(tmp_path, rest_port=0, client_id="c", client_secret="new") as again,
        httpx.Client(base_url=str(again.rest_base)) as http,
    ):
        assert token(http, "c", "old").status_code == 401
        assert token(http, "c", "new").status_code == 200


def test_tokens_end_with_their_app() -> None:
    shop = CONFIG["users"][0]["apps"][0]
    config = {"users": [{"id": "alice", "apps": [{"id": "default"}, shop]}]}
    with (
        LocalServer(rest_port=0, config=config) as server,
        httpx.Client(base_url=str(server.rest_base)) as http,
        server.client() as client,
    ):
        headers = {"authorization": f"Bearer {token(http).json()['access_token']}"}
        assert http.get("/v1/info/", headers=headers).status_code == 200
        assert http.get("/v2/inputs", headers=headers).status_code == 200
        ids = v2.UserAppIDSet(user_id="alice", app_id="shop")
        client.v2.DeleteApp(v2.DeleteAppRequest(user_app_id=ids))
        assert http.get("/v1/info/", headers=headers).json()["status_code"] == "TOKEN_INVALID"
        assert http.get("/v2/inputs", headers=headers).status_code == 401
        assert token(http).status_code == 401


# Tags


def test_the_envelope(tag: Tag) -> None:
    before = time.time()
    response = tag(files=[("encoded_data", ("a.png", RED))], data={"local_id": "my-1"})
    content = response.json()
    assert content["status_code"] == "OK"
    assert content["status_msg"] == "every image was processed"
    meta = content["meta"]["tag"]
    assert meta["model"] == "color-recognition"
    assert meta["config"]
    assert before - 1 <= meta["timestamp"] <= time.time() + 1
    (result,) = content["results"]
    assert (result["status_code"], result["status_msg"]) == ("OK", "OK")
    assert (result["local_id"], result["url"]) == ("my-1", "")
    assert result["docid"] == int(result["docid_str"], 16) % 2**64
    tags = result["result"]["tag"]
    assert (tags["classes"], tags["concept_ids"], tags["probs"]) == (["Red"], ["red"], [1.0])


@pytest.fixture(scope="module")
def images() -> Iterator[str]:
    """Address of a web server with a red and a blue image."""

    class Images(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(RED if "red" in self.path else BLUE)

        def log_message(self, *args: object) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Images)
    thread = threading.Thread(target=running.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{running.server_address[1]}"
    running.shutdown()
    thread.join()
    running.server_close()


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_by_url(tag: Tag, images: str, method: str) -> None:
    urls = [f"{images}/red.png?size=1&x=a b", f"{images}/blue.png"]
    sent = {"params" if method == "GET" else "data": {"url": urls}}
    response = tag(method, **sent)
    assert classes(response) == [["Red"], ["Blue"]]
    assert [result["url"] for result in response.json()["results"]] == urls
    assert classes(tag(json={"url": urls})) == [["Red"], ["Blue"]]
    assert classes(tag(json={"url": urls[1]})) == [["Blue"]]


def test_as_multipart_as_json_and_as_a_form(tag: Tag) -> None:
    parts = [("encoded_data", ("r.png", RED)), ("encoded_data", ("b.png", BLUE))]
    encoded = [base64.b64encode(content).decode() for content in (RED, BLUE)]
    assert classes(tag(files=parts)) == [["Red"], ["Blue"]]
    assert classes(tag(json={"encoded_data": encoded, "op": "tag", "language": "en"})) == [
        ["Red"],
        ["Blue"],
    ]
    assert classes(tag(data={"encoded_data": encoded, "model": "default"})) == [["Red"], ["Blue"]]
    broken = base64.encodebytes(RED).decode()
    assert "\n" in broken
    assert classes(tag(json={"encoded_data": broken})) == [["Red"]]


def test_select_classes(tag: Tag) -> None:
    files = {"encoded_data": png("red", "blue", "lime")}
    (all_of_them,) = classes(tag(files=files))
    assert {"Red", "Blue", "Lime"} < set(all_of_them)
    response = tag(files=files, data={"select_classes": "Blue, Lime,Orchid"})
    assert {name for names in classes(response) for name in names} == {"Blue", "Lime"}
    # Those that the model does not have are left out, unless it has none of them.
    assert classes(tag(files=files, data={"select_classes": "Blue,dog"})) == [["Blue"]]
    refused = tag(files=files, data={"select_classes": "dog"})
    assert refused.status_code == 400
    assert "'dog'" in refused.json()["status_msg"]


def test_models_have_the_names_of_their_generation(tag: Tag) -> None:
    data = {"model": "general-v1.3", "select_classes": "red,square format"}
    response = tag(files={"encoded_data": RED}, data=data)
    assert {name for names in classes(response) for name in names} == {"red", "square format"}
    assert response.json()["meta"]["tag"]["model"] == "general-image-recognition"


def test_the_same_content_is_the_same_document(tag: Tag) -> None:
    files = [("encoded_data", RED), ("encoded_data", BLUE), ("encoded_data", RED)]
    first, other, again = (result["docid_str"] for result in tag(files=files).json()["results"])
    assert first == again != other


def test_some_images_fail(tag: Tag) -> None:
    files = [("encoded_data", RED), ("encoded_data", b"no image")]
    response = tag(files=files, data={"local_id": ["a", "b"]})
    assert response.status_code == 400
    content = response.json()
    assert content["status_code"] == "PARTIAL_ERROR"
    good, bad = content["results"]
    assert (good["local_id"], good["status_code"]) == ("a", "OK")
    assert good["result"]["tag"]["classes"] == ["Red"]
    assert (bad["local_id"], bad["status_code"]) == ("b", "CLIENT_ERROR")
    assert "decoded" in bad["result"]["error"]


def test_all_images_fail(tag: Tag) -> None:
    response = tag("GET", params={"url": "http://127.0.0.1:1/nothing.png"})
    assert response.status_code == 400
    assert response.json()["status_code"] == "ALL_ERROR"
    assert response.json()["results"][0]["status_code"] == "CLIENT_ERROR"


def test_an_application_has_a_model_of_its_own(http: httpx.Client, tag: Tag) -> None:
    text = token(http, "mine-client", "mine-secret").json()["access_token"]
    own = {"authorization": f"Bearer {text}"}
    assert classes(tag(files={"encoded_data": RED}, headers=own)) == [["Seen"]]
    assert classes(tag(files={"encoded_data": RED}, data={"model": "mine"})) == [["Seen"]]
    named = tag(files={"encoded_data": RED}, data={"model": "color-recognition"}, headers=own)
    assert classes(named) == [["Red"]]


@pytest.mark.parametrize(
    ("sent", "message"),
    [
        ({"data": {}}, "0 images"),
        ({"json": {"url": ["x"] * 129}}, "129 images"),
        ({"json": ["x"]}, "an object"),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, "not JSON"),
        ({"json": {"url": 5}}, "a string"),
        ({"json": {"encoded_data": "%%%"}}, "base64"),
        ({"json": {"url": "x", "colour": "red"}}, "unknown parameter 'colour'"),
        ({"json": {"url": "x", "language": "fr"}}, "not support language 'fr'"),
        ({"json": {"url": "x", "op": "embed"}}, "not support op 'embed'"),
        ({"json": {"url": ["x", "y"], "local_id": "1"}}, "1 values of local_id for 2"),
        ({"files": {"url": b"x"}}, "text, not a file"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, "form"),
    ],
)
def test_bad_requests(tag: Tag, bearer: dict[str, str], sent: dict[str, Any], message: str) -> None:
    headers = bearer | sent.pop("headers", {})
    response = tag(headers=headers, **sent)
    assert response.status_code == 400
    assert response.json()["status_code"] == "CLIENT_ERROR"
    assert message in response.json()["status_msg"]


def test_content_cannot_be_sent_by_get(tag: Tag) -> None:
    response = tag("GET", params={"encoded_data": "eA=="})
    assert response.status_code == 400
    assert "use POST" in response.json()["status_msg"]


def test_an_unknown_model(tag: Tag) -> None:
    response = tag(json={"url": "http://127.0.0.1:1/x", "model": "general-v9"})
    assert response.status_code == 404
    assert response.json()["status_code"] == "CLIENT_ERROR"
    assert "general-v9" in response.json()["status_msg"]


# Who may


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "TOKEN_NONE"),
        ({"authorization": "Bearer nonsense"}, "TOKEN_INVALID"),
        ({"authorization": "Bearer alice-pat"}, "TOKEN_INVALID"),
        ({"authorization": "Key alice-pat"}, "TOKEN_INVALID"),
    ],
)
def test_without_a_token(tag: Tag, headers: dict[str, str], code: str) -> None:
    response = tag("GET", headers=headers, params={"url": "http://127.0.0.1:1/x"})
    assert response.status_code == 401
    assert response.json()["status_code"] == code
    assert response.headers["www-authenticate"].startswith("Bearer")


def test_an_expired_token(serve: Callable[..., Raw], monkeypatch: pytest.MonkeyPatch) -> None:
    raw = serve(rest_port=0, token_seconds=600)
    with httpx.Client(base_url=str(raw.server.rest_base)) as http:
        text = token(http, raw.server.client_id, raw.server.client_secret).json()["access_token"]
        headers = {"authorization": f"Bearer {text}"}
        assert http.get("/v1/info/", headers=headers).status_code == 200
        later = SimpleNamespace(time=lambda: time.time() + 600)
        for module in (oauth_applications, user_accounts):
            monkeypatch.setattr(module, "time", later)
        response = http.get("/v1/info/", headers=headers)
    assert response.status_code == 401
    assert response.json()["status_code"] == "TOKEN_EXPIRED"
    metadata = [("authorization", f"Bearer {text}")]
    status = raw("ListInputs", v2.ListInputsRequest(), metadata=metadata).status
    assert status.code == v2.StatusCode.CONN_TOKEN_INVALID
    assert "expired" in status.details


def test_a_token_reads_its_app_and_public_models_alone(
    server: LocalServer, bearer: dict[str, str]
) -> None:
    auth = [("authorization", bearer["authorization"])]
    with Client(base=server.base, auth=lambda: auth) as client:
        request = v2.PostInputsRequest(user_app_id=v2.UserAppIDSet(user_id="alice", app_id="shop"))
        request.inputs.add(id="by-token").data.text.raw = "x"
        client.v2.PostInputs(request)
        public = v2.UserAppIDSet(user_id="clarifai", app_id="main")
        assert client.v2.ListModels(v2.ListModelsRequest(user_app_id=public)).models
        with pytest.raises(errors.PermissionDeniedError):
            client.v2.PostModels(
                v2.PostModelsRequest(user_app_id=public, models=[v2.Model(id="intruder")])
            )
        with pytest.raises(errors.PermissionDeniedError):
            other = v2.UserAppIDSet(user_id="bob", app_id="his")
            client.v2.ListInputs(v2.ListInputsRequest(user_app_id=other))


# HTTP


def test_info_tells_the_limits(http: httpx.Client, bearer: dict[str, str]) -> None:
    content = http.get("/v1/info", headers=bearer).json()
    assert content["status_code"] == "OK"
    assert content["results"]["max_batch_size"] == 128
    assert content["results"]["max_image_size"] == 10_000
    assert content["results"]["default_model"] == "color-recognition"


def test_other_addresses_and_methods(http: httpx.Client, bearer: dict[str, str]) -> None:
    assert http.get("/v1/embed/", headers=bearer).status_code == 404
    response = http.delete("/v1/tag/", headers=bearer)
    assert (response.status_code, response.headers["allow"]) == (405, "GET, POST")
    assert response.json()["status_code"] == "CLIENT_ERROR"


_KINDS = st.sampled_from(
    [
        "application/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=b",
        "multipart/form-data; boundary=\xff",
        "text/plain",
        "",
    ]
)
_BODIES = st.one_of(
    st.binary(max_size=200),
    st.dictionaries(
        st.sampled_from(["url", "encoded_data", "model", "local_id", "x"]), st.text(max_size=5)
    ).map(lambda fields: httpx.Request("POST", "http://x", json=fields).content),
    st.binary(max_size=40).map(
        lambda data: (
            b'--b\r\nContent-Disposition: form-data; name="encoded_data"; filename="f"'
            b"\r\n\r\n" + data + b"\r\n--b--\r\n"
        )
    ),
)


@settings(max_examples=60, deadline=None)
@given(path=st.sampled_from(["token", "tag"]), kind=_KINDS, body=_BODIES)
def test_no_request_breaks_it(
    http: httpx.Client, bearer: dict[str, str], path: str, kind: str, body: bytes
) -> None:
    headers = {
        b"content-type": kind.encode("latin-1"),
        b"authorization": bearer["authorization"].encode(),
    }
    response = http.post(f"/v1/{path}/", headers=headers, content=body)
    assert 400 <= response.status_code < 500
    assert response.json()["status_code"] in ("CLIENT_ERROR", "ALL_ERROR", "TOKEN_APP_INVALID")
