"""Nobody hands out, or gives themselves, more rights than they have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clarigrpc import v2
from clarigrpc._contract.method_scopes import SCOPES, expand
from clarigrpc.local import LocalServer
from tests.local.both_fronts import front as front
from tests.local.conftest import Raw, ok
from tests.waiting import until

Code = v2.StatusCode

PAT = "personal_access_token"
ANNA = v2.UserAppIDSet(user_id="anna")
APP = v2.UserAppIDSet(user_id="anna", app_id="app")
CONFIG = {
    "users": [
        {"id": "anna", "pat": "anna-secret", "apps": [{"id": "app"}]},
        {"id": "carl", "pat": "carl-secret", "apps": [{"id": "own"}]},
        {"id": "dora", "pat": "dora-secret", "apps": [{"id": "hers"}]},
    ]
}
KEYS = ["Apps_Get", "Keys_Add", "Keys_Delete", "Keys_Get"]
COLLABORATORS = ["Apps_Get", "Collaborators_Add", "Collaborators_Delete", "Collaborators_Get"]
GET_INPUT = "/clarifai.api.V2/GetInput"


@pytest.fixture
def anna(serve: Callable[..., Raw]) -> Raw:
    return serve(config=CONFIG).with_key("anna-secret")


def post_key(raw: Raw, **fields: Any) -> Any:
    request = v2.PostKeysRequest(user_app_id=ANNA, keys=[v2.Key(**fields)])
    return raw("PostKeys", request)


def pat(raw: Raw, *scopes: str, **fields: Any) -> Raw:
    """The same calls with a new personal access token."""
    return raw.with_key(ok(post_key(raw, type=PAT, scopes=scopes, **fields)).keys[0].id)


def patch_key(raw: Raw, key: v2.Key, action: str = "overwrite") -> int:
    request = v2.PatchKeysRequest(user_app_id=ANNA, keys=[key], action=action)
    code: int = raw("PatchKeys", request).status.code
    return code


def share(raw: Raw, user: str, *scopes: str, endpoints: tuple[str, ...] = ()) -> Any:
    request = v2.PostCollaboratorsRequest(user_app_id=APP)
    request.collaborators.add(scopes=scopes, endpoints=endpoints).user.id = user
    return raw("PostCollaborators", request)


def patch_share(raw: Raw, change: v2.Collaborator, action: str = "overwrite") -> Any:
    request = v2.PatchCollaboratorsRequest(user_app_id=APP, action=action, collaborators=[change])
    return raw("PatchCollaborators", request)


def listed(raw: Raw) -> dict[str, v2.Key]:
    return {key.id: key for key in ok(raw("ListKeys", v2.ListKeysRequest(user_app_id=ANNA))).keys}


def test_a_narrow_key_makes_no_wide_one(anna: Raw) -> None:
    narrow = pat(anna, *KEYS)
    for wide in (
        {"type": PAT, "scopes": ["All"]},
        {"type": PAT, "scopes": [*KEYS, "Search"]},
        {"type": "api_key", "scopes": ["Inputs_Get"], "apps": [v2.App(id="app")]},
        {"type": PAT, "scopes": KEYS, "endpoints": [GET_INPUT]},
        {"type": PAT, "endpoints": [GET_INPUT]},
    ):
        assert post_key(narrow, **wide).status.code == Code.CONN_INSUFFICIENT_SCOPES
        ok(post_key(anna, **wide))
    for fine in (
        {"scopes": KEYS},
        {"scopes": ["Apps_Get"]},
        {"endpoints": ["/clarifai.api.V2/ListAppKeys"]},
    ):
        ok(post_key(narrow, type=PAT, **fine))
    with_endpoint = pat(anna, *KEYS, endpoints=[GET_INPUT])
    ok(post_key(with_endpoint, type=PAT, endpoints=[GET_INPUT]))


def test_a_narrow_key_widens_none(anna: Raw) -> None:
    narrow, wide = pat(anna, *KEYS), pat(anna, "All")
    for key in (narrow.secret, wide.secret):
        for scopes in (["All"], [*KEYS, "Search"]):
            change = v2.Key(id=key, scopes=scopes)
            assert patch_key(narrow, change) == Code.CONN_INSUFFICIENT_SCOPES
            assert patch_key(narrow, change, "merge") == Code.CONN_INSUFFICIENT_SCOPES
    gift = v2.Key(id=narrow.secret, endpoints=[GET_INPUT])
    assert patch_key(narrow, gift, "merge") == Code.CONN_INSUFFICIENT_SCOPES
    assert patch_key(narrow, v2.Key(id=narrow.secret, scopes=["Apps_Get"])) == Code.SUCCESS
    assert sorted(listed(anna)[wide.secret].scopes) == ["All"]


def test_lists_show_no_secret_that_allows_more(anna: Raw) -> None:
    narrow, wide = pat(anna, *KEYS), pat(anna, "All")
    app = [v2.App(id="app")]
    of_app = ok(post_key(anna, type="api_key", scopes=["All"], apps=app)).keys[0].id
    small = ok(post_key(anna, type="api_key", scopes=["Apps_Get"], apps=app)).keys[0].id
    assert listed(anna).keys() > {narrow.secret, wide.secret, of_app, small}
    assert listed(narrow).keys() == {narrow.secret, small}
    request = v2.ListAppKeysRequest(user_app_id=APP)
    assert [key.id for key in ok(narrow("ListAppKeys", request)).keys] == [small]
    assert {of_app, small} <= {key.id for key in ok(anna("ListAppKeys", request)).keys}
    hidden = narrow("GetKey", v2.GetKeyRequest(user_app_id=ANNA, key_id=wide.secret))
    absent = narrow("GetKey", v2.GetKeyRequest(user_app_id=ANNA, key_id="absent"))
    assert hidden.status.code == absent.status.code
    # Not to a collaborator, either.
    ok(share(anna, "carl", *KEYS))
    carl = anna.with_key("carl-secret")
    assert [key.id for key in ok(carl("ListAppKeys", request)).keys] == [small]


def test_an_unknown_endpoint_is_refused(anna: Raw) -> None:
    for name in ("GetInput", "/clarifai.api.V2/Nothing", "/other.V2/GetInput", ""):
        answer = post_key(anna, type=PAT, endpoints=[name])
        assert answer.status.code == Code.CONN_INVALID_REQUEST


def test_collaborators_give_what_they_have(anna: Raw) -> None:
    mine = ok(share(anna, "carl", *COLLABORATORS, endpoints=(GET_INPUT,))).collaborators[0].id
    carl = anna.with_key("carl-secret")
    for scopes, endpoints in (
        (["All"], ()),
        ([*COLLABORATORS, "Search"], ()),
        (COLLABORATORS, ("/clarifai.api.V2/ListInputs",)),
    ):
        change = v2.Collaborator(id=mine, scopes=scopes, endpoints=endpoints)
        for action in ("overwrite", "merge"):
            assert patch_share(carl, change, action).status.code == Code.CONN_INSUFFICIENT_SCOPES
        refused = share(carl, "dora", *scopes, endpoints=tuple(endpoints))
        assert refused.status.code == Code.CONN_INSUFFICIENT_SCOPES
    hers = ok(share(carl, "dora", *COLLABORATORS, endpoints=(GET_INPUT,))).collaborators[0].id
    # With a key of few scopes even the owner gives only those.
    narrow = pat(anna, *COLLABORATORS)
    change = v2.Collaborator(id=hers, scopes=["All"])
    assert patch_share(narrow, change).status.code == Code.CONN_INSUFFICIENT_SCOPES
    ok(patch_share(anna, change))
    # What has more than they have they do not touch; and an entry stays its user's.
    less = v2.Collaborator(id=hers, scopes=["Apps_Get"])
    assert patch_share(carl, less).status.code == Code.CONN_INSUFFICIENT_SCOPES
    moved = patch_share(anna, v2.Collaborator(id=hers, scopes=["All"], user=v2.User(id="carl")))
    assert ok(moved).collaborators[0].user.id == "dora"


def test_both_the_key_and_the_entry_of_a_collaborator_have_to_allow(anna: Raw) -> None:
    ok(share(anna, "carl", "Apps_Get", "Workflows_Get"))
    own = v2.UserAppIDSet(user_id="carl")
    carl = anna.with_key("carl-secret")
    key = v2.Key(type=PAT, scopes=["Search"])
    made = ok(carl("PostKeys", v2.PostKeysRequest(user_app_id=own, keys=[key]))).keys[0].id
    get = v2.GetAppRequest(user_app_id=APP)
    ok(carl("GetApp", get))
    assert carl.with_key(made)("GetApp", get).status.code == Code.CONN_INSUFFICIENT_SCOPES


def test_copies_hold_what_a_collaborator_may_list(anna: Raw) -> None:
    request = v2.PostInputsRequest(user_app_id=APP)
    request.inputs.add(id="i").data.text.raw = "secret"
    ok(anna("PostInputs", request))
    ok(anna("PostConcepts", v2.PostConceptsRequest(user_app_id=APP, concepts=[v2.Concept(id="c")])))
    concepts = ["Apps_Get", "Concepts_Add", "Concepts_Get"]
    ok(share(anna, "carl", *concepts))
    carl = anna.with_key("carl-secret")

    def copy(**wanted: bool) -> Any:
        duplication = v2.PostAppDuplicationsRequest(user_app_id=APP)
        given = duplication.app_duplications.add(new_app_id="-".join(["copy", *wanted]))
        for name, value in wanted.items():
            setattr(given.filter, name, value)
        return carl("PostAppDuplications", duplication)

    for wanted in ({}, {"copy_inputs": True}, {"copy_concepts": True, "copy_models": True}):
        assert copy(**wanted).status.code == Code.CONN_INSUFFICIENT_SCOPES
    ok(copy(copy_concepts=True))
    there = v2.UserAppIDSet(user_id="carl", app_id="copy-copy_concepts")
    listing = v2.ListConceptsRequest(user_app_id=there)
    assert until(lambda: [one.id for one in ok(carl("ListConcepts", listing)).concepts] == ["c"])


def test_keys_of_modules_are_as_wide_as_their_maker(anna: Raw) -> None:
    ok(anna("PostModules", v2.PostModulesRequest(user_app_id=APP, modules=[v2.Module(id="m")])))
    version = v2.ModuleVersion(id="1")
    ok(
        anna(
            "PostModuleVersions",
            v2.PostModuleVersionsRequest(user_app_id=APP, module_id="m", module_versions=[version]),
        )
    )
    installed = [v2.InstalledModuleVersion(id=name) for name in ("narrow", "wide")]
    for one in installed:
        one.module_version.CopyFrom(
            v2.ModuleVersion(id="1", module_id="m", user_id="anna", app_id="app")
        )
    post = v2.PostInstalledModuleVersionsRequest(
        user_app_id=APP, installed_module_versions=installed
    )
    ok(anna("PostInstalledModuleVersions", post))
    modules = ["InstalledModuleVersions_Add", "InstalledModuleVersions_Get", "Modules_Get"]
    narrow = pat(anna, *KEYS, *modules)

    def key_of(raw: Raw, name: str) -> Any:
        request = v2.PostInstalledModuleVersionsKeyRequest(
            user_app_id=APP, installed_module_version_id=name
        )
        return raw("PostInstalledModuleVersionsKey", request)

    assert sorted(ok(key_of(narrow, "narrow")).key.scopes) == sorted([*KEYS, *modules])
    wide = ok(key_of(anna, "wide")).key
    assert list(wide.scopes) == ["All"]
    refused = key_of(narrow, "wide")
    assert refused.status.code == Code.CONN_INSUFFICIENT_SCOPES
    assert wide.id not in refused.status.details
    listing = v2.ListInstalledModuleVersionsRequest(user_app_id=APP)
    shown = {
        one.id: one.key_id
        for one in ok(narrow("ListInstalledModuleVersions", listing)).installed_module_versions
    }
    assert shown["narrow"]
    assert not shown["wide"]
    assert ok(key_of(anna, "wide")).key.id == wide.id


@pytest.fixture(scope="module")
def one_server() -> Iterator[Raw]:
    with (
        LocalServer(config=CONFIG) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        yield Raw(server, v2.V2Stub(channel), "anna-secret")


_SETS = st.sets(st.sampled_from(sorted(SCOPES.keys() - {"All"})), max_size=12)


@settings(max_examples=60)
@given(maker=_SETS, wanted=_SETS, by_collaborator=st.booleans())
def test_a_gift_is_part_of_what_the_giver_has(
    one_server: Raw, maker: set[str], wanted: set[str], by_collaborator: bool
) -> None:
    helpers = COLLABORATORS if by_collaborator else KEYS
    has, gift = expand([*maker, *helpers]), expand(wanted or {"Search"})
    assert has is not None
    assert gift is not None
    if by_collaborator:
        mine = ok(share(one_server, "carl", *sorted(has))).collaborators[0].id
        answer = share(one_server.with_key("carl-secret"), "dora", *sorted(gift))
        ids = [mine, *(entry.id for entry in answer.collaborators)]
        gone = v2.DeleteCollaboratorsRequest(user_app_id=APP, collaborator_ids=ids)
        ok(one_server("DeleteCollaborators", gone))
    else:
        answer = post_key(pat(one_server, *sorted(has)), type=PAT, scopes=sorted(gift))
    expected = Code.SUCCESS if gift <= has else Code.CONN_INSUFFICIENT_SCOPES
    assert answer.status.code == expected
