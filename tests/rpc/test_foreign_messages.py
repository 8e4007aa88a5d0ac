"""Messages of another package with the same contract, as those of the published one."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import descriptor_pool, message_factory

from clarigrpc import v2
from clarigrpc.local import LocalServer
from tests.both import Both
from tests.conftest import Connect

PUBLIC = {"user_id": "clarifai", "app_id": "main"}


def _add(pool: Any, file: Any) -> None:
    for needed in file.dependencies:
        _add(pool, needed)
    pool.AddSerializedFile(file.serialized_pb)


@pytest.fixture(scope="module")
def theirs() -> Any:
    """The message classes by name, in a pool of their own."""
    pool = descriptor_pool.DescriptorPool()
    for name in ("Input", "PostInputsRequest"):
        _add(pool, getattr(v2, name).DESCRIPTOR.file)

    def message_class(name: str) -> Any:
        return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"clarifai.api.{name}"))

    assert message_class("Input") is not v2.Input
    return message_class


@pytest.fixture
def both(clarifai_local: LocalServer, connect: Connect) -> Both:
    server = clarifai_local
    return connect(server.base, pat=server.pat, user_id=server.user_id, app_id=server.app_id)


def an_input(theirs: Any, input_id: str = "") -> Any:
    item = theirs("Input")(id=input_id)
    item.data.text.raw = "a good day"
    return item


async def test_predict_takes_them(both: Both, theirs: Any) -> None:
    config = theirs("OutputConfig")(max_concepts=1)
    one = an_input(theirs, "one")
    model = both.client.model("text-sentiment", output_config=config, **PUBLIC)
    output = await both.run(model.predict, one)
    assert type(output) is v2.Output
    assert (output.input.id, len(output.data.concepts)) == ("one", 1)
    assert len(await both.run(model.predict, [one, an_input(theirs)])) == 2
    (result,) = await both.collect(model.predict_many([one]))
    assert result.output.input.id == "one"
    stream = both.client.model("text-stream", **PUBLIC)
    assert len(await both.collect(stream.generate(one))) == 3
    with pytest.raises(TypeError, match=r"expected a clarifai.api.Input, not a clarifai.api.Data"):
        await both.run(model.predict, one.data)


async def test_create_patch_and_upload_take_them(both: Both, theirs: Any) -> None:
    kind = "sync" if both.is_sync else "async"
    inputs = both.client.inputs
    names = [f"foreign-{kind}-{number}" for number in range(4)]
    await both.run(inputs.create, an_input(theirs, names[0]))
    await both.run(inputs.create, [an_input(theirs, names[1])])
    report = await both.run(inputs.upload, [an_input(theirs, names[2])])
    assert report.added_ids == [names[2]]
    request = theirs("PostInputsRequest")(inputs=[an_input(theirs, names[3])])
    response = await both.call("PostInputs", request)
    assert type(response) is v2.MultiInputResponse
    await both.run(inputs.wait, names)
    change = theirs("Input")(id=names[0])
    change.data.concepts.add(id="cat", value=1)
    (changed,) = await both.run(inputs.patch, change)
    assert [concept.id for concept in changed.data.concepts] == ["cat"]
    concept = theirs("Concept")(id=f"concept-{kind}")
    assert (await both.run(both.client.concepts.create, concept)).id == concept.id
    with pytest.raises(TypeError, match=r"expected a v2\.Concept"):
        await both.run(both.client.concepts.create, change)
