"""Dataset versions that are more than what was annotated: frames in between, predictions."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clarigrpc import v2
from clarigrpc.local.engine.box_interpolation import MAX_FRAMES, interpolate
from clarigrpc.local.service_errors import ServiceError
from tests.local.conftest import Raw, add_image, clip, message, ok, settled
from tests.waiting import until

Code = v2.StatusCode


def frame(time: int, left: float, *, track: str = "t", concept: str = "ball") -> dict[str, Any]:
    box = {"top_row": 0.1, "left_col": left, "bottom_row": 0.4, "right_col": left + 0.2}
    return {
        "frame_info": {"time": time, "number": time // 100},
        "data": {
            "regions": [
                {
                    "track_id": track,
                    "region_info": {"bounding_box": box},
                    "data": {"concepts": [{"id": concept, "value": 1}]},
                }
            ]
        },
    }


def lefts(annotation: v2.Annotation, track: str = "t") -> dict[int, float]:
    return {
        one.frame_info.time: region.region_info.bounding_box.left_col
        for one in annotation.data.frames
        for region in one.data.regions
        if region.track_id == track
    }


def label(*frames: dict[str, Any]) -> v2.Annotation:
    made: v2.Annotation = message(
        v2.Annotation, id="a", input_id="i", data={"frames": list(frames)}
    )
    return made


def test_a_box_moves_evenly() -> None:
    found = interpolate(label(frame(0, 0.0), frame(1000, 0.8)), 250)
    assert lefts(found) == pytest.approx({0: 0.0, 250: 0.2, 500: 0.4, 750: 0.6, 1000: 0.8})
    assert [one.frame_info.number for one in found.data.frames] == [0, 2, 5, 8, 10]
    assert {r.data.concepts[0].id for f in found.data.frames for r in f.data.regions} == {"ball"}


@settings(max_examples=60, deadline=None)
@given(
    keys=st.dictionaries(st.integers(0, 5000), st.floats(0, 0.75, width=32), max_size=6),
    others=st.dictionaries(st.integers(0, 5000), st.floats(0, 0.75, width=32), max_size=3),
    sample_ms=st.integers(100, 3000),
)
def test_frames_in_between(
    keys: dict[int, float], others: dict[int, float], sample_ms: int
) -> None:
    frames = [frame(time, left) for time, left in keys.items()]
    frames += [frame(time, left, track="u") for time, left in others.items() if time not in keys]
    found = interpolate(label(*frames), sample_ms)
    times = [one.frame_info.time for one in found.data.frames]
    assert times == sorted(set(times))
    for track, known in (("t", keys), ("u", {t: v for t, v in others.items() if t not in keys})):
        have = lefts(found, track)
        assert {time: have[time] for time in known} == pytest.approx(known)
        expected = set(known)
        if known:
            expected |= {
                time for time in range(0, max(known), sample_ms) if min(known) < time < max(known)
            } - (set(keys) | set(others))
        # A frame that somebody annotated stays as it is, without a box of the other track.
        assert set(have) == expected | set(known)
        for time in set(have) - set(known):
            before = max(t for t in known if t < time)
            after = min(t for t in known if t > time)
            low, high = sorted((known[before], known[after]))
            assert low - 1e-6 <= have[time] <= high + 1e-6


def test_too_many_frames() -> None:
    with pytest.raises(ServiceError, match=str(MAX_FRAMES)):
        interpolate(label(frame(0, 0.0), frame(10**9, 0.5)), 1)


def version(raw: Raw, **fields: Any) -> v2.DatasetVersion:
    request = message(v2.PostDatasetVersionsRequest, dataset_id="d", dataset_versions=[fields])
    made = ok(raw("PostDatasetVersions", request)).dataset_versions[0]
    get = v2.GetDatasetVersionRequest(dataset_id="d", dataset_version_id=made.id)

    def look() -> v2.DatasetVersion | None:
        found: v2.DatasetVersion = ok(raw("GetDatasetVersion", get)).dataset_version
        return None if found.status.code == Code.DATASET_VERSION_PENDING else found

    done: v2.DatasetVersion = until(look)
    return done


def test_a_version_with_frames_in_between(raw: Raw) -> None:
    ok(raw("PostDatasets", v2.PostDatasetsRequest(datasets=[v2.Dataset(id="d")])))
    request = v2.PostInputsRequest()
    request.inputs.add(id="i", dataset_ids=["d"]).data.video.base64 = clip(frames=11)
    ok(raw("PostInputs", request))
    assert settled(raw, "i").status.code == Code.INPUT_SUCCESS
    given_label = label(frame(0, 0.0), frame(1000, 0.8))
    ok(raw("PostAnnotations", v2.PostAnnotationsRequest(annotations=[given_label])))
    processing = {"frame_interpolation_info": {"sample_ms": 250}}
    made = version(raw, processing_info=processing)
    assert made.status.code == Code.DATASET_VERSION_READY
    assert made.metrics["/"].frames_count.value == 5
    assert made.processing_info.frame_interpolation_info.sample_ms == 250
    assert version(raw).metrics["/"].frames_count.value == 2
    wrong = message(
        v2.PostDatasetVersionsRequest, dataset_id="d", dataset_versions=[{"processing_info": {}}]
    )
    assert raw("PostDatasetVersions", wrong).status.code == Code.CONN_INVALID_REQUEST


CLIENT_KINDS = {"id": "color-recognition", "user_id": "clarifai", "app_id": "main"}


def test_a_version_of_predictions(raw: Raw) -> None:
    ok(raw("PostDatasets", v2.PostDatasetsRequest(datasets=[v2.Dataset(id="d")])))
    for name, colour in (("a", "red"), ("b", "blue")):
        add_image(raw, name, colour, concepts=[{"id": colour, "value": 1}])
        join = v2.PostDatasetInputsRequest(dataset_id="d")
        join.dataset_inputs.add().input.id = name
        ok(raw("PostDatasetInputs", join))
    truth = version(raw, id="truth")
    made = version(raw, id="predicted", model_predict_config={"model": CLIENT_KINDS})
    assert made.status.code == Code.DATASET_VERSION_READY
    assert made.model_predict_config.model.model_version.id
    assert made.metrics["/"].unlabeled_inputs_count.value == 0
    # What was predicted can be judged by what was annotated.
    request = message(
        v2.PostEvaluationsRequest,
        eval_metrics=[
            {
                "id": "e",
                "model": CLIENT_KINDS,
                "ground_truth_dataset": {"id": "d", "version": {"id": truth.id}},
                "predictions_dataset": {"id": "d", "version": {"id": made.id}},
            }
        ],
    )
    ok(raw("PostEvaluations", request))
    get = v2.GetEvaluationRequest(evaluation_id="e")

    def done() -> v2.EvalMetrics | None:
        found: v2.EvalMetrics = ok(raw("GetEvaluation", get)).eval_metrics
        return found if found.status.code == Code.MODEL_EVALUATED else None

    summary = until(done).summary
    assert (summary.macro_avg_precision, summary.macro_avg_recall) == (1.0, 1.0)
    unknown = message(
        v2.PostDatasetVersionsRequest,
        dataset_id="d",
        dataset_versions=[{"model_predict_config": {"model": {"id": "none"}}}],
    )
    assert raw("PostDatasetVersions", unknown).status.code == Code.MODEL_DOES_NOT_EXIST
