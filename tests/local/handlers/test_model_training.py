"""Models that the server trains: from which inputs, how far, and what they then predict."""

from __future__ import annotations

import io
import itertools
import json
import pickle
import threading
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import httpx
import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from clarigrpc import image as picture
from clarigrpc import v2
from clarigrpc.local import LocalServer
from clarigrpc.local.handlers import model_training
from clarigrpc.local.models.embedding_classifier import Weights
from tests.local.conftest import Raw, ok, png
from tests.local.pictures import digit, video
from tests.local.web import serving
from tests.waiting import until

Code = v2.StatusCode

_DIGITS = (0, 1, 4)
_EACH = 24

_PATIENCE = 60.0
"""Seconds: loading scikit-learn takes some of them on a busy machine."""


def add(raw: Raw, items: Iterable[tuple[str, v2.Data, dict[str, float]]]) -> None:
    """Adds inputs with concepts, and waits until they have been processed."""
    request = v2.PostInputsRequest()
    for input_id, data, concepts in items:
        item = request.inputs.add(id=input_id, data=data)
        for concept, value in concepts.items():
            item.data.concepts.add(id=concept, value=value)
    ok(raw("PostInputs", request))
    until(lambda: not raw("GetInputCount", v2.GetInputCountRequest()).counts.to_process, _PATIENCE)


def image(content: bytes) -> v2.Data:
    return v2.Data(image=v2.Image(base64=content))


def text(raw: str) -> v2.Data:
    return v2.Data(text=v2.Text(raw=raw))


def digits(each: int = _EACH) -> Iterator[tuple[str, v2.Data, dict[str, float]]]:
    for number in _DIGITS:
        for index in range(each):
            yield f"{number}-{index}", image(digit(number, index)), {f"is-{number}": 1.0}


def create(raw: Raw, model_id: str, model_type_id: str = "embedding-classifier") -> None:
    models = [v2.Model(id=model_id, model_type_id=model_type_id)]
    ok(raw("PostModels", v2.PostModelsRequest(models=models)))


def post(raw: Raw, model_id: str, version: v2.ModelVersion | None = None) -> v2.ModelVersion:
    """Asks for a version; returns it as the answer has it."""
    request = v2.PostModelVersionsRequest(
        model_id=model_id, model_versions=[version or v2.ModelVersion()]
    )
    made: v2.ModelVersion = ok(raw("PostModelVersions", request)).model.model_version
    return made


def current(raw: Raw, model_id: str, version: v2.ModelVersion) -> v2.ModelVersion:
    request = v2.GetModelVersionRequest(model_id=model_id, version_id=version.id)
    found: v2.ModelVersion = ok(raw("GetModelVersion", request)).model_version
    return found


def ended(raw: Raw, model_id: str, version: v2.ModelVersion) -> v2.ModelVersion:
    """The version once its training has ended."""
    under_way = (Code.MODEL_QUEUED_FOR_TRAINING, Code.MODEL_TRAINING)
    until(lambda: current(raw, model_id, version).status.code not in under_way, _PATIENCE)
    return current(raw, model_id, version)


def trained(raw: Raw, model_id: str, version: v2.ModelVersion | None = None) -> v2.ModelVersion:
    made = ended(raw, model_id, post(raw, model_id, version))
    assert made.status.code == Code.MODEL_TRAINED, made.status
    return made


def predict(raw: Raw, model_id: str, *data: v2.Data, **config: Any) -> list[v2.Data]:
    request = v2.PostModelOutputsRequest(model_id=model_id)
    for one in data:
        request.inputs.add(data=one)
    request.model.model_version.output_info.output_config.MergeFrom(v2.OutputConfig(**config))
    return [output.data for output in ok(raw("PostModelOutputs", request)).outputs]


def params(**values: str | float) -> v2.TrainInfo:
    info = v2.TrainInfo()
    info.params.update(values)
    return info


def wants(*concepts: str, **config: Any) -> v2.ModelVersion:
    version = v2.ModelVersion(output_info=v2.OutputInfo(output_config=v2.OutputConfig(**config)))
    for concept in concepts:
        version.output_info.data.concepts.add(id=concept)
    return version


@pytest.fixture(scope="module")
def school() -> Iterator[Raw]:
    """An app with handwritten digits, and a model trained on them."""
    with LocalServer(rest_port=0) as server, grpc.insecure_channel(server.address) as channel:
        raw = Raw(server, v2.V2Stub(channel))
        add(raw, digits())
        create(raw, "digits")
        trained(raw, "digits")
        yield raw


# What a trained model does


def test_a_trained_model_reads_digits_that_it_has_not_seen(school: Raw) -> None:
    unseen = [(number, digit(number, _EACH + n)) for number in _DIGITS for n in range(20)]
    found = predict(school, "digits", *(image(content) for _, content in unseen))
    right = [data.concepts[0].id == f"is-{n}" for (n, _), data in zip(unseen, found, strict=True)]
    assert np.mean(right) > 0.9
    for data in found:
        values = [concept.value for concept in data.concepts]
        assert values == sorted(values, reverse=True)
        assert all(0.0 <= value <= 1.0 for value in values)
        assert {c.id for c in data.concepts} == {f"is-{n}" for n in _DIGITS}
        assert {c.app_id for c in data.concepts} == {school.server.app_id}


