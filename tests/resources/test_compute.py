"""Clusters, nodepools, runners, deployments, pipelines, steps, artifacts, logs."""

from __future__ import annotations

import pytest

from clarigrpc import errors, v2
from tests.both import Both


async def test_clusters_and_nodepools(both: Both) -> None:
    c = both.client
    name = f"cluster-{c.settings.app_id}"
    made = await both.run(
        c.compute_clusters.create, v2.ComputeCluster(id=name, cluster_type="dedicated")
    )
    assert (made.id, made.cluster_type) == (name, "dedicated")
    await both.run(c.compute_clusters.create_many, [f"{name}-2"])
    assert (await both.run(c.compute_clusters.get, name)).id == name
    changed = v2.ComputeCluster(id=name, description="d")
    patched = await both.run(c.compute_clusters.patch, changed, action="overwrite")
    assert patched.description == "d"
    await both.run(c.compute_clusters.patch_many, [changed], action="overwrite")
    assert name in {one.id for one in await both.collect(c.compute_clusters.list())}
    pool = v2.Nodepool(id="pool", max_instances=2)
    assert (await both.run(c.compute_clusters.nodepools(name).create, pool)).max_instances == 2
    await both.run(c.compute_clusters.nodepools(name).create_many, ["pool2"])
    assert (await both.run(c.compute_clusters.nodepools(name).get, "pool")).id == "pool"
    pool.max_instances = 3
    patched = await both.run(c.compute_clusters.nodepools(name).patch, pool, action="overwrite")
    assert patched.max_instances == 3
    await both.run(c.compute_clusters.nodepools(name).patch_many, [pool], action="overwrite")
    ready = v2.Nodepool.NODEPOOL_STATUS_READY
    await both.run(
        c.compute_clusters.nodepools(name).set_status, "pool", ready, description="all there"
    )
    found = await both.run(c.compute_clusters.nodepools(name).get, "pool")
    assert (found.status, found.status_description) == (ready, "all there")
    listed = await both.collect(c.compute_clusters.nodepools(name).list())
    assert {one.id for one in listed} == {"pool", "pool2"}
    runner = v2.Runner(id=f"r-{name}", num_replicas=1)
    made = await both.run(c.compute_clusters.nodepools(name).runners("pool").create, runner)
    assert (made.nodepool.id, made.nodepool.compute_cluster.id) == ("pool", name)
    found = await both.collect(c.compute_clusters.nodepools(name).runners("pool").list())
    assert [one.id for one in found] == [runner.id]
    await both.run(c.compute_clusters.nodepools(name).runners("pool").delete, runner.id)
    await both.run(c.compute_clusters.nodepools(name).delete, ["pool", "pool2"])
    assert await both.collect(c.compute_clusters.nodepools(name).list()) == []
    await both.run(c.compute_clusters.delete, [name, f"{name}-2"])
    with pytest.raises(errors.NotFoundError):
        await both.run(c.compute_clusters.get, name)


async def test_runners(both: Both) -> None:
    c = both.client
    name = f"runner-{c.settings.app_id}"
    made = await both.run(c.runners.create, v2.Runner(id=name, description="d", num_replicas=2))
    assert made.description == "d"
    await both.run(c.runners.create_many, [f"{name}-2"])
    assert (await both.run(c.runners.get, name)).id == name
    changed = v2.Runner(id=name, description="e")
    assert (await both.run(c.runners.patch, changed, action="overwrite")).description == "e"
    await both.run(c.runners.patch_many, [changed], action="overwrite")
    found = await both.collect(c.runners.list(min_replicas=2))
    assert name in {one.id for one in found}
    assert f"{name}-2" not in {one.id for one in found}
    assert await both.collect(c.runners.items(name).list()) == []
    with pytest.raises(errors.CancelledError):
        await both.run(c.runners.items(name).answer, "nobody-waits", v2.RunnerItemOutput())
    await both.run(c.runners.delete, [name, f"{name}-2"])
    with pytest.raises(errors.NotFoundError):
        await both.run(c.runners.get, name)


