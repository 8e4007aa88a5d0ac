"""A server with some of everything, so that random requests reach the code behind lookups."""

from __future__ import annotations

import logging
import random
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from clarigrpc import v2
from clarigrpc.local import LocalServer
from clarigrpc.v2._index import METHODS
from tests.local.conftest import png

Code = v2.StatusCode
TIMEOUT = 15.0
"""Seconds after which a call counts as hanging."""

_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_ACTIONS = ("merge", "overwrite", "remove", "delete", "delete_concepts")
_COLOURS = {"id": "color-recognition", "user_id": "clarifai", "app_id": "main"}
_REGION = {"region_info": {"bounding_box": {"top_row": 0.1, "bottom_row": 0.9, "right_col": 0.5}}}

# One of each kind, in an order in which what is referred to comes first. {name} is an id of
# what the server made before.
_POPULATION: tuple[tuple[str, dict[str, Any]], ...] = (
    ("PostConcepts", {"concepts": [{"id": "cat"}, {"id": "dog"}]}),
    (
        "PostInputs",
        {
            "inputs": [
                {"id": "words", "data": {"text": {"raw": "a cat"}, "concepts": [{"id": "cat"}]}},
                {
                    "id": "picture",
                    "data": {
                        "image": {"base64": "PICTURE"},
                        "concepts": [{"id": "dog", "value": 1}],
                        "metadata": {"a": {"b": [1, None, "x"]}},
                        "geo": {"geo_point": {"latitude": 1, "longitude": 2}},
                    },
                },
            ]
        },
    ),
    (
        "PostAnnotations",
        {
            "annotations": [
                {
                    "id": "annotation",
                    "input_id": "picture",
                    "data": {"regions": [{**_REGION, "data": {"concepts": [{"id": "cat"}]}}]},
                }
            ]
        },
    ),
    ("PostDatasets", {"datasets": [{"id": "dataset"}]}),
    (
        "PostDatasetInputs",
        {"dataset_id": "dataset", "dataset_inputs": [{"input": {"id": "words"}}]},
    ),
    (
        "PostDatasetVersions",
        {
            "dataset_id": "dataset",
            "dataset_versions": [{"id": "dataset_version", "annotation_filter_config": {}}],
        },
    ),
    ("PostAnnotationFilters", {"annotation_filters": [{"id": "annotation_filter"}]}),
    ("PostModels", {"models": [{"id": "model", "model_type_id": "any-to-any"}]}),
    (
        "PostWorkflows",
        {"workflows": [{"id": "workflow", "nodes": [{"id": "n", "model": _COLOURS}]}]},
    ),
    ("PostApps", {"apps": [{"id": "second"}]}),
    ("PostSearches", {"searches": [{"id": "search", "name": "x", "save": True}]}),
    ("PostModules", {"modules": [{"id": "module", "description": "x"}]}),
    ("PostModuleVersions", {"module_id": "module", "module_versions": [{"id": "1"}]}),
    ("PostTasks", {"tasks": [{"id": "task", "name": "x"}]}),
    ("PostLabelOrders", {"label_orders": [{"id": "label_order", "name": "x"}]}),
    ("PostComputeClusters", {"compute_clusters": [{"id": "cluster"}]}),
    ("PostNodepools", {"compute_cluster_id": "cluster", "nodepools": [{"id": "nodepool"}]}),
    ("PostRunners", {"runners": [{"id": "runner"}]}),
    ("PostDeployments", {"deployments": [{"id": "deployment"}]}),
    ("PostPipelines", {"pipelines": [{"id": "pipeline", "pipeline_version": {"id": "1"}}]}),
    ("PostPipelineSteps", {"pipeline_steps": [{"id": "pipeline_step"}]}),
    ("PostArtifacts", {"artifacts": [{"id": "artifact"}]}),
    ("PostUploads", {"uploads": [{"id": "upload", "content_name": "x", "content_length": "3"}]}),
    ("PostKeys", {"keys": [{"scopes": ["All"], "apps": [{"id": "local-app"}]}]}),
    ("PostSecrets", {"secrets": [{"id": "secret", "value": "x"}]}),
    ("ListAnnotations", {}),
    ("ListModels", {}),
    ("ListWorkflowVersions", {"workflow_id": "workflow"}),
    ("ListKeys", {}),
)

ENDLESS = frozenset({"StreamLogEntries"})
"""Methods whose answers come until the caller leaves: one is read."""


