"""Modules and collectors, which the reference documents and today's service has retired."""

from __future__ import annotations

import pytest

from clarigrpc import errors, v2
from tests.both import Both

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


async def test_modules(both: Both) -> None:
    c = both.client
    made = await both.run(c.modules.create, v2.Module(id="m", description="d"))
    assert made.description == "d"
    await both.run(c.modules.create_many, ["n"])
    assert (await both.run(c.modules.get, "m")).id == "m"
    changed = v2.Module(id="m", description="e")
    assert (await both.run(c.modules.patch, changed, action="overwrite")).description == "e"
    await both.run(c.modules.patch_many, [changed], action="overwrite")
    assert {one.id for one in await both.collect(c.modules.list())} == {"m", "n"}
    assert len(await both.collect(c.modules.list(all_apps=True))) >= 2
    await both.run(c.modules.delete, "n")
    assert [one.id for one in await both.collect(c.modules.list())] == ["m"]


async def test_versions_and_installations(both: Both) -> None:
    c = both.client
    await both.run(c.modules.create, "m")
    version = v2.ModuleVersion(id="1", description="first", git_commit_url="https://example.org/x")
    made = await both.run(c.modules.versions("m").create, version)
    assert (made.id, made.module_id) == ("1", "m")
    version.id = "2"
    await both.run(c.modules.versions("m").create_many, [version])
    assert (await both.run(c.modules.versions("m").get, "1")).description == "first"
    changed = v2.ModuleVersion(id="1", description="x")
    patched = await both.run(c.modules.versions("m").patch, changed, action="overwrite")
    assert patched.description == "x"
    await both.run(c.modules.versions("m").patch_many, [changed], action="overwrite")
    listed = await both.collect(c.modules.versions("m").list())
    assert {one.id for one in listed} == {"1", "2"}
    where = v2.ModuleVersion(
        id="1", module_id="m", user_id=c.settings.user_id, app_id=c.settings.app_id
    )
    wanted = v2.InstalledModuleVersion(id="i", module_version=where)
    assert (await both.run(c.installed_modules.create, wanted)).id == "i"
    wanted.id = "j"
    await both.run(c.installed_modules.create_many, [wanted])
    assert (await both.run(c.installed_modules.get, "i")).module_version.module_id == "m"
    assert {one.id for one in await both.collect(c.installed_modules.list())} == {"i", "j"}
    assert await both.run(c.modules.versions("m").usage_count, "1") == 2
    key = await both.run(c.installed_modules.create_key, "i")
    assert key.apps[0].id == c.settings.app_id
    await both.run(c.installed_modules.delete, ["i", "j"])
    assert await both.collect(c.installed_modules.list()) == []
    await both.run(c.modules.versions("m").delete, "2")
    with pytest.raises(errors.NotFoundError):
        await both.run(c.modules.versions("m").get, "2")


async def test_collectors(both: Both) -> None:
    c = both.client
    made = await both.run(c.collectors.create, v2.Collector(id="c", description="d"))
    assert made.description == "d"
    await both.run(c.collectors.create_many, ["e"])
    assert (await both.run(c.collectors.get, "c")).id == "c"
    changed = v2.Collector(id="c", description="x")
    assert (await both.run(c.collectors.patch, changed, action="overwrite")).description == "x"
    await both.run(c.collectors.patch_many, [changed], action="overwrite")
    assert {one.id for one in await both.collect(c.collectors.list())} == {"c", "e"}
    await both.run(c.collectors.delete, ["c", "e"])
    assert await both.collect(c.collectors.list()) == []
