"""The gRPC and the REST front answer the same, to the blocking and to the asyncio client.

Each scenario runs once for every front and kind of client, in an app of its own, and checks what
it is answered. What was answered is kept as a transcript, without request ids, times and ids that
the server made; all transcripts of a scenario have to be equal.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, NamedTuple

import pytest
import pytest_asyncio
from google.protobuf import json_format
from google.protobuf.message import Message

from clarigrpc import errors, image, text, v2
from clarigrpc._descriptor_pool import POOL
from clarigrpc.local import LocalServer
from clarigrpc.v2._index import METHODS
from tests.both import Both, ClientKind
from tests.local.conftest import PUBLIC, png

Code = v2.StatusCode
Scenario = Callable[["Front"], Awaitable[None]]

_GENERATED = re.compile(r"\b[0-9a-f]{32}\b")
_TIME = re.compile(r"^\d{4}-\d\d-\d\dT[\d:.]+Z$")


class Kind(NamedTuple):
    """A way to the server."""

    transport: str
    client_kind: ClientKind


KINDS = [
    Kind("grpc", "sync"),
    Kind("grpc", "async"),
    Kind("rest", "sync"),
    Kind("rest", "async"),
]


def shout(words: str, times: int = 1) -> str:
    """A model of the default app."""
    return words.upper() * times


class Front:
    """A client of one front with an app to work in; keeps what it is answered.

    Attributes:
        client: The client.
        scope: The app.
        transcript: Every method called, with what came of it.
    """

    def __init__(self, server: LocalServer, kind: Kind, app_id: str) -> None:
        self._server = server
        self._kind = kind
        self._open: list[Both] = []
        self._names: dict[str, str] = {app_id: "<app>"}
        self.app_id = app_id
        self.scope = v2.UserAppIDSet(user_id=server.user_id, app_id=app_id)
        self.transcript: list[tuple[str, Any]] = []
        self.both = self.connect()
        self.client = self.both.client

    def connect(self, **settings: Any) -> Both:
        """A further client, with other credentials say."""
        rest = self._kind.transport == "rest"
        base = self._server.rest_base if rest else self._server.base
        settings.setdefault("pat", self._server.pat)
        both = Both(
            self._kind.client_kind,
            base=base,
            transport=self._kind.transport,
            user_id=self._server.user_id,
            app_id=self.app_id,
            timeout=20,
            **settings,
        )
        self._open.append(both)
        return both

    async def __call__(self, method: str, request: Any = None, **fields: Any) -> Any:
        """The response of a method to a request, or to one with these fields in JSON.

        Raises:
            errors.ApiError: It failed.
        """
        return await self.by(self.both, method, request, **fields)

    async def by(self, both: Both, method: str, request: Any = None, **fields: Any) -> Any:
        """Like a call of the front itself, by another client."""
        request_name, _, _, streams, *_ = METHODS[method]
        if request is None:
            request = json_format.ParseDict(fields, getattr(v2, request_name)())
        answers: list[Any] = []
        try:
            if streams:
                await both.collect(both.open(method, request), answers)
            else:
                answers.append(await both.call(method, request))
        except errors.ApiError as error:
            self.transcript.append((method, [*map(self._plain, answers), self._failure(error)]))
            raise
        self.transcript.append((method, list(map(self._plain, answers))))
        return answers if streams else answers[0]

    async def fails(self, kind: type[errors.ApiError], method: str, **fields: Any) -> Any:
        """The failure of a call, which has to be of this kind."""
        with pytest.raises(kind) as caught:
            await self(method, **fields)
        assert type(caught.value) is kind
        assert caught.value.method == method
        assert caught.value.request_id
        return caught.value

    async def run(self, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """What a method of the client's resources returns."""
        result = await self.both.run(function, *args, **options)
        self.transcript.append((function.__name__, self._plain(result)))
        return result

    async def settled(self) -> None:
        """Waits until no input is pending."""
        while True:
            counts = await self.both.call("GetInputCount", v2.GetInputCountRequest())
            if not (counts.counts.to_process or counts.counts.processing):
                return

    async def close(self) -> None:
        """Closes the clients."""
        for both in self._open:
            await both.close()

    def _failure(self, error: errors.ApiError) -> dict[str, Any]:
        told = {
            "type": type(error).__name__,
            "code": error.code,
            "description": error.description,
            "details": self._plain(error.details),
            "retryable": error.retryable,
        }
        if isinstance(error, errors.PartialFailureError):
            told["response"] = self._plain(error.response)
        return told

    def _plain(self, value: Any) -> Any:
        """Without what differs from run to run."""
        if isinstance(value, Message):
            value = json_format.MessageToDict(value, descriptor_pool=POOL)
        if isinstance(value, dict):
            return {key: self._plain(item) for key, item in value.items() if key != "reqId"}
        if isinstance(value, list | tuple):
            return [self._plain(item) for item in value]
        if not isinstance(value, str):
            return value
        if _TIME.match(value):
            return "<time>"
        plain = _GENERATED.sub(self._name, value)
        return plain.replace(self.app_id, "<app>")

    def _name(self, match: re.Match[str]) -> str:
        return self._names.setdefault(match[0], f"<id {len(self._names)}>")


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with LocalServer(rest_port=0, models={"shout": shout}) as running:
        yield running