class World:
    """A server, its clients, and the ids of what it has.

    Attributes:
        server: The server; another one after ``renew``.
        web: A client of its REST front.
        ids: Ids of what it has from the start, by the name of the request field that takes them,
            ``input_id`` say.
        strange: Ids that random requests have made.
        failures: What the server logged as errors.
    """

    def __init__(self) -> None:
        self.failures: list[logging.LogRecord] = []
        self._handler = _Collector(self.failures)
        self._start()

    def _start(self) -> None:
        self.ids: dict[str, list[str]] = defaultdict(list)
        self.strange: dict[str, list[str]] = defaultdict(list)
        self.server = LocalServer(
            rest_port=0, build_seconds=0, workers=16, models={"shout": _shout}
        ).start()
        self._channel = grpc.insecure_channel(self.server.address)
        self.stub = v2.V2Stub(self._channel)
        self.metadata = (("authorization", f"Key {self.server.pat}"),)
        self.web = httpx.Client(
            base_url=self.server.rest_base or "",
            headers={"authorization": f"Key {self.server.pat}"},
            trust_env=False,
            timeout=TIMEOUT,
        )
        logging.getLogger("clarigrpc.local").addHandler(self._handler)
        for method, response in self._populate():
            assert response.status.code == Code.SUCCESS, (method, response.status)
            _learn(response, self.ids)
        self.ids["model_id"] += [model.id for model in self._public_models()]
        self.ids["version_id"] = [
            found for name, known in self.ids.items() if "version" in name for found in known
        ]

    def _public_models(self) -> Any:
        scope = v2.UserAppIDSet(user_id="clarifai", app_id="main")
        return self.call("ListModels", [v2.ListModelsRequest(user_app_id=scope)])[0].models

    def _populate(self) -> Iterator[tuple[str, Any]]:
        for method, fields in _POPULATION:
            request = json_format.ParseDict(fields, getattr(v2, METHODS[method][0])())
            for item in getattr(request, "inputs", ()):
                if item.id == "picture":
                    item.data.image.base64 = png("red", "blue", size=4)
            yield method, self.call(method, [request])[0]

    def close(self) -> None:
        """Ends server and clients."""
        logging.getLogger("clarigrpc.local").removeHandler(self._handler)
        self.web.close()
        self._channel.close()
        self.server.close(grace=0.2)

    def renew(self) -> None:
        """Makes good what requests have taken away; on another server where that fails."""
        codes = [response.status.code for _, response in self._populate()]
        if Code.SUCCESS not in codes[-4:]:
            self.close()
            self._start()

    def renew_after(self, name: str) -> None:
        """Renews after what may have taken away, by the name of what was tried."""
        if name.startswith("Delete"):
            self.renew()

    def call(self, method: str, requests: list[Any]) -> list[Any]:
        """The responses to one request, or to several where the method takes a stream.

        Raises:
            grpc.RpcError: There is none.
        """
        _, _, many, streams, *_ = METHODS[method]
        call = getattr(self.stub, method)
        payload = iter(requests) if many else requests[0]
        result = call(payload, metadata=self.metadata, timeout=TIMEOUT)
        if method in ENDLESS:
            responses = [next(result)]
            result.cancel()
        else:
            responses = list(result) if streams else [result]
        for response in responses:
            _learn(response, self.strange)
        return responses

    def aim(self, request: Any, number: int) -> None:
        """Replaces most ids in a random request by existing ones; ``number`` decides which."""
        dice = random.Random(number)
        for field in request.DESCRIPTOR.fields:
            # Without an item most requests are refused at once.
            if field.is_repeated and field.message_type is not None and dice.random() < 0.8:
                items = getattr(request, field.name)
                if not items and not field.message_type.GetOptions().map_entry:
                    items.add()
        self._aim(request, dice)

    def _aim(self, message: Any, dice: random.Random) -> None:
        if isinstance(message, v2.UserAppIDSet):
            message.CopyFrom(dice.choice(self._scopes()))
            return
        for field in message.DESCRIPTOR.fields:
            if field.message_type is not None:
                if field.message_type is v2.UserAppIDSet.DESCRIPTOR and not field.is_repeated:
                    self._aim(getattr(message, field.name), dice)
                else:
                    for child in _children(message, field):
                        self._aim(child, dice)
            elif dice.random() < 0.8:
                self._aim_field(message, field, dice)

    def _aim_field(self, message: Any, field: FieldDescriptor, dice: random.Random) -> None:
        name = field.name
        if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            known = self._known(message, name, dice)
            if field.is_repeated and getattr(message, name) and known:
                del getattr(message, name)[:]
                getattr(message, name).extend(dice.choices(known, k=2))
            elif not field.is_repeated and known and _may_set(message, field, dice):
                setattr(message, name, dice.choice(known))
        elif name in ("page", "per_page") and not field.is_repeated:
            setattr(message, name, getattr(message, name) % 100)
        elif name == "base64" and message.base64 and dice.random() < 0.5:
            message.base64 = png("red", "green", size=4)

    def _known(self, message: Any, name: str, dice: random.Random) -> list[str]:
        if name == "action":
            return list(_ACTIONS)
        if name == "version_id" and dice.random() < 0.5:
            return [""]
        if name in ("url", "image_url"):
            return ["http://127.0.0.1:9/nothing", "http://10.0.0.1/", "file:///etc/passwd", "x"]
        single = name.removesuffix("s")
        if single == "id":
            plain = message.DESCRIPTOR.name.removeprefix("Delete").removesuffix("Request")
            single = f"{_WORD_START.sub('_', plain).lower().removesuffix('s')}_id"
        # Mostly of the first ones: what came since has often gone again.
        known = self.ids if dice.random() < 0.8 else self.strange
        return known.get(single, [])

    def _scopes(self) -> list[v2.UserAppIDSet]:
        own = v2.UserAppIDSet(user_id=self.server.user_id, app_id=self.server.app_id)
        return [
            *[v2.UserAppIDSet(), own] * 8,
            v2.UserAppIDSet(user_id="me", app_id="second"),
            v2.UserAppIDSet(user_id="clarifai", app_id="main"),
            v2.UserAppIDSet(user_id="me"),
            v2.UserAppIDSet(user_id="nobody", app_id="\x00"),
        ]

    def check(self, what: object) -> None:
        """Fails where the server logged an error since the last check."""
        if self.failures:
            record = self.failures[0]
            self.failures.clear()
            error = record.exc_info[1] if record.exc_info else None
            raise AssertionError(f"{record.getMessage()}\n{what}") from error

    def still_works(self) -> None:
        """Fails unless both fronts answer correctly."""
        request = v2.PostModelOutputsRequest(
            user_app_id=v2.UserAppIDSet(user_id="clarifai", app_id="main"),
            model_id="color-recognition",
        )
        request.inputs.add().data.image.base64 = png("red")
        (response,) = self.call("PostModelOutputs", [request])
        assert [color.w3c.name for color in response.outputs[0].data.colors] == ["Red"]
        answer = self.web.get("/v2/users/clarifai/apps/main/models/color-recognition")
        assert answer.status_code == 200
        assert answer.json()["model"]["id"] == "color-recognition"


