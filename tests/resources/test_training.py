"""A model from its first input to its predictions, on both clients."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from clarigrpc import errors, image, query, v2
from clarigrpc.local import LocalServer
from tests.both import Both
from tests.local.conftest import png
from tests.resources.conftest import add_inputs

Code = v2.StatusCode


@pytest.fixture
def slowly(service: LocalServer) -> Iterator[LocalServer]:
    """The server takes a long while for each training, until the test says that it is over."""
    with service.faults.during(train_seconds=600):
        yield service


async def test_train_wait_predict_search(both: Both, slowly: LocalServer) -> None:
    c = both.client
    for color in ("red", "blue"):
        await add_inputs(both, f"{color}-0", f"{color}-1", color=color)
        await both.run(c.inputs.merge_concepts, f"{color}-0", [color])
        await both.run(c.inputs.merge_concepts, f"{color}-1", [color])
    await both.run(c.models.create, v2.Model(id="m", model_type_id="visual-classifier"))
    made = await both.run(c.models.versions("m").create)
    assert made.status.code == Code.MODEL_QUEUED_FOR_TRAINING
    with pytest.raises(errors.DeadlineExceededError):
        await both.run(c.models.wait_trained, "m", timeout=0.05)
    slowly.faults.train_seconds = 0.0
    trained = await both.run(c.models.wait_trained, "m", made.id, timeout=60)
    assert trained.id == made.id
    assert trained.total_input_count == 4
    output = await both.run(c.model("m").predict, image(png("crimson")))
    assert output.data.concepts[0].id == "red"
    found = await both.collect(c.search.inputs(query.like_image(png("crimson"))))
    assert {hit.input.id for hit in found[:2]} == {"red-0", "red-1"}


async def test_wait_tells_why_a_training_failed(both: Both) -> None:
    c = both.client
    await both.run(c.models.create, v2.Model(id="m", model_type_id="embedding-classifier"))
    await both.run(c.models.versions("m").create)
    with pytest.raises(errors.ApiError) as caught:
        await both.run(c.models.wait_trained, "m", timeout=60)
    assert caught.value.code == Code.MODEL_TRAINING_NO_DATA
    assert "label" in caught.value.details
    with pytest.raises(errors.InvalidArgumentError):
        await both.run(c.model("m").predict, image(png("red")))


async def test_a_model_that_is_being_trained_is_waited_for(both: Both, slowly: LocalServer) -> None:
    c = both.client
    await add_inputs(both, "red", color="red")
    await both.run(c.inputs.merge_concepts, "red", ["red"])
    await both.run(c.models.create, v2.Model(id="m", model_type_id="embedding-classifier"))
    await both.run(c.models.versions("m").create)
    slowly.faults.train_seconds = 0.3
    # 21353 is answered meanwhile, which the client tries again.
    output = await both.run(c.model("m").predict, image(png("red")))
    assert output.data.concepts[0].id == "red"