@pytest.fixture(scope="module")
def transcripts() -> dict[str, Any]:
    """The first transcript of each scenario."""
    return {}


@pytest_asyncio.fixture(params=KINDS, ids="-".join)
async def front(server: LocalServer, request: pytest.FixtureRequest) -> AsyncIterator[Front]:
    kind: Kind = request.param
    scenario = request.node.callspec.params["scenario"].__name__
    app_id = f"{scenario}-{kind.transport}-{kind.client_kind}"
    with server.client() as client:
        client.v2.PostApps(v2.PostAppsRequest(apps=[v2.App(id=app_id)]))
    made = Front(server, kind, app_id)
    yield made
    await made.close()


async def add(front: Front, *inputs: dict[str, Any]) -> Any:
    response = await front("PostInputs", inputs=list(inputs))
    await front.settled()
    return response


def words(name: str, **data: Any) -> dict[str, Any]:
    """A text input."""
    return {"id": name, "data": {"text": {"raw": name}, **data}}


def picture(name: str, *colours: str, **data: Any) -> dict[str, Any]:
    """An image input."""
    encoded = json_format.MessageToDict(v2.Image(base64=png(*colours, size=4)))
    return {"id": name, "data": {"image": encoded, **data}}


async def inputs_life_cycle(front: Front) -> None:
    await add(
        front,
        words("one", concepts=[{"id": "cat", "value": 1}, {"id": "dog", "value": 0}]),
        picture("two", "red", metadata={"a": {"b": [1, None, "ü"]}}),
        {"data": {"text": {"raw": "without an id"}}},
    )
    one = (await front("GetInput", input_id="one")).input
    assert [(c.id, c.value) for c in one.data.concepts] == [("cat", 1), ("dog", 0)]
    counts = (await front("GetInputCount")).counts
    assert (counts.processed, counts.errors) == (3, 0)
    await front(
        "PatchInputs",
        action="merge",
        inputs=[
            {"id": "two", "data": {"concepts": [{"id": "red", "value": 1}], "metadata": {"c": 2}}}
        ],
    )
    two = (await front("GetInput", input_id="two")).input
    assert dict(two.data.metadata.items())["c"] == 2
    await front(
        "PatchInputs",
        action="remove",
        inputs=[{"id": "one", "data": {"concepts": [{"id": "dog"}]}}],
    )
    one = (await front("GetInput", input_id="one")).input
    assert [c.id for c in one.data.concepts] == ["cat"]
    await front("DeleteInput", input_id="one")
    await front("DeleteInputs", ids=["two"])
    while len((await front.both.call("ListInputs", v2.ListInputsRequest())).inputs) > 1:
        pass
    await front.fails(errors.NotFoundError, "GetInput", input_id="one")
    assert len((await front("ListInputs")).inputs) == 1