def _learn(message: Message, ids: dict[str, list[str]]) -> None:
    """Keeps the ids of resources in a response."""
    for field, value in message.ListFields():
        if field.message_type is not None:
            for child in _children(message, field):
                _learn(child, ids)
        elif field.name == "id" and isinstance(value, str):
            name = _WORD_START.sub("_", message.DESCRIPTOR.name).lower()
            known = ids[f"{name}_id"]
            if value not in known and len(known) < 20:
                known.append(value)


def _shout(words: str, times: int = 1) -> str:
    return words.upper() * min(times, 3)


class _Collector(logging.Handler):
    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__(logging.ERROR)
        self._records = records

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append(record)


def _children(message: Any, field: FieldDescriptor) -> Iterator[Any]:
    """The messages that a field holds; not those of maps and well-known types."""
    kind = field.message_type
    assert kind is not None
    if kind.GetOptions().map_entry or kind.full_name.startswith("google."):
        return
    if field.is_repeated:
        yield from getattr(message, field.name)
    elif message.HasField(field.name):
        yield getattr(message, field.name)


def _may_set(message: Any, field: FieldDescriptor, dice: random.Random) -> bool:
    """Ids of a request itself are mostly set, others where something was, or now and then."""
    if field.containing_oneof is not None:
        return bool(message.HasField(field.name))
    is_request = message.DESCRIPTOR.name.endswith("Request")
    is_given = bool(getattr(message, field.name))
    is_item = field.name in ("id", "input_id")
    return is_given or dice.random() < (0.9 if is_request else 0.5 if is_item else 0.1)
