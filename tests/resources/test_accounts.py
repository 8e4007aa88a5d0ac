"""Apps and their copies, keys, users, scopes, collaborators, secrets, status codes."""

from __future__ import annotations

import pytest

from clarigrpc import errors, v2
from clarigrpc.local import LocalServer
from tests.both import Both
from tests.conftest import Connect
from tests.resources.conftest import OTHER, add_inputs

READER = ["Annotations_Get", "Apps_Get", "Concepts_Get", "Inputs_Get"]
"""The scopes that listing inputs requires."""


async def test_apps(both: Both) -> None:
    c = both.client
    mine = c.settings.app_id
    assert (await both.run(c.apps.get)).id == mine
    new = f"{mine}-new"
    made = await both.run(c.apps.create, v2.App(id=new, description=f"of {mine}"))
    assert (made.id, made.user_id) == (new, c.settings.user_id)
    await both.run(c.apps.create_many, [f"{mine}-x"])
    found = await both.collect(c.apps.list(search=f"of {mine}"))
    assert [one.id for one in found] == [new]
    assert mine in {one.id for one in await both.collect(c.apps.list(per_page=3))}
    changed = await both.run(c.apps.patch, v2.App(id=new, notes="n"), action="overwrite")
    assert changed.notes == "n"
    await both.run(c.apps.patch_many, [v2.App(id=new, notes="m")], action="overwrite")
    assert (await both.run(c.apps.rename, new, f"{mine}-renamed")).id == f"{mine}-renamed"
    by_name = await both.collect(c.apps.search(f"{mine}-*"))
    assert {one.id for one in by_name} >= {f"{mine}-renamed", f"{mine}-x"}
    await both.run(c.apps.delete, [f"{mine}-renamed", f"{mine}-x"])
    with pytest.raises(errors.NotFoundError):
        await both.run(c.apps.get, f"{mine}-x")
    with pytest.raises(errors.InvalidArgumentError):
        await both.run(c.apps.delete, "")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_copies(both: Both) -> None:
    c = both.client
    copy = f"{c.settings.app_id}-copy"
    await add_inputs(both, "i", "j")
    assert (await both.run(c.apps.counts)).inputs == 2
    started = await both.run(c.apps.duplicate, c.settings.app_id, copy)
    ended = await both.run(c.apps.wait_duplicated, started)
    assert ended.status.code == v2.StatusCode.APP_DUPLICATION_SUCCESS
    assert (await both.run(c.apps.counts, copy)).inputs == 2
    assert (await both.run(c.app_duplications.get, started.id)).destination_app.id == copy
    assert started.id in {one.id for one in await both.collect(c.app_duplications.list())}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_copies_by_messages(both: Both) -> None:
    c = both.client
    wanted = v2.AppDuplication(destination_app=v2.App(id=f"{c.settings.app_id}-copy"))
    one = await both.run(c.app_duplications.create, wanted)
    (ended,) = await both.run(c.app_duplications.wait, one)
    assert ended.id == one.id
    wanted.destination_app.id += "2"
    assert await both.run(c.app_duplications.follow(one).wait) == ended
    (two,) = await both.run(c.app_duplications.create_many, [wanted])
    await both.run(c.app_duplications.wait, [one, two.id])


async def test_keys(both: Both, connect: Connect, service: LocalServer) -> None:
    c = both.client
    app = v2.App(id=c.settings.app_id)
    made = await both.run(c.keys.create, v2.Key(scopes=["All"], apps=[app], description="mine"))
    with_key = connect(service.base, api_key=made.id)
    assert await both.collect(with_key.client.inputs.list()) == []
    pat = v2.Key(type="personal_access_token", scopes=["All"])
    (token,) = await both.run(c.keys.create_many, [pat])
    assert (await both.run(c.keys.get, made.id)).description == "mine"
    changed = await both.run(c.keys.patch, v2.Key(id=made.id, description="x"), action="overwrite")
    assert changed.description == "x"
    await both.run(c.keys.patch_many, [v2.Key(id=made.id, description="y")], action="overwrite")
    ids = {one.id for one in await both.collect(c.keys.list(type="personal_access_token"))}
    assert token.id in ids
    assert made.id not in ids
    assert {one.id for one in await both.collect(c.keys.list_of_app())} == {made.id}
    await both.run(c.keys.delete, [made.id, token.id])
    with pytest.raises(errors.AuthenticationError):
        await both.collect(with_key.client.inputs.list())