def test_a_trained_version_says_what_it_is(school: Raw) -> None:
    model = ok(school("GetModel", v2.GetModelRequest(model_id="digits"))).model
    version = model.model_version
    assert version.status.code == Code.MODEL_TRAINED
    assert version.total_input_count == len(_DIGITS) * _EACH
    assert version.active_concept_count == len(_DIGITS)
    assert {c.id for c in version.output_info.data.concepts} == {f"is-{n}" for n in _DIGITS}
    assert version.input_info.base_embed_model.id == "image-embedding"
    assert version.HasField("completed_at")
    assert f"is-4: {_EACH} inputs" in version.train_log
    assert version.metrics.status.code == Code.MODEL_EVALUATED
    assert 0.9 < version.metrics.summary.macro_avg_roc_auc <= 1.0
    assert 0.8 < version.metrics.summary.macro_avg_f1_score <= 1.0
    listed = ok(school("ListModels", v2.ListModelsRequest(trained_only=True))).models
    assert "digits" in {model.id for model in listed}
    inputs = ok(school("ListModelInputs", v2.ListModelInputsRequest(model_id="digits"))).inputs
    assert len(inputs) == len(_DIGITS) * _EACH


def test_the_request_limits_the_concepts(school: Raw) -> None:
    zero = image(digit(0, 40))
    assert [c.id for c in predict(school, "digits", zero, max_concepts=1)[0].concepts] == ["is-0"]
    assert [c.id for c in predict(school, "digits", zero, min_value=0.5)[0].concepts] == ["is-0"]
    chosen = [v2.Concept(id="is-4")]
    (found,) = predict(school, "digits", zero, select_concepts=chosen)
    assert [c.id for c in found.concepts] == ["is-4"]


def test_the_version_has_limits_of_its_own(school: Raw) -> None:
    create(school, "limited")
    trained(school, "limited", wants(max_concepts=2, min_value=0.3))
    zero = image(digit(0, 40))
    assert [c.id for c in predict(school, "limited", zero)[0].concepts] == ["is-0"]
    # What a request sets goes before.
    assert len(predict(school, "limited", zero, min_value=1e-6)[0].concepts) == 2


def test_patches_change_settings_and_never_what_was_learned(school: Raw) -> None:
    create(school, "patched")
    version = trained(school, "patched", wants("is-0", "is-1", "is-4", max_concepts=2))
    zero = image(digit(0, 40))

    def patch(change: v2.ModelVersion, action: str) -> Any:
        change.id = version.id
        request = v2.PatchModelVersionsRequest(
            model_id="patched", model_versions=[change], action=action
        )
        return school("PatchModelVersions", request)

    limits = v2.ModelVersion()
    limits.output_info.output_config.max_concepts = 1
    for action, count in (("merge", 1), ("overwrite", 1), ("remove", 3)):
        ok(patch(limits, action))
        assert len(predict(school, "patched", zero)[0].concepts) == count, action
    everything = v2.ModelVersion(output_info=v2.OutputInfo(), description="new")
    ok(patch(everything, "overwrite"))
    assert predict(school, "patched", zero)[0].concepts[0].id == "is-0"
    kept = current(school, "patched", version)
    assert [c.id for c in kept.output_info.data.concepts] == ["is-0", "is-1", "is-4"]
    assert kept.description == "new"
    base = v2.ModelVersion()
    base.input_info.base_embed_model.id = "text-embedding"
    refused = patch(base, "merge")
    assert refused.status.code == Code.MODEL_INVALID_ARGUMENT
    assert "input_info" in refused.status.details


def test_it_looks_at_the_frames_of_videos(school: Raw, tmp_path: Path) -> None:
    scenes = [(PIL.Image.open(io.BytesIO(digit(number, 41))), 10) for number in (0, 1)]
    content = video(tmp_path / "digits.avi", scenes, codec="MJPG")
    (found,) = predict(school, "digits", v2.Data(video=v2.Video(base64=content)))
    assert [(frame.frame_info.time, frame.data.concepts[0].id) for frame in found.frames] == [
        (500, "is-0"),
        (1500, "is-1"),
    ]


def test_it_works_in_a_workflow_and_over_rest(school: Raw) -> None:
    workflow = v2.Workflow(id="w")
    workflow.nodes.add(id="n").model.id = "digits"
    ok(school("PostWorkflows", v2.PostWorkflowsRequest(workflows=[workflow])))
    request = v2.PostWorkflowResultsRequest(workflow_id="w")
    request.inputs.add(data=image(digit(1, 42)))
    (result,) = ok(school("PostWorkflowResults", request)).results
    assert result.outputs[0].data.concepts[0].id == "is-1"
    server = school.server
    with server.client(transport="rest") as client:
        output = client.model("digits").predict(picture(digit(1, 42)))
    assert output.data.concepts[0].value == pytest.approx(
        result.outputs[0].data.concepts[0].value, abs=1e-5
    )
    response = httpx.post(
        f"{server.rest_base}/v2/users/{server.user_id}/apps/{server.app_id}/models/digits/versions",
        headers={"authorization": f"Key {server.pat}"},
        json={"model_versions": [{"train_info": {"params": {"enrich_dataset": "Sometimes"}}}]},
    )
    assert response.status_code == 400
    assert response.json()["status"]["code"] == Code.MODEL_INVALID_ARGUMENT


