"""Tests of ``reviews``, against a local server."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from reviews import keep, mood, moods

from clarigrpc import AsyncClient, Client, errors, text, v2
from clarigrpc.local import LocalServer
from clarigrpc.testing import LocalApp

SEED = Path(__file__).parent / "seed"


# Code that makes its own client
def test_the_mood_of_a_review(clarifai_env: LocalApp) -> None:
    assert mood("What a lovely day!") == "positive"


# Failures
def test_an_interruption_is_waited_out(clarifai_env: LocalApp) -> None:
    with clarifai_env.server.faults.fail(
        "PostModelOutputs", grpc.StatusCode.UNAVAILABLE, count=3
    ) as fault:
        assert mood("What a lovely day!") == "positive"
    assert fault.happened == 3


def test_a_long_interruption_has_an_answer(clarifai_env: LocalApp) -> None:
    with clarifai_env.server.faults.fail("PostModelOutputs"):
        assert mood("What a lovely day!") == "unknown"


def test_some_inputs_fail(clarifai_app: LocalApp, clarifai_client: Client) -> None:
    model = clarifai_client.model("text-sentiment", user_id="clarifai", app_id="main")
    with (
        clarifai_app.server.faults.mixed_status(items=[1]),
        pytest.raises(errors.PartialFailureError) as caught,
    ):
        model.predict([text("good"), text("bad"), text("so-so")])
    assert [item.index for item in caught.value.failed] == [1]


# The async client
async def test_many_moods(clarifai_async_client: AsyncClient) -> None:
    reviews = ["What a lovely day!", "This is horrible."]
    assert await moods(clarifai_async_client, reviews) == ["positive", "negative"]


# What was sent
def test_only_new_reviews_are_sent(clarifai_app: LocalApp, clarifai_client: Client) -> None:
    assert keep(clarifai_client, {"a": "good"}) == []
    assert keep(clarifai_client, {"a": "good", "b": "bad"}) == ["a"]
    sent = [item.id for call in clarifai_app.calls("PostInputs") for item in call.request.inputs]
    assert sent == ["a", "b"]


# Data to begin with
def test_reviews_that_are_there_already(clarifai_app: LocalApp, clarifai_client: Client) -> None:
    clarifai_app.seed(SEED)
    stored = [item.id for item in clarifai_client.inputs.list()]
    assert len(stored) == 2
    assert keep(clarifai_client, dict.fromkeys(stored, "known")) == stored


# A server that answers what the test says, and nothing else
def test_the_model_is_asked_once(clarifai_env: LocalApp) -> None:
    concepts = [v2.Concept(name="mixed feelings", value=0.9), v2.Concept(name="joy", value=0.1)]
    output = v2.Output(data=v2.Data(concepts=concepts))
    with clarifai_env.server.stub() as stub:
        stub.on("PostModelOutputs", v2.MultiOutputResponse(outputs=[output]))
        assert mood("Hm.") == "mixed feelings"


# A server of the test's own
def test_a_model_of_our_own(clarifai_server: LocalServer) -> None:
    with clarifai_server.client() as client:
        assert client.model("shout").call("predict", words="quiet") == "QUIET"