async def inputs_by_the_resource(front: Front) -> None:
    inputs = front.client.inputs
    await front.run(inputs.create, [text("x", id="a"), image(png("blue", size=4), id="b")])
    await front.settled()
    assert (await front.run(inputs.get, "b")).id == "b"
    await front.run(inputs.merge_concepts, "a", ["cat"])
    assert [c.id for c in (await front.run(inputs.get, "a")).data.concepts] == ["cat"]
    listed = await front.both.collect(inputs.list())
    assert sorted(item.id for item in listed) == ["a", "b"]
    streamed = await front.both.collect(inputs.stream())
    assert sorted(item.id for item in streamed) == ["a", "b"]
    await front.run(inputs.delete, ["a"])


async def partial_failures(front: Front) -> None:
    await add(front, words("there"))
    with pytest.raises(errors.PartialFailureError) as caught:
        await front("PostInputs", inputs=[words("there"), words("new")])
    assert caught.value.code == Code.MIXED_STATUS
    response: Any = caught.value.response
    assert response.inputs[0].status.code == Code.INPUT_DUPLICATE
    assert len(caught.value.failed) == 1
    await front.settled()
    assert (await front("GetInputCount")).counts.processed == 2
    with pytest.raises(errors.PartialFailureError) as all_failed:
        await front("PostInputs", inputs=[words("there"), words("new")])
    assert all_failed.value.code == Code.FAILURE
    request = v2.PostModelOutputsRequest(user_app_id=PUBLIC, model_id="color-recognition")
    request.inputs.add().data.image.base64 = png("red", size=4)
    request.inputs.add().data.image.base64 = b"no image"
    with pytest.raises(errors.PartialFailureError) as mixed:
        await front("PostModelOutputs", request)
    response = mixed.value.response
    assert [len(output.data.colors) for output in response.outputs] == [1, 0]


async def paging(front: Front) -> None:
    await add(front, *(words(f"{number}") for number in range(7)))
    seen: list[str] = []
    for page in (1, 2, 3, 4):
        response = await front("ListInputs", page=page, per_page=3)
        seen += [item.id for item in response.inputs]
    assert sorted(seen) == [str(number) for number in range(7)]
    assert len(await front.both.collect(front.client.inputs.list(per_page=2))) == 7
    first = await front("StreamInputs", per_page=4)
    rest = await front("StreamInputs", per_page=4, last_id=first.inputs[-1].id)
    assert len({item.id for item in (*first.inputs, *rest.inputs)}) == 7
    await front.fails(errors.InvalidArgumentError, "ListInputs", per_page=1001)


async def concepts(front: Front) -> None:
    made = await front("PostConcepts", concepts=[{"id": "cat", "name": "Cat"}, {"id": "dög/1"}])
    assert [concept.id for concept in made.concepts] == ["cat", "dög/1"]
    assert (await front("GetConcept", concept_id="dög/1")).concept.id == "dög/1"
    found = await front("PostConceptsSearches", concept_query={"name": "ca*"})
    # Public ones come after those of the app.
    assert found.concepts[0].id == "cat"
    assert {concept.app_id for concept in found.concepts[1:]} == {"main"}
    await front("PatchConcepts", action="overwrite", concepts=[{"id": "cat", "name": "Felis"}])
    assert (await front("GetConcept", concept_id="cat")).concept.name == "Felis"
    await front(
        "PostConceptLanguages", concept_id="cat", concept_languages=[{"id": "de", "name": "K"}]
    )
    assert len((await front("ListConceptLanguages", concept_id="cat")).concept_languages) >= 1
    await front.fails(errors.AlreadyExistsError, "PostConcepts", concepts=[{"id": "cat"}])
    await front.fails(errors.NotFoundError, "GetConcept", concept_id="none")
    assert len((await front("ListConcepts")).concepts) == 2