async def test_users(both: Both) -> None:
    c = both.client
    assert (await both.run(c.users.get)).id == c.settings.user_id
    weak = await both.run(c.users.validate_password, "x")
    assert weak.minimum_length
    strong = await both.run(c.users.validate_password, "Long-enough-4-all")
    assert not strong.minimum_length


async def test_scopes(both: Both) -> None:
    c = both.client
    every = await both.run(c.scopes.list)
    assert "Inputs_Add" in {one.scope for one in every.scope_deps}
    assert "All" in (await both.run(c.scopes.mine)).scopes
    assert "All" in (await both.run(c.scopes.mine_as_user)).scopes
    assert "All" in (await both.run(c.scopes.mine_as_root)).scopes


async def test_collaborators(both: Both, connect: Connect, service: LocalServer) -> None:
    c = both.client
    wanted = v2.Collaborator(user=v2.User(id="other"), scopes=READER)
    wanted.app.id = c.settings.app_id
    made = await both.run(c.collaborators.create, wanted)
    assert made.user.id == "other"
    other = connect(service.base, pat=OTHER, user_id="other", app_id="theirs")
    shared = await both.collect(other.client.collaborations.list())
    assert c.settings.app_id in {one.app.id for one in shared}
    there = other.client.inputs.within(user_id=c.settings.user_id, app_id=c.settings.app_id)
    assert await both.collect(there.list()) == []
    change = v2.Collaborator(id=made.id, scopes=["Apps_Get"])
    assert list((await both.run(c.collaborators.patch, change, action="overwrite")).scopes) == [
        "Apps_Get"
    ]
    await both.run(c.collaborators.patch_many, [change], action="overwrite")
    assert [one.id for one in await both.collect(c.collaborators.list())] == [made.id]
    await both.run(c.collaborators.delete, made.id)
    assert await both.collect(c.collaborators.list()) == []
    await both.run(c.collaborators.create_many, [wanted])
    await both.run(c.collaborators.delete, emails="o@example.org")
    assert await both.collect(c.collaborators.list()) == []
    with pytest.raises(errors.InvalidArgumentError, match="email"):
        await both.run(c.collaborators.delete)


async def test_secrets(both: Both) -> None:
    c = both.client
    name = f"secret-{c.settings.app_id}"
    made = await both.run(c.secrets.create, v2.Secret(id=name, value="s3"))
    assert (made.id, made.value) == (name, "")
    await both.run(c.secrets.create_many, [v2.Secret(id=f"{name}-2", value="x")])
    assert (await both.run(c.secrets.get, name)).version == 1
    changed = v2.Secret(id=name, description="d")
    assert (await both.run(c.secrets.patch, changed, action="overwrite")).description == "d"
    await both.run(c.secrets.patch_many, [changed], action="overwrite")
    assert name in {one.id for one in await both.collect(c.secrets.list())}
    await both.run(c.secrets.delete, [name, f"{name}-2"])
    with pytest.raises(errors.NotFoundError):
        await both.run(c.secrets.get, name)


async def test_status_codes(both: Both) -> None:
    c = both.client
    found = await both.run(c.status_codes.get, v2.StatusCode.INPUT_PENDING)
    assert found.code == v2.StatusCode.INPUT_PENDING
    listed = await both.collect(c.status_codes.list())
    assert v2.StatusCode.MODEL_TRAINED in {one.code for one in listed}
    with pytest.raises(errors.NotFoundError):
        await both.run(c.status_codes.get, 1)