async def test_deployments(both: Both) -> None:
    c = both.client
    name = f"deployment-{c.settings.app_id}"
    cluster = f"cluster-{name}"
    await both.run(c.compute_clusters.create, cluster)
    await both.run(c.compute_clusters.nodepools(cluster).create, "pool")
    there = v2.ComputeCluster(id=cluster, user_id=c.settings.user_id)
    pool = v2.DeploymentNodepool(id="pool", compute_cluster=there)
    model = v2.Model(id="color-recognition", user_id="clarifai", app_id="main")
    public = c.models.within(user_id="clarifai", app_id="main")
    model.model_version.id = (await both.run(public.get, model.id)).model_version.id
    wanted = v2.Deployment(id=name, deployment_nodepools=[pool], worker=v2.Worker(model=model))
    assert (await both.run(c.deployments.create, wanted)).id == name
    wanted.id = f"{name}-2"
    await both.run(c.deployments.create_many, [wanted])
    assert (await both.run(c.deployments.get, name)).worker.model.id == "color-recognition"
    changed = v2.Deployment(id=name, description="d")
    assert (await both.run(c.deployments.patch, changed, action="overwrite")).description == "d"
    await both.run(c.deployments.patch_many, [changed], action="overwrite")
    found = await both.collect(c.deployments.list(nodepool_id="pool", compute_cluster_id=cluster))
    assert {one.id for one in found} == {name, f"{name}-2"}
    pool.id = "no-such-pool"
    wrong = v2.Deployment(deployment_nodepools=[pool], worker=v2.Worker(model=model))
    with pytest.raises(errors.NotFoundError):
        await both.run(c.deployments.create, wrong)
    await both.run(c.deployments.delete, [name, f"{name}-2"])
    with pytest.raises(errors.NotFoundError):
        await both.run(c.deployments.get, name)


async def test_pipelines(both: Both) -> None:
    c = both.client
    made = await both.run(c.pipelines.create, v2.Pipeline(id="p", description="d"))
    assert made.description == "d"
    await both.run(c.pipelines.create_many, ["q"])
    version = v2.PipelineVersion(description="new")
    changed = await both.run(
        c.pipelines.patch, v2.Pipeline(id="p", pipeline_version=version), action="merge"
    )
    assert changed.id == "p"
    await both.run(c.pipelines.patch_many, [v2.Pipeline(id="q", notes="n")], action="overwrite")
    assert (await both.run(c.pipelines.get, "q")).notes == "n"
    assert {one.id for one in await both.collect(c.pipelines.list())} == {"p", "q"}
    versions = await both.collect(c.pipelines.versions("p").list())
    assert versions
    first = versions[-1]
    assert (await both.run(c.pipelines.versions("p").get, first.id)).pipeline_id == "p"
    patch = v2.PipelineVersion(id=first.id, description="x")
    patched = await both.run(c.pipelines.versions("p").patch, patch, action="overwrite")
    assert patched.description == "x"
    await both.run(c.pipelines.versions("p").patch_many, [patch], action="overwrite")
    wanted = v2.PipelineVersionRun(id="r")
    wanted.orchestration_status.status.code = v2.StatusCode.JOB_RUNNING
    run = await both.run(c.pipelines.versions("p").runs(first.id).create, wanted)
    assert run.id == "r"
    followed = c.pipelines.versions("p").runs(first.id).follow(run)
    assert (await both.run(followed.status)).code == v2.StatusCode.JOB_RUNNING
    with pytest.raises(errors.DeadlineExceededError, match="pipeline run 'r' has not ended"):
        await both.run(followed.wait, timeout=0.05)
    assert (await both.run(followed.cancel)).code == v2.StatusCode.JOB_CANCELLED
    with pytest.raises(errors.CancelledError):
        await both.run(followed.wait)
    await both.run(c.pipelines.versions("p").runs(first.id).create_many, ["s"])
    assert (await both.run(c.pipelines.versions("p").runs(first.id).get, "r")).id == "r"
    listed = await both.collect(c.pipelines.versions("p").runs(first.id).list())
    assert {one.id for one in listed} == {"r", "s"}
    await both.run(
        c.pipelines.versions("p").runs(first.id).patch,
        v2.PipelineVersionRun(
            id="r",
            orchestration_status=v2.OrchestrationStatus(
                status=v2.Status(code=v2.StatusCode.JOB_COMPLETED)
            ),
        ),
        action="overwrite",
    )
    await both.run(
        c.pipelines.versions("p").runs(first.id).patch_many, [v2.PipelineVersionRun(id="s")]
    )
    logs = await both.collect(c.pipelines.versions("p").runs(first.id).status_logs("r"))
    assert isinstance(logs, list)
    await both.run(c.pipelines.versions("p").delete, first.id)
    await both.run(c.pipelines.delete, ["p", "q"])
    assert await both.collect(c.pipelines.list()) == []