async def annotating(front: Front) -> None:
    await add(front, picture("in", "red", "blue"))
    box = {"top_row": 0.1, "left_col": 0.2, "bottom_row": 0.5, "right_col": 0.75}
    made = await front(
        "PostAnnotations",
        annotations=[
            {
                "input_id": "in",
                "data": {
                    "regions": [
                        {
                            "region_info": {"bounding_box": box},
                            "data": {"concepts": [{"id": "red"}]},
                        }
                    ]
                },
            }
        ],
    )
    (annotation,) = made.annotations
    got = await front("GetAnnotation", input_id="in", annotation_id=annotation.id)
    assert got.annotation.data.regions[0].data.concepts[0].id == "red"
    listed = await front("ListAnnotations", input_ids=["in"], list_all_annotations=True)
    assert annotation.id in {each.id for each in listed.annotations}
    await front("DeleteAnnotation", input_id="in", annotation_id=annotation.id)
    await front.fails(
        errors.NotFoundError, "GetAnnotation", input_id="in", annotation_id=annotation.id
    )


async def datasets(front: Front) -> None:
    await add(front, words("one"), words("two"))
    await front("PostDatasets", datasets=[{"id": "train", "metadata": {"k": "v"}}])
    added = await front(
        "PostDatasetInputs",
        dataset_id="train",
        dataset_inputs=[{"input": {"id": "one"}}, {"input": {"id": "two"}}],
    )
    assert [item.input.id for item in added.dataset_inputs] == ["one", "two"]
    assert len((await front("ListDatasetInputs", dataset_id="train")).dataset_inputs) == 2
    await front("DeleteDatasetInputs", dataset_id="train", input_ids=["one"])
    assert len((await front("ListDatasetInputs", dataset_id="train")).dataset_inputs) == 1
    patched = await front(
        "PatchDatasets", action="overwrite", datasets=[{"id": "train", "description": "new"}]
    )
    assert patched.datasets[0].description == "new"
    await front("DeleteDatasets", dataset_ids=["train"])
    await front.fails(errors.NotFoundError, "GetDataset", dataset_id="train")


async def models(front: Front) -> None:
    await front("PostModels", models=[{"id": "m", "model_type_id": "any-to-any", "notes": "M"}])
    assert (await front("GetModel", model_id="m")).model.notes == "M"
    await front("PatchModels", action="overwrite", models=[{"id": "m", "description": "new"}])
    listed = await front("ListModels")
    assert [(model.id, model.description) for model in listed.models] == [("m", "new")]
    assert not (await front("ListModelVersions", model_id="m")).model_versions
    await front.fails(errors.NotFoundError, "GetModel", model_id="none")
    await front("DeleteModel", model_id="m")
    assert not (await front("ListModels")).models
    public = await front("ListModels", user_app_id={"user_id": "clarifai", "app_id": "main"})
    assert "color-recognition" in {model.id for model in public.models}


async def training(front: Front) -> None:
    await add(
        front,
        picture("warm", "red", concepts=[{"id": "warm", "value": 1}]),
        picture("cold", "blue", concepts=[{"id": "cold", "value": 1}]),
    )
    await front("PostModels", models=[{"id": "m", "model_type_id": "visual-classifier"}])
    made = await front("PostModelVersions", model_id="m", model_versions=[{}])
    version_id = made.model.model_version.id
    await front.run(front.client.models.wait_trained, "m")
    version = (await front("GetModelVersion", model_id="m", version_id=version_id)).model_version
    assert version.status.code == Code.MODEL_TRAINED
    request = v2.PostModelOutputsRequest(model_id="m")
    request.inputs.add().data.image.base64 = png("red", size=4)
    (output,) = (await front("PostModelOutputs", request)).outputs
    assert output.data.concepts[0].id == "warm"