def test_it_can_be_evaluated(school: Raw) -> None:
    ok(school("PostDatasets", v2.PostDatasetsRequest(datasets=[v2.Dataset(id="test")])))
    unseen = [(f"t{n}-{k}", n, digit(n, 60 + k)) for n in _DIGITS for k in range(10)]
    add(school, [(i, image(content), {f"is-{n}": 1.0}) for i, n, content in unseen])
    join = v2.PostDatasetInputsRequest(dataset_id="test")
    for input_id, _, _ in unseen:
        join.dataset_inputs.add().input.id = input_id
    ok(school("PostDatasetInputs", join))
    freeze(school, "test")
    request = v2.PostEvaluationsRequest()
    wanted = request.eval_metrics.add(id="e")
    wanted.model.id = "digits"
    wanted.ground_truth_dataset.id = "test"
    ok(school("PostEvaluations", request))
    get = v2.GetEvaluationRequest(evaluation_id="e")
    until(lambda: raw_code(school, get) != Code.MODEL_QUEUED_FOR_EVALUATION, _PATIENCE)
    found = ok(school("GetEvaluation", get)).eval_metrics
    assert found.status.code == Code.MODEL_EVALUATED, found.status
    assert found.summary.macro_avg_roc_auc > 0.9
    assert found.summary.macro_avg_f1_score > 0.7
    ok(school("DeleteInputs", v2.DeleteInputsRequest(ids=[i for i, _, _ in unseen])))


def raw_code(raw: Raw, request: v2.GetEvaluationRequest) -> int:
    return int(raw("GetEvaluation", request).eval_metrics.status.code)


def freeze(raw: Raw, dataset_id: str) -> v2.DatasetVersion:
    """A version of a dataset, once it is ready."""
    request = v2.PostDatasetVersionsRequest(dataset_id=dataset_id)
    request.dataset_versions.add()
    made = ok(raw("PostDatasetVersions", request)).dataset_versions[0]
    get = v2.GetDatasetVersionRequest(dataset_id=dataset_id, dataset_version_id=made.id)
    ready = Code.DATASET_VERSION_READY
    until(lambda: raw("GetDatasetVersion", get).dataset_version.status.code == ready, _PATIENCE)
    version: v2.DatasetVersion = made
    return version


# Statuses


def test_statuses_go_from_queued_to_trained(school: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    create(school, "slow")
    now = 0.0
    clock = SimpleNamespace(monotonic=lambda: now, sleep=time.sleep)
    monkeypatch.setattr(model_training, "time", clock)
    request = v2.PostModelOutputsRequest(model_id="slow")
    request.inputs.add(data=image(digit(0, 40)))
    seen: list[Any] = []

    def is_over() -> bool:
        nonlocal now
        now += 1.0  # with each look
        seen.append(current(school, "slow", made).status.code)
        return seen[-1] not in (Code.MODEL_QUEUED_FOR_TRAINING, Code.MODEL_TRAINING)

    with school.server.faults.during(train_seconds=60):
        made = post(school, "slow")
        assert made.status.code == Code.MODEL_QUEUED_FOR_TRAINING
        until(is_over, _PATIENCE)
        assert list(dict.fromkeys(seen)) == [
            Code.MODEL_QUEUED_FOR_TRAINING,
            Code.MODEL_TRAINING,
            Code.MODEL_TRAINED,
        ]
        again = post(school, "slow")
        # The newest version answers, as soon as it can.
        assert school("PostModelOutputs", request).status.code == Code.MODEL_NOT_DEPLOYED
        request.version_id = made.id
        ok(school("PostModelOutputs", request))
    # What is changed holds for what waits.
    ended(school, "slow", again)


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (wants("unheard-of"), Code.MODEL_TRAINING_NO_DATA),
        (
            wants("is-0", "never", fail_on_missing_positive_examples=True),
            Code.MODEL_TRAINING_NO_POSITIVES,
        ),
        (
            wants("is-0", concepts_mutually_exclusive=True),
            Code.MODEL_TRAINING_ONE_VS_N_SINGLE_CLASS,
        ),
    ],
)
def test_want_of_data_fails_the_version(
    school: Raw, version: v2.ModelVersion, expected: int
) -> None:
    model_id = f"failing-{expected}-{version.output_info.data.concepts[0].id}"
    create(school, model_id)
    if "never" in {concept.id for concept in version.output_info.data.concepts}:
        patch = v2.PatchInputsRequest(action="merge")
        patch.inputs.add(id="0-0").data.concepts.add(id="never", value=0)
        ok(school("PatchInputs", patch))
    made = ended(school, model_id, post(school, model_id, version))
    assert made.status.code == expected, made.status
    assert made.status.details
    request = v2.PostModelOutputsRequest(model_id=model_id)
    request.inputs.add(data=image(digit(0, 40)))
    assert school("PostModelOutputs", request).status.code == Code.MODEL_INVALID_REQUEST


