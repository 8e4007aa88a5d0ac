"""Labelling work: orders, tasks, who gets which input, and what reviewers decide."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from clarigrpc import v2
from tests.local.conftest import Raw, message, ok, settled

Code = v2.StatusCode
Action = v2.PutTaskAssignmentsRequestAction

NAMES = ("a", "b", "c", "d", "e", "f", "g", "h")


@pytest.fixture(params=["grpc", "rest"])
def front(request: pytest.FixtureRequest) -> str:
    """Every test runs over both fronts."""
    return str(request.param)


class Team:
    """An owner's app with some texts, and two labelers who share it."""

    def __init__(self, owner: Raw) -> None:
        self.owner = owner
        self.app = v2.UserAppIDSet(user_id="owner", app_id="shared")
        self.ann, self.bob = owner.with_key("ann-pat"), owner.with_key("bob-pat")
        for name in ("ann", "bob"):
            share = v2.PostCollaboratorsRequest(user_app_id=self.app)
            share.collaborators.add(scopes=["All"]).user.id = name
            ok(owner("PostCollaborators", share))
        request = v2.PostInputsRequest(user_app_id=self.app)
        for name in NAMES:
            request.inputs.add(id=name).data.text.raw = name
        ok(owner("PostInputs", request))
        for name in NAMES:
            settled(owner, name)

    def task(self, **fields: Any) -> v2.Task:
        request = message(v2.PostTasksRequest, tasks=[{"id": "t", "name": "t", **fields}])
        request.user_app_id.CopyFrom(self.app)
        made: v2.Task = ok(self.owner("PostTasks", request)).tasks[0]
        return made

    def next(self, labeler: Raw) -> list[str]:
        request = v2.ListNextTaskAssignmentsRequest(user_app_id=self.app, task_id="t")
        return [item.id for item in ok(labeler("ListNextTaskAssignments", request)).inputs]

    def put(self, labeler: Raw, action: int, **fields: Any) -> v2.MultiTaskAssignmentResponse:
        request = message(v2.PutTaskAssignmentsRequest, task_id="t", action=action, **fields)
        request.user_app_id.CopyFrom(self.app)
        response: v2.MultiTaskAssignmentResponse = labeler("PutTaskAssignments", request)
        return response

    def label(self, labeler: Raw, input_id: str) -> None:
        """Starts the work on an input and labels it."""
        ok(self.put(labeler, Action.LABEL_START, input_id=input_id))
        request = v2.PostAnnotationsRequest(user_app_id=self.app)
        status = {"code": Code.ANNOTATION_PENDING}
        fields = {"input_id": input_id, "task_id": "t", "status": status}
        request.annotations.append(message(v2.Annotation, **fields, data={}))
        ok(labeler("PostAnnotations", request))

    def counts(self) -> dict[str, v2.TaskStatusCountPerUser]:
        request = v2.GetTaskCountRequest(user_app_id=self.app, task_id="t")
        found = ok(self.owner("GetTaskInputCount", request)).counts
        return {count.user_id: count for count in found}


@pytest.fixture
def team(serve: Callable[..., Raw]) -> Team:
    users = [
        {"id": "owner", "apps": [{"id": "shared"}]},
        {"id": "ann", "pat": "ann-pat"},
        {"id": "bob", "pat": "bob-pat"},
    ]
    return Team(serve(config={"users": users}))


WORKERS = {"workers": [{"user": {"id": "ann"}}, {"user": {"id": "bob"}}]}


def test_every_worker_labels_every_input(team: Team) -> None:
    team.task(worker={**WORKERS, "strategy": "FULL"})
    assert team.next(team.ann) == team.next(team.bob) == list(NAMES)
    assert team.next(team.owner) == []
    refused = team.put(team.owner, Action.LABEL_START, input_id="a")
    assert refused.status.code == Code.TASK_PERMISSION_DENIED


@pytest.mark.parametrize("each", [1, 2])
def test_parts_of_workers(team: Team, each: int) -> None:
    info = {"type": "EVENLY", "workers_per_input": each}
    team.task(worker={**WORKERS, "strategy": "PARTITIONED", "partitioned_strategy_info": info})
    parts = [team.next(team.ann), team.next(team.bob)]
    assert sorted(parts[0] + parts[1]) == sorted(NAMES * each)
    assert all(parts)


def test_who_comes_first_gets_the_input(team: Team) -> None:
    team.task(worker={**WORKERS, "strategy": "DYNAMIC"})
    ok(team.put(team.ann, Action.LABEL_START, input_id="a"))
    assert "a" in team.next(team.ann)
    assert "a" not in team.next(team.bob)