async def apps_and_keys(front: Front) -> None:
    copy = f"{front.app_id}-2"
    user = {"user_id": front.scope.user_id}
    await front("PostApps", user_app_id=user, apps=[{"id": copy, "description": "other"}])
    other = {**user, "app_id": copy}
    assert (await front("GetApp", user_app_id=other)).app.description == "other"
    await front("PostConcepts", user_app_id=other, concepts=[{"id": "only-here"}])
    assert not (await front("ListConcepts")).concepts
    key = {"scopes": ["Concepts_Get", "Apps_Get"], "apps": [{"id": copy}]}
    made = (await front("PostKeys", user_app_id=user, keys=[key])).keys[0]
    reader = front.connect(pat=None, api_key=made.id)
    listed = await front.by(reader, "ListConcepts", user_app_id=other)
    assert [concept.id for concept in listed.concepts] == ["only-here"]
    with pytest.raises(errors.PermissionDeniedError):
        await front.by(reader, "ListConcepts")
    await front("DeleteKey", user_app_id=user, key_id=made.id)
    with pytest.raises(errors.AuthenticationError):
        await front.by(reader, "ListConcepts", user_app_id=other)
    await front("DeleteApp", user_app_id=other)
    await front.fails(errors.NotFoundError, "GetApp", user_app_id=other)


async def workflows(front: Front) -> None:
    colours = {"id": "color-recognition", "user_id": "clarifai", "app_id": "main"}
    await front("PostWorkflows", workflows=[{"id": "w", "nodes": [{"id": "n", "model": colours}]}])
    request = v2.PostWorkflowResultsRequest(workflow_id="w")
    request.inputs.add().data.image.base64 = png("red", size=4)
    results = await front("PostWorkflowResults", request)
    (output,) = results.results[0].outputs
    assert output.data.colors[0].w3c.name == "Red"
    unknown = [{"id": "n", "model": {"id": "none"}}]
    await front.fails(
        errors.NotFoundError, "PostWorkflows", workflows=[{"id": "x", "nodes": unknown}]
    )
    assert [workflow.id for workflow in (await front("ListWorkflows")).workflows] == ["w"]
    assert len((await front("ListWorkflowVersions", workflow_id="w")).workflow_versions) == 1


async def searches(front: Front) -> None:
    place = {"geo": {"geo_point": {"latitude": 52.5, "longitude": 13.4}}}
    await add(
        front,
        picture("red", "red", concepts=[{"id": "warm", "value": 1}], metadata={"n": 1}),
        picture("blue", "blue", concepts=[{"id": "warm", "value": 0}], **place),
        picture("pink", "pink", metadata={"n": 2}),
    )
    by_concept = {"filters": [{"annotation": {"data": {"concepts": [{"id": "warm", "value": 1}]}}}]}
    found = await front("PostInputsSearches", searches=[{"query": by_concept}])
    assert [hit.input.id for hit in found.hits] == ["red"]
    by_metadata = {"filters": [{"annotation": {"data": {"metadata": {"n": 2}}}}]}
    found = await front("PostInputsSearches", searches=[{"query": by_metadata}])
    assert [hit.input.id for hit in found.hits] == ["pink"]
    request = v2.PostInputsSearchesRequest()
    rank = request.searches.add().query.ranks.add()
    rank.annotation.data.image.base64 = png("red", size=4)
    ranked = await front("PostInputsSearches", request)
    assert ranked.hits[0].input.id == "red"
    request.pagination.page, request.pagination.per_page = 2, 1
    second = await front("PostInputsSearches", request)
    assert second.hits == ranked.hits[1:2]
    await front(
        "PostSearches", searches=[{"id": "saved", "name": "s", "save": True, "query": by_metadata}]
    )
    again = await front("PostSearchesByID", id="saved")
    assert [hit.input.id for hit in again.hits] == ["pink"]