@pytest.mark.parametrize("exclusive", [False, True])
def test_a_concept_asked_for_without_examples_has_the_value_0(school: Raw, exclusive: bool) -> None:
    model_id = f"partly-{exclusive}"
    create(school, model_id)
    wanted = ["absent-everywhere", "is-0", "is-1"]
    made = trained(school, model_id, wants(*wanted, concepts_mutually_exclusive=exclusive))
    assert [c.id for c in made.output_info.data.concepts] == wanted
    assert "absent-everywhere: 0 inputs" in made.train_log
    request = v2.PostModelOutputsRequest(model_id=model_id)
    request.inputs.add(data=image(digit(0, 40)))
    (output,) = ok(school("PostModelOutputs", request)).outputs
    assert [c.id for c in output.data.concepts] == ["is-0", "is-1", "absent-everywhere"]
    assert output.data.concepts[-1].value < 1e-6


def test_a_model_of_a_concept_that_no_input_has(raw: Raw) -> None:
    add(raw, [("without", image(digit(1, 0)), {"never": 0.0})])
    create(raw, "nothing")
    made = trained(raw, "nothing", wants("never"))
    metrics = v2.PostModelVersionMetricsRequest(model_id="nothing", version_id=made.id)
    ok(raw("PostModelVersionMetrics", metrics))
    asked = v2.GetModelVersionMetricsRequest(model_id="nothing", version_id=made.id)
    asked.fields.test_set = True
    until(
        lambda: (
            ok(raw("GetModelVersionMetrics", asked)).model_version.metrics.status.code
            == Code.MODEL_EVALUATED
        )
    )
    (entry,) = ok(raw("GetModelVersionMetrics", asked)).model_version.metrics.test_set
    assert [(c.id, c.value) for c in entry.ground_truth_concepts] == [("never", 0.0)]
    assert entry.predicted_concepts[0].value < 1e-6


def test_concepts_that_nobody_asked_for_and_no_input_has_are_left_out(raw: Raw) -> None:
    add(
        raw,
        [("a", image(digit(0, 0)), {"zero": 1.0}), ("b", image(digit(1, 0)), {"never": 0.0})],
    )
    create(raw, "some")
    made = trained(raw, "some", v2.ModelVersion())
    assert [c.id for c in made.output_info.data.concepts] == ["zero"]
    assert made.active_concept_count == 1


def test_an_app_without_labels_has_no_data(raw: Raw) -> None:
    create(raw, "m")
    assert ended(raw, "m", post(raw, "m")).status.code == Code.MODEL_TRAINING_NO_DATA


