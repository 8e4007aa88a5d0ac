"""The stand-ins for hosted models: found by the ids that programs use, and honest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import PIL.Image
import PIL.ImageFilter
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clarigrpc import errors, v2
from clarigrpc import image as picture
from clarigrpc.local import LocalServer
from clarigrpc.local.models.face_detection import FaceDetection
from clarigrpc.local.models.image_tagger import IMAGE_TAGS, TAG_GROUPS, ImageTagger
from clarigrpc.local.models.text_tagger import TEXT_TAGS
from tests.conftest import Connect
from tests.local.conftest import PUBLIC, Raw, ok, png
from tests.local.pictures import encoded, photograph, video

Code = v2.StatusCode

GENERAL = "aaa03c23b3724a16a56b629203edc62c"
GENERAL_VERSION = "aa7f35c01e0642fda5cf400f543e7c40"
GENERAL_OF_2016 = "aa9ca48295b37401f8af92ad1af0d91d"
FOOD, FOOD_VERSION = "bd367be194cf45149e75f01d59f77ba7", "dfebc169854e429086aceb8368662641"


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    with LocalServer(rest_port=0) as running:
        yield running


@pytest.fixture(scope="module", params=["grpc", "rest"])
def raw(server: LocalServer, request: pytest.FixtureRequest) -> Iterator[Raw]:
    with (
        grpc.insecure_channel(server.address) as channel,
        httpx.Client(base_url=server.rest_base or "") as web,
    ):
        yield Raw(server, v2.V2Stub(channel), web=web if request.param == "rest" else None)


def asked(model_id: str, *contents: bytes, **config: Any) -> v2.PostModelOutputsRequest:
    request = v2.PostModelOutputsRequest(user_app_id=PUBLIC, model_id=model_id)
    for content in contents:
        request.inputs.add().data.image.base64 = content
    request.model.output_info.output_config.MergeFrom(v2.OutputConfig(**config))
    return request


def values(data: v2.Data) -> dict[str, float]:
    return {concept.id: concept.value for concept in data.concepts}


# By which ids


def test_ids_and_versions_of_published_code_mean_the_stand_ins(raw: Raw) -> None:
    for model_id in ("general-image-recognition", GENERAL, "general-v1.3"):
        for version_id in ("", GENERAL_VERSION, GENERAL_OF_2016):
            request = v2.GetModelRequest(
                user_app_id=PUBLIC, model_id=model_id, version_id=version_id
            )
            model = ok(raw("GetModel", request)).model
            assert model.id == "general-image-recognition"
            assert model.model_version.id == (version_id or GENERAL_VERSION)
            assert "local stand-in" in model.name.lower()
            assert "local stand-in" in model.description.lower()
        output = ok(raw("PostModelOutputs", asked(model_id, png("red")))).outputs[0]
        assert output.model.id == "general-image-recognition"
        assert output.model.model_version.id == GENERAL_VERSION
    versions = v2.ListModelVersionsRequest(user_app_id=PUBLIC, model_id=GENERAL)
    ids = [version.id for version in ok(raw("ListModelVersions", versions)).model_versions]
    assert ids[:2] == [GENERAL_VERSION, GENERAL_OF_2016]


def test_a_request_has_to_say_that_it_means_a_public_model(raw: Raw) -> None:
    request = asked(GENERAL, png("red"))
    request.ClearField("user_app_id")
    # As the service since 2023; the text says what to do.
    status = raw("PostModelOutputs", request).status
    assert status.code == Code.MODEL_DOES_NOT_EXIST
    assert "give user_id 'clarifai' and app_id 'main'" in status.details


def test_searches_and_lists_find_them(raw: Raw) -> None:
    def found(name: str) -> list[str]:
        query = v2.ModelQuery(name=name)
        request = v2.PostModelsSearchesRequest(user_app_id=PUBLIC, model_query=query)
        models = ok(raw("PostModelsSearches", request)).models
        if name.startswith("*"):
            assert all(name.strip("*") in model.name.lower() for model in models)
        return [model.id for model in models]

    assert set(found("*general*")) == {
        "general-image-recognition",
        "general-image-embedding",
        "general-clusterering",
    }
    assert found("general-v1.3") == ["general-image-recognition"]
    assert found(GENERAL) == ["general-image-recognition"]
    assert found("*nothing like it*") == []
    request = v2.ListModelsRequest(user_app_id=PUBLIC, search="recognition", per_page=2)
    assert len(ok(raw("ListModels", request)).models) == 2


def test_none_pretends(raw: Raw) -> None:
    """No stand-in has a concept of the hosted models that nothing here recognizes."""
    listed = ok(raw("ListModels", v2.ListModelsRequest(user_app_id=PUBLIC))).models
    known = {tag.id for tag in IMAGE_TAGS} | {tag.id for tag in TEXT_TAGS}
    for model in listed:
        if "stand-in" in model.name and model.id != "color-recognition":
            concepts = {c.id for c in model.model_version.output_info.data.concepts}
            assert concepts <= known
    assert known.isdisjoint({"dog", "cat", "safe", "nsfw", "sfw", "explicit", "food", "person"})


# What they say


def test_tags_of_photographs(raw: Raw) -> None:
    person = photograph("astronaut")
    blurred = person.filter(PIL.ImageFilter.GaussianBlur(6))
    names = ("coffee", "coins", "camera", "rocket", "page")
    shown = [person, blurred, *(photograph(name) for name in names)]
    request = asked(GENERAL, *(encoded(one, "JPEG") for one in shown), max_concepts=100)
    outputs = ok(raw("PostModelOutputs", request)).outputs
    sharp, soft, coffee, coins, camera, rocket, page = (values(o.data) for o in outputs)
    assert sharp["face"] > 0.8
    assert "no-face-found" not in sharp
    assert sharp["sharp"] > 0.9 > 0.1 > soft.get("sharp", 0.0)
    assert coffee["warm-colors"] > 0.8
    assert coffee["no-face-found"] == 1
    assert coins["black-and-white"] == 1
    assert coins["gray"] > 0.3
    assert camera["sky-like-area"] > 0.6
    assert camera["outdoor-cues"] == 1
    assert rocket["dark"] > 0.5
    assert rocket["landscape-format"] == 1
    assert page["text-like-area"] > 0.8
    for found in (sharp, coffee, camera, rocket):
        assert found.get("text-like-area", 0.0) < 0.3
    for output in outputs:
        ordered = [concept.value for concept in output.data.concepts]
        assert ordered == sorted(ordered, reverse=True)


_TAGGER = ImageTagger(TAG_GROUPS, FaceDetection())


@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    mode=st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"]),
    chance=st.integers(0, 2**32 - 1),
)
def test_any_image_has_values_between_0_and_1(
    size: tuple[int, int], mode: str, chance: int
) -> None:
    import random

    image = PIL.Image.new("RGB", size)
    draw = random.Random(chance)
    for _ in range(draw.randrange(40)):
        at = (draw.randrange(size[0]), draw.randrange(size[1]))
        image.putpixel(at, tuple(draw.randrange(256) for _ in range(3)))
    if mode in ("I;16", "F"):
        image = image.convert("L").convert("I" if mode == "I;16" else "F")
    if mode not in ("I;16", "F"):
        image = image.convert(mode)
    everything = v2.OutputConfig(select_concepts=[v2.Concept(id=tag.id) for tag in IMAGE_TAGS])
    found = values(_TAGGER.look(image, everything))
    assert set(found) == {tag.id for tag in IMAGE_TAGS}
    assert all(0 <= value <= 1 for value in found.values())
    # The shares of the eleven basic colours are shares of one area.
    assert sum(found[tag.id] for tag in IMAGE_TAGS[5:16]) == pytest.approx(1)
    formats = ("landscape-format", "portrait-format", "square-format")
    assert sum(found[name] for name in formats) == 1


def test_texts(raw: Raw) -> None:
    request = v2.PostModelOutputsRequest(
        user_app_id=PUBLIC, model_id="moderation-multilingual-text-classification"
    )
    for text in ("I HATE THIS!!!!!", "lovely, see https://example.com", ""):
        request.inputs.add().data.text.raw = text
    outputs = raw("PostModelOutputs", request).outputs
    loud, kind = values(outputs[0].data), values(outputs[1].data)
    assert loud["capital-letters"] == loud["exclamation-marks"] == 1
    assert loud["negative"] > 0.5
    assert loud["link"] == 0
    assert kind["positive"] > 0.5
    assert kind["link"] == 1
    assert kind["capital-letters"] == 0


def test_videos(raw: Raw, tmp_path: Path) -> None:
    content = video(tmp_path / "film.mp4", [("red", 20), ("blue", 20)])
    request = asked(GENERAL, sample_ms=2000, max_concepts=3)
    request.inputs.add().data.video.base64 = content
    frames = ok(raw("PostModelOutputs", request)).outputs[0].data.frames
    assert [frame.frame_info.time for frame in frames] == [1000, 3000]
    assert all(len(frame.data.concepts) == 3 for frame in frames)
    request = asked(GENERAL, select_concepts=[v2.Concept(id="red")])
    request.inputs.add().data.video.base64 = content
    frames = ok(raw("PostModelOutputs", request)).outputs[0].data.frames
    assert [values(frame.data)["red"] > 0.9 for frame in frames] == [True, True, False, False]


# Output configs


@pytest.mark.parametrize("older", [False, True])
def test_selected_concepts(raw: Raw, older: bool) -> None:
    def answer(*chosen: v2.Concept, **config: Any) -> v2.MultiOutputResponse:
        request = asked(GENERAL, png("red"))
        place = request.model if older else request.model.model_version
        place.output_info.output_config.MergeFrom(v2.OutputConfig(select_concepts=chosen, **config))
        response: v2.MultiOutputResponse = raw("PostModelOutputs", request)
        return response

    red, dog = v2.Concept(name="red"), v2.Concept(name="dog")
    by_name = v2.Concept(name="portrait format")
    found = values(ok(answer(red, v2.Concept(id="blue"), by_name)).outputs[0].data)
    assert found == pytest.approx({"red": 1, "blue": 0, "portrait-format": 0})
    assert values(answer(red, v2.Concept(id="blue"), min_value=0.5).outputs[0].data) == {"red": 1}
    # As documented for the service: exact matches alone, an error for none, mixed for some.
    none = answer(dog, v2.Concept(id="Red")).status
    assert none.code == Code.MODEL_INVALID_ARGUMENT
    assert "'dog', 'Red'" in none.details
    some = answer(dog, red)
    assert some.status.code == Code.MIXED_STATUS
    assert "'dog'" in some.status.details
    assert "'red'" not in some.status.details
    assert values(some.outputs[0].data) == {"red": 1}


def test_how_many_concepts(raw: Raw) -> None:
    def count(**config: Any) -> int:
        request = asked(GENERAL, encoded(photograph("astronaut").resize((160, 160))), **config)
        return len(ok(raw("PostModelOutputs", request)).outputs[0].data.concepts)

    assert count() == 20
    assert count(max_concepts=3) == 3
    assert 20 < count(max_concepts=200) <= len(IMAGE_TAGS)
    assert 1 <= count(min_value=0.98) < 20


async def test_the_client_says_which_concept_is_unknown(
    server: LocalServer, connect: Connect
) -> None:
    both = connect(server.base, pat=server.pat)

    async def answered(**config: Any) -> v2.Output:
        model = both.client.model(
            GENERAL,
            user_id="clarifai",
            app_id="main",
            output_config=v2.OutputConfig(**config),
        )
        output: v2.Output = await both.run(model.predict, picture(png("red")))
        return output

    output = await answered(max_concepts=1)
    assert output.model.id == "general-image-recognition"
    assert len(output.data.concepts) == 1
    red, dog = v2.Concept(id="red"), v2.Concept(name="dog")
    with pytest.raises(errors.InvalidArgumentError, match="dog"):
        await answered(select_concepts=[dog])
    # What there is of a response with the status MIXED_STATUS is returned.
    assert values((await answered(select_concepts=[dog, red])).data) == {"red": 1}


# Workflows


def test_public_workflows(raw: Raw) -> None:
    request = v2.PostWorkflowResultsRequest(user_app_id=PUBLIC, workflow_id="General")
    request.inputs.add().data.image.base64 = encoded(photograph("coffee"))
    request.output_config.max_concepts = 3
    (result,) = ok(raw("PostWorkflowResults", request)).results
    assert len(result.outputs[0].data.concepts) == 3
    assert result.outputs[1].data.embeddings
    assert len(result.outputs[2].data.clusters) == 1
    listed = ok(raw("ListWorkflows", v2.ListWorkflowsRequest(user_app_id=PUBLIC))).workflows
    assert "General" in {workflow.id for workflow in listed}


def test_nodes_name_public_models_by_id_alone(raw: Raw) -> None:
    def nodes(*named: tuple[str, str]) -> list[v2.WorkflowNode]:
        made = [v2.WorkflowNode(id=f"node-{n}") for n in range(len(named))]
        for node, (model_id, version_id) in zip(made, named, strict=True):
            node.model.id, node.model.model_version.id = model_id, version_id
        return made

    name = f"food-and-general-{'web' if raw.web else 'grpc'}"
    workflow = v2.Workflow(id=name, nodes=nodes((GENERAL, GENERAL_VERSION), (FOOD, FOOD_VERSION)))
    # As the tests of the published client do, with the key of an app.
    key = raw.with_key(raw.server.api_key)
    ok(key("PostWorkflows", v2.PostWorkflowsRequest(workflows=[workflow])))
    change = v2.Workflow(id=name, nodes=nodes((GENERAL, GENERAL_OF_2016), (FOOD, "")))
    ok(raw("PatchWorkflows", v2.PatchWorkflowsRequest(workflows=[change], action="overwrite")))
    shown = ok(raw("GetWorkflow", v2.GetWorkflowRequest(workflow_id=name))).workflow
    assert shown.nodes[0].model.model_version.id == GENERAL_OF_2016
    request = v2.PostWorkflowResultsRequest(workflow_id=name)
    request.inputs.add().data.image.base64 = png("red")
    first, second = ok(raw("PostWorkflowResults", request)).results[0].outputs
    assert first.model.model_version.id == GENERAL_OF_2016
    assert second.model.id == "food-item-recognition"
    unknown = v2.Workflow(id=f"{name}-2", nodes=nodes((GENERAL, "no-such-version")))
    refused = raw("PostWorkflows", v2.PostWorkflowsRequest(workflows=[unknown])).status
    assert refused.code == Code.MODEL_DOES_NOT_EXIST


# Public concepts


def search(raw: Raw, name: str, language: str = "", **fields: Any) -> list[v2.Concept]:
    query = v2.ConceptQuery(name=name, language=language)
    request = v2.PostConceptsSearchesRequest(concept_query=query, **fields)
    return list(ok(raw("PostConceptsSearches", request)).concepts)


def test_searches_of_public_concepts(raw: Raw) -> None:
    dogs = search(raw, "dog*")
    assert {"dog", "hot dog"} <= {concept.name for concept in dogs}
    assert all((c.user_id, c.app_id, c.language) == ("clarifai", "main", "en") for c in dogs)
    by_name = {concept.name: concept.id for concept in dogs}
    in_chinese = search(raw, "狗*", "zh")
    assert by_name["dog"] in {concept.id for concept in in_chinese}
    assert all(concept.name.startswith("狗") for concept in in_chinese)
    assert {c.id for c in search(raw, "*UND", "de")} >= {by_name["dog"]}
    assert search(raw, "dog", "tlh") == []
    assert [concept.name for concept in search(raw, "GU*e d*G")] == ["guide dog"]
    # Many wildcards take no longer than a few.
    assert search(raw, "*a" * 40 + "*") == []
    assert search(raw, "狗*", "zh", user_app_id=PUBLIC) == in_chinese
    page = v2.Pagination(page=2, per_page=2)
    assert search(raw, "dog*", pagination=page) == dogs[2:4]


def test_public_concepts_are_those_of_the_public_app(raw: Raw) -> None:
    request = v2.ListConceptsRequest(user_app_id=PUBLIC, page=3, per_page=100)
    listed = list(ok(raw("ListConcepts", request)).concepts)
    assert len(listed) == 100
    one = v2.GetConceptRequest(user_app_id=PUBLIC, concept_id=listed[7].id)
    assert ok(raw("GetConcept", one)).concept == listed[7]
    names = v2.ListConceptLanguagesRequest(user_app_id=PUBLIC, concept_id="emoji-1f415")
    languages = ok(raw("ListConceptLanguages", names)).concept_languages
    assert {"en": "dog", "de": "hund", "fr": "chien", "zh": "狗"}.items() <= {
        language.id: language.name for language in languages
    }.items()
    german = v2.GetConceptLanguageRequest(
        user_app_id=PUBLIC, concept_id="emoji-1f415", language="de"
    )
    assert ok(raw("GetConceptLanguage", german)).concept_language.name == "hund"
    one.concept_id = "emoji-0"
    assert raw("GetConcept", one).status.code == Code.CONN_DOES_NOT_EXIST
    own = v2.GetConceptRequest(concept_id="emoji-1f415")
    assert raw("GetConcept", own).status.code == Code.CONN_DOES_NOT_EXIST


def test_concepts_of_models_and_workflows(raw: Raw) -> None:
    def found(**source: Any) -> dict[str, str]:
        query = v2.ConceptQuery(name="*", **source)
        request = v2.PostConceptsSearchesRequest(concept_query=query)
        concepts = ok(raw("PostConceptsSearches", request)).concepts
        return {concept.id: concept.app_id for concept in concepts}

    model = v2.Model(id="text-sentiment")
    assert set(found(model=model)) == {"positive", "neutral", "negative"}
    model = v2.Model(id=GENERAL, user_id="clarifai", app_id="main")
    assert set(found(model=model)) == {tag.id for tag in IMAGE_TAGS}
    workflow = v2.Workflow(id="Text", user_id="clarifai", app_id="main")
    assert set(found(workflow=workflow)) == {"positive", "neutral", "negative"}
    missing = v2.ConceptQuery(workflow=v2.Workflow(id="Text"))
    request = v2.PostConceptsSearchesRequest(concept_query=missing)
    assert raw("PostConceptsSearches", request).status.code == Code.WORKFLOW_DOES_NOT_EXIST


# Without them


def test_without_public_models(tmp_path: Path) -> None:
    with LocalServer(tmp_path) as before, before.client() as client:
        public = client.with_options(user_id="clarifai", app_id="main")
        assert "General" in {workflow.id for workflow in public.workflows.list()}
    # In the folder of a server that had them, too.
    with LocalServer(tmp_path, public_models=False) as server, server.client() as client:
        public = client.with_options(user_id="clarifai", app_id="main")
        assert {model.id for model in public.models.list()} == {
            "image-embedding",
            "text-embedding",
        }
        assert list(public.workflows.list()) == []
        assert list(public.concepts.list()) == []
        assert list(client.concepts.search("dog*")) == []
        with pytest.raises(errors.NotFoundError):
            client.model(GENERAL, user_id="clarifai", app_id="main").predict(picture(png("red")))