async def predictions(front: Front) -> None:
    request = v2.PostModelOutputsRequest(user_app_id=PUBLIC, model_id="color-recognition")
    for client_kind in ("red", "blue"):
        request.inputs.add().data.image.base64 = png(client_kind, size=4)
    outputs = (await front("PostModelOutputs", request)).outputs
    assert [output.data.colors[0].w3c.name for output in outputs] == ["Red", "Blue"]
    words_of = v2.PostModelOutputsRequest(user_app_id=PUBLIC, model_id="text-stream")
    words_of.inputs.add().data.text.raw = "one two three"
    pieces = await front("GenerateModelOutputs", words_of)
    assert "".join(p.outputs[0].data.text.raw for p in pieces) == "one two three"
    model = front.client.model("shout", app_id="local-app")
    assert await front.run(model.call, "predict", words="hé", times=2) == "HÉHÉ"
    missing = v2.PostModelOutputsRequest(model_id="none", inputs=[v2.Input()])
    with pytest.raises(errors.NotFoundError):
        await front("PostModelOutputs", missing)
    with pytest.raises(errors.NotFoundError):
        await front("GenerateModelOutputs", missing)


async def failures(front: Front) -> None:
    empty = await front.fails(errors.InvalidArgumentError, "PostInputs")
    assert empty.code == Code.INPUT_INVALID_REQUEST
    many = [words(f"{number}") for number in range(129)]
    await front.fails(errors.InvalidArgumentError, "PostInputs", inputs=many)
    await front.fails(
        errors.InvalidArgumentError, "PatchInputs", action="twist", inputs=[words("x")]
    )
    await front.fails(errors.NotFoundError, "GetDataset", dataset_id="x y/z?&%ü")
    unimplemented = await front.fails(errors.UnimplementedError, "ListPipelineTemplates")
    assert not unimplemented.retryable
    elsewhere = {"user_id": "nobody", "app_id": "none"}
    await front.fails(errors.NotFoundError, "ListInputs", user_app_id=elsewhere)
    public = {"user_id": "clarifai", "app_id": "main"}
    await front.fails(
        errors.PermissionDeniedError, "PostInputs", user_app_id=public, inputs=[words("x")]
    )


async def wrong_credentials(front: Front) -> None:
    for settings in ({"pat": "wrong"}, {"pat": None, "session_token": "wrong"}):
        with pytest.raises(errors.AuthenticationError):
            await front.by(front.connect(**settings), "ListInputs")
    app = {"id": front.app_id, "user_id": front.scope.user_id}
    scopes = ["Inputs_Get", "Annotations_Get", "Concepts_Get", "Apps_Get"]
    reading = (await front("PostKeys", keys=[{"scopes": scopes, "apps": [app]}])).keys[0]
    reader = front.connect(pat=None, api_key=reading.id)
    assert not (await front.by(reader, "ListInputs")).inputs
    with pytest.raises(errors.PermissionDeniedError):
        await front.by(reader, "PostInputs", inputs=[words("x")])
    past = {"scopes": ["All"], "apps": [app], "expires_at": "2020-01-01T00:00:00Z"}
    expired = (await front("PostKeys", keys=[past])).keys[0]
    with pytest.raises(errors.AuthenticationError):
        await front.by(front.connect(pat=None, api_key=expired.id), "ListInputs")


SCENARIOS: list[Scenario] = [
    inputs_life_cycle,
    inputs_by_the_resource,
    partial_failures,
    paging,
    concepts,
    annotating,
    datasets,
    models,
    training,
    apps_and_keys,
    workflows,
    searches,
    predictions,
    failures,
    wrong_credentials,
]


# Saved searches are deprecated, and work.
@pytest.mark.filterwarnings("ignore:PostSearches:DeprecationWarning")
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
async def test_scenario(scenario: Scenario, front: Front, transcripts: dict[str, Any]) -> None:
    await scenario(front)
    assert front.transcript
    assert front.transcript == transcripts.setdefault(scenario.__name__, front.transcript)