def test_a_review(team: Team) -> None:
    reviewers = {"strategy": "MANUAL", "users": [{"id": "bob"}]}
    team.task(worker=WORKERS, review=reviewers)
    early = team.put(team.ann, Action.LABEL_SUBMIT, input_id="a")
    assert early.task_assignments[0].status.code == Code.TASK_CONFLICT
    for name in "abc":
        team.label(team.ann, name)
    hand_in = {"task_assignments": [{"input": {"id": name}} for name in "abc"]}
    sent = ok(team.put(team.ann, Action.LABEL_SUBMIT, label_submit_config=hand_in))
    assert {a.status.code for a in sent.task_assignments} == {Code.TASK_ASSIGNMENT_AWAITING_REVIEW}
    assert team.counts()["ann"].awaiting_review == 3
    assert team.next(team.ann) == list("defgh")
    ann = {"workers": [{"user": {"id": "ann"}}]}
    assert (
        team.put(team.ann, Action.REVIEW_START, review_start_config=ann).status.code
        == Code.TASK_PERMISSION_DENIED
    )
    waiting = ok(team.put(team.bob, Action.REVIEW_START, review_start_config=ann))
    assert [a.input.id for a in waiting.task_assignments] == list("abc")

    def one(name: str) -> dict[str, Any]:
        return {"task_assignments": [{"input": {"id": name}, "worker": {"user": {"id": "ann"}}}]}

    ok(team.put(team.bob, Action.REVIEW_REQUEST_CHANGES, review_request_changes_config=one("a")))
    ok(team.put(team.bob, Action.REVIEW_REJECT, review_reject_config=one("b")))
    ok(team.put(team.bob, Action.REVIEW_APPROVE, review_approve_config=ann))
    count = team.counts()["ann"]
    assert (count.pending, count.review_denied, count.success) == (1, 1, 1)
    assert team.next(team.ann)[0] == "a"
    mixed = {"task_assignments": [{"input": {"id": "a"}}, {"input": {"id": "b"}}]}
    again = team.put(team.ann, Action.LABEL_SUBMIT, label_submit_config=mixed)
    assert again.status.code == Code.MIXED_STATUS
    samples = v2.GetInputSamplesRequest(user_app_id=team.app, task_id="t", user_ids=["ann"])
    hits = ok(team.owner("GetInputSamples", samples)).hits
    assert {hit.input.id for hit in hits} == {"a", "b", "c"}


def test_sources_of_inputs(team: Team) -> None:
    datasets = v2.PostDatasetsRequest(user_app_id=team.app, datasets=[v2.Dataset(id="d")])
    ok(team.owner("PostDatasets", datasets))
    join = v2.PostDatasetInputsRequest(user_app_id=team.app, dataset_id="d")
    join.dataset_inputs.add().input.id = "c"
    ok(team.owner("PostDatasetInputs", join))
    saved = message(
        v2.PostInputsSearchesRequest,
        searches=[{"id": "s", "save": True, "query": {"filters": [{"input": {"id": "e"}}]}}],
    )
    saved.user_app_id.CopyFrom(team.app)
    ok(team.owner("PostInputsSearches", saved))
    sources = (("DATASET", "d", "c"), ("SAVED_SEARCH", "s", "e"), ("INPUT", "h", "h"))
    for kind, source, expected in sources:
        team.task(input_source={"type": kind, "id": source})
        assert team.next(team.owner) == [expected]
        delete = v2.DeleteTasksRequest(user_app_id=team.app, ids=["t"])
        ok(team.owner("DeleteTasks", delete))
        missing = {"id": "x", "input_source": {"type": kind, "id": "none"}}
        request = message(v2.PostTasksRequest, tasks=[missing])
        request.user_app_id.CopyFrom(team.app)
        assert team.owner("PostTasks", request).status.code == Code.CONN_INVALID_REQUEST


def test_orders_and_their_tasks(team: Team) -> None:
    order = {"id": "order", "task": {"name": "boxes", "type": "BOUNDING_BOX_DETECTION"}}
    request = message(v2.PostLabelOrdersRequest, label_orders=[order])
    request.user_app_id.CopyFrom(team.app)
    made = ok(team.owner("PostLabelOrders", request)).label_orders[0]
    assert made.task.label_order_id == "order"
    listing = v2.ListTasksRequest(user_app_id=team.app)
    assert not ok(team.owner("ListTasks", listing)).tasks
    listing.including_label_order_tasks = True
    assert [task.id for task in ok(team.owner("ListTasks", listing)).tasks] == [made.task.id]
    change = {"id": "order", "task": {"description": "new"}}
    patch = message(v2.PatchLabelOrdersRequest, action="merge", label_orders=[change])
    patch.user_app_id.CopyFrom(team.app)
    patched = ok(team.owner("PatchLabelOrders", patch)).label_orders[0]
    assert (patched.task.description, patched.task.name) == ("new", "boxes")
    delete = v2.DeleteLabelOrdersRequest(user_app_id=team.app, ids=["order"])
    ok(team.owner("DeleteLabelOrders", delete))
    assert not ok(team.owner("ListTasks", listing)).tasks