def test_training_stops_at_its_timeout(school: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    create(school, "late")
    minutes = itertools.count()

    class Clock:
        """Each look at it is a minute later."""

        sleep = staticmethod(time.sleep)

        @staticmethod
        def monotonic() -> float:
            return 60.0 * next(minutes)

    monkeypatch.setattr(model_training, "time", Clock)
    made = ended(school, "late", post(school, "late", wants(training_timeout=30)))
    assert made.status.code == Code.MODEL_TRAINING_TIMED_OUT


# From which inputs


def test_negative_values_and_background(raw: Raw) -> None:
    """``red`` against what is marked as not red; nothing else is known of the pictures."""
    reds = [png("red"), png("red", "darkred"), png("crimson")]
    others = [png("blue"), png("navy"), png("green"), png("teal")]
    add(raw, [(f"r{n}", image(c), {"red": 1.0}) for n, c in enumerate(reds)])
    create(raw, "alone")
    # Only positives: background images are the negatives, unless they are not wanted.
    trained(raw, "alone")
    version = v2.ModelVersion(train_info=params(enrich_dataset="Disabled"))
    failed = ended(raw, "alone", post(raw, "alone", version))
    assert failed.status.code == Code.MODEL_TRAINING_INSUFFICIENT_DATA
    add(raw, [(f"o{n}", image(c), {"red": 0.0}) for n, c in enumerate(others)])
    create(raw, "red")
    made = trained(raw, "red", v2.ModelVersion(train_info=params(enrich_dataset="Disabled")))
    assert made.total_input_count == 7
    assert "0 background images" in made.train_log
    red, blue = predict(raw, "red", image(png("firebrick")), image(png("royalblue")))
    assert red.concepts[0].value > 0.5 > blue.concepts[0].value


def test_exclusive_concepts_share_one(school: Raw) -> None:
    create(school, "exclusive")
    trained(
        school, "exclusive", v2.ModelVersion(train_info=params(concepts_mutually_exclusive=True))
    )
    create(school, "pair")
    trained(school, "pair", wants("is-0", "is-1", concepts_mutually_exclusive=True))
    for model_id in ("exclusive", "pair"):
        for number in (0, 1):
            (found,) = predict(school, model_id, image(digit(number, 43)))
            assert found.concepts[0].id == f"is-{number}"
            assert sum(c.value for c in found.concepts) == pytest.approx(1.0, abs=1e-5)


@pytest.fixture
def held_back() -> Iterator[tuple[str, threading.Event]]:
    """Address of a picture that comes once it is let go."""
    go = threading.Event()

    def body() -> bytes:
        go.wait(20)
        return png("red")

    with serving(body) as web:
        yield f"{web}/red.png", go
        go.set()


def test_pending_and_later_inputs_do_not_count(
    raw: Raw, held_back: tuple[str, threading.Event]
) -> None:
    url, go = held_back
    add(raw, [(f"b{n}", image(png("blue")), {"blue": 1.0}) for n in range(2)])
    add(raw, [("r0", image(png("red")), {"red": 1.0})])
    pending = v2.PostInputsRequest()
    item = pending.inputs.add(id="pending", data=v2.Data(image=v2.Image(url=url)))
    item.data.concepts.add(id="red", value=1)
    ok(raw("PostInputs", pending))
    create(raw, "m")
    raw.server.faults.train_seconds = 0.6
    made = post(raw, "m")
    # All of this is too late, though the training has not begun.
    go.set()
    add(raw, [("r1", image(png("red")), {"red": 1.0})])
    patch = v2.PatchInputsRequest(action="merge")
    patch.inputs.add(id="b0").data.concepts.add(id="late", value=1)
    ok(raw("PatchInputs", patch))
    made = ended(raw, "m", made)
    assert made.status.code == Code.MODEL_TRAINED, made.status
    assert made.total_input_count == 3
    assert {c.id for c in made.output_info.data.concepts} == {"red", "blue"}
    raw.server.faults.train_seconds = 0.0
    until(lambda: not raw("GetInputCount", v2.GetInputCountRequest()).counts.to_process, _PATIENCE)
    assert trained(raw, "m").total_input_count == 5


def test_annotations_count_and_regions_do_not(raw: Raw) -> None:
    add(raw, [(name, image(png(name)), {}) for name in ("red", "blue", "green")])
    request = v2.PostAnnotationsRequest()
    for name in ("red", "blue"):
        request.annotations.add(input_id=name).data.concepts.add(id=name, value=1)
    waiting = request.annotations.add(input_id="green")
    waiting.status.code = Code.ANNOTATION_AWAITING_REVIEW
    waiting.data.concepts.add(id="green", value=1)
    region = request.annotations.add(input_id="green").data.regions.add()
    region.region_info.bounding_box.right_col = region.region_info.bounding_box.bottom_row = 1
    region.data.concepts.add(id="spot", value=1)
    ok(raw("PostAnnotations", request))
    create(raw, "m")
    made = trained(raw, "m")
    assert {c.id for c in made.output_info.data.concepts} == {"red", "blue"}


def test_datasets_and_their_versions(raw: Raw) -> None:
    ok(raw("PostDatasets", v2.PostDatasetsRequest(datasets=[v2.Dataset(id="d")])))
    add(raw, [(name, image(png(name)), {name: 1.0}) for name in ("red", "blue", "green")])
    join = v2.PostDatasetInputsRequest(dataset_id="d")
    for name in ("red", "blue"):
        join.dataset_inputs.add().input.id = name
    ok(raw("PostDatasetInputs", join))
    frozen = freeze(raw, "d")
    more = v2.PostDatasetInputsRequest(dataset_id="d")
    more.dataset_inputs.add().input.id = "green"
    ok(raw("PostDatasetInputs", more))
    create(raw, "m")
    everything = v2.ModelVersion(train_info=v2.TrainInfo(dataset=v2.Dataset(id="d")))
    assert trained(raw, "m", everything).total_input_count == 3
    old = v2.ModelVersion()
    old.train_info.dataset.id, old.train_info.dataset.version.id = "d", frozen.id
    assert trained(raw, "m", old).total_input_count == 2
    # As the published SDK names them, which sends empty ones as well.
    for named in (params(dataset_id="d"), params(dataset_id="d", dataset_version_id=frozen.id)):
        version = trained(raw, "m", v2.ModelVersion(train_info=named))
        assert version.total_input_count == (2 if "dataset_version_id" in named.params else 3)
    every = params(dataset_id="", dataset_version_id="")
    assert not trained(raw, "m", v2.ModelVersion(train_info=every)).train_info.HasField("dataset")
    old.train_info.dataset.id = "no-such"
    for wrong in (old, v2.ModelVersion(train_info=params(dataset_id="no-such"))):
        request = v2.PostModelVersionsRequest(model_id="m", model_versions=[wrong])
        assert raw("PostModelVersions", request).status.code == Code.CONN_DOES_NOT_EXIST


def test_a_model_without_a_type_is_trained_by_the_key_of_its_app(raw: Raw) -> None:
    """As the tests of the published client do it; the embeddings are those of a public model."""
    add(raw, [(name, image(png(name)), {name: 1.0}) for name in ("red", "blue")])
    key = raw.with_key(raw.server.api_key)
    made = ok(key("PostModels", v2.PostModelsRequest(models=[v2.Model(id="m")]))).model
    assert made.model_type_id == "embedding-classifier"
    assert trained(key, "m").active_concept_count == 2


def test_templates(school: Raw) -> None:
    create(school, "templated", "visual-classifier")
    types = ok(school("ListModelTypes", v2.ListModelTypesRequest())).model_types
    (kind,) = (one for one in types if one.id == "visual-classifier")
    (field,) = (one for one in kind.model_type_fields if one.path.endswith(".template"))
    own, *stand_ins = field.model_type_enum_options
    settings = [
        "train_info.params.enrich_dataset",
        "train_info.params.concepts_mutually_exclusive",
    ]
    assert [one.path for one in own.model_type_fields] == settings
    version = v2.ModelVersion(train_info=params(template=own.id))
    made = trained(school, "templated", version)
    assert made.train_info.params["template"] == own.id
    assert "without effect" not in made.train_log
    assert stand_ins
    for template in stand_ins:
        assert template.description.startswith("Local stand-in: ")
        assert [one.path for one in template.model_type_fields] == [
            *settings,
            "train_info.params.num_epochs",
        ]
        version = v2.ModelVersion(train_info=params(template=template.id, num_epochs=2))
        made = trained(school, "templated", version)
        assert made.train_info.params["num_epochs"] == 2
        assert f"without effect: template {template.id}; num_epochs" in made.train_log


def test_hyperparameters_are_kept_and_said_to_have_no_effect(school: Raw) -> None:
    create(school, "hyper")
    version = wants("is-0")
    version.output_info.output_config.hyper_params.update({"N_EPOCHS": 5, "CUSTOM": {}})
    made = trained(school, "hyper", version)
    assert made.output_info.output_config.hyper_params["N_EPOCHS"] == 5
    assert "without effect: hyper_params CUSTOM, N_EPOCHS" in made.train_log


def test_texts_can_be_classified(raw: Raw) -> None:
    weather = (
        "heavy rain and wind tomorrow",
        "a sunny morning, clouds later",
        "rain turns to snow",
    )
    money = ("the invoice is overdue", "pay the bill by bank transfer", "a refund for the payment")
    for kind, said in (("weather", weather), ("money", money)):
        add(raw, [(f"{kind}{n}", text(one), {kind: 1.0}) for n, one in enumerate(said)])
    for model_type in ("text-classifier", "embedding-classifier"):
        create(raw, model_type, model_type)
        made = trained(raw, model_type)
        assert made.input_info.base_embed_model.id == "text-embedding"
        snow, bill = predict(raw, model_type, text("wind and snow"), text("payment of the bill"))
        assert (snow.concepts[0].id, bill.concepts[0].id) == ("weather", "money")
    # A model of images finds none to learn from.
    create(raw, "visual", "visual-classifier")
    failed = ended(raw, "visual", post(raw, "visual"))
    assert failed.status.code == Code.MODEL_TRAINING_NO_DATA


def brightness(picture: v2.Image) -> v2.Data:
    """An embedding of one's own: two numbers."""
    value = float(np.asarray(PIL.Image.open(io.BytesIO(picture.base64)).convert("L")).mean()) / 255
    return v2.Data(embeddings=[v2.Embedding(vector=[value, 1 - value], num_dimensions=2)])


def test_an_embedding_model_of_the_user(serve: Callable[..., Raw]) -> None:
    raw = serve(models={"brightness": brightness})
    for name, colours in (("dark", ("black", "navy")), ("light", ("white", "yellow"))):
        add(raw, [(c, image(png(c)), {name: 1.0}) for c in colours])
    create(raw, "m")
    version = v2.ModelVersion()
    version.input_info.base_embed_model.id = "brightness"
    made = trained(raw, "m", version)
    assert made.input_info.base_embed_model.app_id == raw.server.app_id
    night, day = predict(raw, "m", image(png("#101010")), image(png("#f0f0f0")))
    assert (night.concepts[0].id, day.concepts[0].id) == ("dark", "light")
    version.input_info.base_embed_model.id = "no-such-model"
    request = v2.PostModelVersionsRequest(model_id="m", model_versions=[version])
    assert raw("PostModelVersions", request).status.code == Code.MODEL_DOES_NOT_EXIST


# What is kept


def test_a_trained_model_survives_a_restart(serve: Callable[..., Raw], tmp_path: Path) -> None:
    raw = serve(data_dir=tmp_path)
    add(raw, digits(8))
    create(raw, "m")
    made = trained(raw, "m")
    seven = image(digit(4, 50))
    before = predict(raw, "m", seven)
    raw.server.faults.train_seconds = 30.0
    cut_off = post(raw, "m")
    raw.server.close(grace=0)
    raw = serve(data_dir=tmp_path, pat=raw.server.pat)
    assert current(raw, "m", made).status.code == Code.MODEL_TRAINED
    request = v2.PostModelOutputsRequest(model_id="m", version_id=made.id)
    request.inputs.add(data=seven)
    assert [output.data for output in ok(raw("PostModelOutputs", request)).outputs] == before
    # What was queued when the process ended is trained now.
    assert ended(raw, "m", cut_off).status.code == Code.MODEL_TRAINED
    assert predict(raw, "m", seven)[0].concepts[0].id == before[0].concepts[0].id


def test_versions_can_be_deleted_and_copied(school: Raw) -> None:
    create(school, "twice")
    first, second = trained(school, "twice", wants("is-0")), trained(school, "twice", wants("is-1"))
    zero = image(digit(0, 44))
    assert [c.id for c in predict(school, "twice", zero)[0].concepts] == ["is-1"]
    ok(
        school(
            "DeleteModelVersion",
            v2.DeleteModelVersionRequest(model_id="twice", version_id=second.id),
        )
    )
    assert [c.id for c in predict(school, "twice", zero)[0].concepts] == ["is-0"]
    # The same id again is another version, not what was learned before.
    again = wants("is-4")
    again.id = second.id
    trained(school, "twice", again)
    assert [c.id for c in predict(school, "twice", zero)[0].concepts] == ["is-4"]
    request = v2.PostModelVersionsRequest(model_id="twice", model_versions=[first])
    taken = school("PostModelVersions", request)
    assert taken.status.code == Code.DATABASE_DUPLICATE_KEY


def test_an_app_and_its_models_can_be_copied(raw: Raw) -> None:
    add(raw, [(name, image(png(name)), {name: 1.0}) for name in ("red", "blue")])
    create(raw, "m")
    trained(raw, "m")
    request = v2.PostAppDuplicationsRequest(
        user_app_id=v2.UserAppIDSet(user_id=raw.server.user_id, app_id=raw.server.app_id)
    )
    request.app_duplications.add(
        destination_app=v2.App(id="copy"),
        filter=v2.AppDuplicationFilters(copy_inputs=True, copy_models=True),
    )
    ok(raw("PostAppDuplications", request))
    elsewhere = v2.UserAppIDSet(user_id=raw.server.user_id, app_id="copy")
    predict_there = v2.PostModelOutputsRequest(user_app_id=elsewhere, model_id="m")
    predict_there.inputs.add(data=image(png("red")))
    until(lambda: raw("PostModelOutputs", predict_there).status.code == Code.SUCCESS, _PATIENCE)
    (output,) = raw("PostModelOutputs", predict_there).outputs
    assert output.data.concepts[0].id == "red"


def exported(raw: Raw, model_id: str, version_id: str) -> v2.ModelVersionExport:
    """The export of a version once it has ended."""
    put = v2.PutModelVersionExportsRequest(model_id=model_id, version_id=version_id)
    assert ok(raw("PutModelVersionExports", put)).export.status.code == Code.MODEL_EXPORT_PENDING
    get = v2.GetModelVersionExportRequest(model_id=model_id, version_id=version_id)
    pending = Code.MODEL_EXPORT_PENDING
    until(lambda: raw("GetModelVersionExport", get).export.status.code != pending, _PATIENCE)
    found: v2.ModelVersionExport = ok(raw("GetModelVersionExport", get)).export
    return found


def test_what_was_learned_can_be_exported(school: Raw) -> None:
    version = ok(school("GetModel", v2.GetModelRequest(model_id="digits"))).model.model_version
    export = exported(school, "digits", version.id)
    assert export.status.code == Code.MODEL_EXPORTED
    content = httpx.get(export.url).content
    assert len(content) == export.size
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        weights = Weights.from_bytes(archive.read("weights.npz"))
        assert json.loads(archive.read("model_version.json"))["id"] == version.id
    zero = digit(0, 40)
    request = v2.PostModelOutputsRequest(
        user_app_id=v2.UserAppIDSet(user_id="clarifai", app_id="main"), model_id="image-embedding"
    )
    request.inputs.add(data=image(zero))
    (output,) = ok(school("PostModelOutputs", request)).outputs
    vector = np.array([output.data.embeddings[0].vector], np.float32)
    # The archive says what the server says.
    (found,) = predict(school, "digits", image(zero))
    served = {concept.id: concept.value for concept in found.concepts}
    own = dict(zip(weights.concepts, weights.values(vector)[0].tolist(), strict=True))
    assert own == pytest.approx(served, abs=1e-5)


def test_what_was_uploaded_can_be_exported(school: Raw) -> None:
    create(school, "uploaded", "any-to-any")
    config = v2.PostModelVersionsUploadRequest()
    config.upload_config.model_id = "uploaded"
    config.upload_config.model_version.SetInParent()
    config.upload_config.total_size = 3
    part = v2.PostModelVersionsUploadRequest()
    part.content_part.part_number = 1
    part.content_part.data = b"abc"
    *_, last = school("PostModelVersionsUpload", iter([config, part]))
    version = v2.ModelVersion(id=last.model_version_id)
    until(lambda: current(school, "uploaded", version).status.code == Code.MODEL_TRAINED)
    export = exported(school, "uploaded", version.id)
    with zipfile.ZipFile(io.BytesIO(httpx.get(export.url).content)) as archive:
        assert archive.read("content") == b"abc"
    gone = v2.DeleteModelVersionRequest(model_id="uploaded", version_id=version.id)
    ok(school("DeleteModelVersion", gone))
    assert httpx.get(export.url).status_code == 404


def test_what_cannot_be_exported(school: Raw) -> None:
    create(school, "unlearned")
    failed = ended(school, "unlearned", post(school, "unlearned", wants("unheard-of")))
    put = v2.PutModelVersionExportsRequest(model_id="unlearned", version_id=failed.id)
    assert school("PutModelVersionExports", put).status.code == Code.MODEL_INVALID_REQUEST
    get = v2.GetModelVersionExportRequest(model_id="unlearned", version_id=failed.id)
    assert school("GetModelVersionExport", get).status.code == Code.CONN_DOES_NOT_EXIST
    create(school, "empty", "any-to-any")
    made = post(school, "empty")
    export = exported(school, "empty", made.id)
    assert export.status.code == Code.MODEL_EXPORTING_FAILED


# What is refused


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (v2.ModelVersion(train_info=params(unknown="x")), Code.MODEL_INVALID_ARGUMENT),
        (v2.ModelVersion(train_info=params(enrich_dataset="maybe")), Code.MODEL_INVALID_ARGUMENT),
        (v2.ModelVersion(train_info=params(template="deep")), Code.MODEL_INVALID_ARGUMENT),
        (
            v2.ModelVersion(train_info=params(concepts_mutually_exclusive="yes")),
            Code.MODEL_INVALID_ARGUMENT,
        ),
        (
            v2.ModelVersion(train_info=v2.TrainInfo(resume_from_model=v2.Model(id="m"))),
            Code.NOT_IMPLEMENTED,
        ),
        (
            v2.ModelVersion(pretrained_model_config=v2.PretrainedModelConfig(model_zip_url="x")),
            Code.NOT_IMPLEMENTED,
        ),
        (wants(""), Code.MODEL_INVALID_ARGUMENT),
    ],
)
def test_settings_that_cannot_be_are_refused(
    school: Raw, version: v2.ModelVersion, expected: int
) -> None:
    request = v2.PostModelVersionsRequest(model_id="digits", model_versions=[version])
    response = school("PostModelVersions", request)
    assert response.status.code == expected
    versions = ok(school("ListModelVersions", v2.ListModelVersionsRequest(model_id="digits")))
    assert len(versions.model_versions) == 1