async def test_steps(both: Both) -> None:
    c = both.client
    await both.run(c.pipeline_steps.create, v2.PipelineStep(id="s", description="d"))
    await both.run(c.pipeline_steps.create_many, ["t"])
    assert (await both.run(c.pipeline_steps.get, "s")).description == "d"
    assert {one.id for one in await both.collect(c.pipeline_steps.list())} == {"s", "t"}
    done = await both.run(c.pipeline_steps.upload, b"content", "s")
    assert await both.run(c.pipeline_steps.versions("s").follow(done.version_id).wait)
    version = await both.run(c.pipeline_steps.versions("s").get, done.version_id)
    code = version.status.code
    listed = await both.collect(c.pipeline_steps.versions("s").list(status_codes=[code]))
    assert [one.id for one in listed] == [done.version_id]
    await both.run(c.pipeline_steps.versions("s").delete, done.version_id)
    await both.run(c.pipeline_steps.delete, ["s", "t"])
    assert await both.collect(c.pipeline_steps.list()) == []


async def test_artifacts(both: Both) -> None:
    c = both.client
    assert (await both.run(c.artifacts.create, "a")).id == "a"
    await both.run(c.artifacts.create_many, ["b"])
    done = await both.run(c.artifacts.upload, b"content", "a")
    assert (await both.run(c.artifacts.versions("a").get, done.version_id)).id == done.version_id
    stored = await both.run(c.artifacts.versions("a").follow(done.version_id).wait)
    assert stored.upload.status.code == v2.StatusCode.UPLOAD_DONE
    assert len(await both.collect(c.artifacts.versions("a").list())) == 1
    await both.run(c.artifacts.versions("a").delete, done.version_id)
    assert await both.collect(c.artifacts.versions("a").list()) == []
    assert (await both.run(c.artifacts.get, "a")).id == "a"
    await both.run(c.artifacts.delete, ["a", "b"])
    assert await both.collect(c.artifacts.list()) == []


async def test_uploads(both: Both) -> None:
    c = both.client
    done = await both.run(c.uploads.upload, b"content", name="x.bin")
    assert (await both.run(c.uploads.get, done.id)).content_name == "x.bin"
    assert [one.id for one in await both.collect(c.uploads.list())] == [done.id]
    assert (await both.run(c.uploads.follow(done).wait)).id == done.id
    await both.run(c.uploads.delete, done.id)
    assert await both.collect(c.uploads.list()) == []


async def test_logs(both: Both) -> None:
    c = both.client
    name = f"runner-{c.settings.app_id}"
    entry = v2.LogEntry(message="started", log_type="runner")
    entry.meta.runner_id = name
    await both.call("PostLogEntries", v2.PostLogEntriesRequest(log_entries=[entry]))
    found = await both.collect(c.logs.list("runner", runner_id=name))
    assert [one.message for one in found] == ["started"]
    followed = c.logs.stream("runner", runner_id=name)
    seen = []
    async for one in both.items(followed):
        seen.append(one.message)
        if len(seen) == 2:
            break
        entry.message = "went on"
        await both.call("PostLogEntries", v2.PostLogEntriesRequest(log_entries=[entry]))
    assert seen == ["started", "went on"]
    followed.cancel()
    with pytest.raises(errors.InvalidArgumentError):
        await both.collect(c.logs.stream(""))