def test_requests_that_cannot_be(school: Raw) -> None:
    def code(**fields: Any) -> int:
        request = v2.PostModelVersionsRequest(**fields)
        return int(school("PostModelVersions", request).status.code)

    assert code(model_id="no-such", model_versions=[v2.ModelVersion()]) == (
        Code.MODEL_DOES_NOT_EXIST
    )
    many = [v2.ModelVersion()] * 129
    assert code(model_id="digits", model_versions=many) == Code.MODEL_INVALID_REQUEST
    public = v2.UserAppIDSet(user_id="clarifai", app_id="main")
    assert code(
        user_app_id=public, model_id="color-recognition", model_versions=[v2.ModelVersion()]
    ) not in (Code.SUCCESS, Code.INTERNAL_UNCATEGORIZED)


def test_a_type_that_needs_no_training_is_ready_at_once(raw: Raw) -> None:
    create(raw, "own", "any-to-any")
    assert post(raw, "own").status.code == Code.MODEL_TRAINED


# What was learned, as bytes


@settings(deadline=None)  # the first example loads libraries
@given(
    concepts=st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=5, unique=True),
    dimensions=st.integers(1, 8),
    exclusive=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_weights_survive_being_bytes(
    concepts: list[str], dimensions: int, exclusive: bool, seed: int
) -> None:
    chance = np.random.default_rng(seed)

    def numbers(*shape: int) -> NDArray[np.float32]:
        return chance.normal(0, 10, shape).astype(np.float32)

    weights = Weights(
        tuple(concepts), numbers(len(concepts), dimensions), numbers(len(concepts)), exclusive
    )
    vectors = numbers(6, dimensions)
    again = Weights.from_bytes(weights.to_bytes())
    assert again.concepts == weights.concepts
    values = again.values(vectors)
    assert (values == weights.values(vectors)).all()
    assert ((values >= 0) & (values <= 1)).all()
    if exclusive:
        assert values.sum(axis=1) == pytest.approx(np.ones(6), abs=1e-5)


def test_weights_are_never_code() -> None:
    with pytest.raises(ValueError):
        Weights.from_bytes(pickle.dumps(["x"]))
    file = io.BytesIO()
    np.savez(file, concepts=np.array([object()], object), rows=np.zeros(1), bias=np.zeros(1))
    with pytest.raises(ValueError):
        Weights.from_bytes(file.getvalue())
