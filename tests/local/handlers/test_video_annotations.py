"""Annotations of videos by frame: of a track, and streamed."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import json_format

from clarigrpc import v2
from tests.local.conftest import Raw, clip, message, ok, png, settled

Code = v2.StatusCode

BOX = {"bounding_box": {"top_row": 0.1, "left_col": 0.1, "bottom_row": 0.5, "right_col": 0.5}}
POINT = {"point": {"row": 0.5, "col": 0.5}}


def frame(number: int, *regions: tuple[str, dict[str, Any], float], tag: str = "") -> Any:
    return {
        "frame_info": {"number": number, "time": number * 100},
        "data": {
            "concepts": [{"id": tag, "value": 1}] if tag else [],
            "regions": [
                {"track_id": track, "region_info": info, "value": value}
                for track, info, value in regions
            ],
        },
    }


@pytest.fixture
def video(raw: Raw) -> Raw:
    """A video with boxes of track t at frames 0 to 4, a point of track u at 2, and predictions."""
    request = v2.PostInputsRequest()
    request.inputs.add(id="v").data.video.base64 = clip(frames=6)
    request.inputs.add(id="picture").data.image.base64 = png("red")
    ok(raw("PostInputs", request))
    for name in ("v", "picture"):
        settled(raw, name)
    boxes = [frame(number, ("t", BOX, 1.0)) for number in (4, 3, 2, 1, 0)]
    labels = [
        {"id": "people", "data": {"frames": boxes}},
        {"id": "point", "data": {"frames": [frame(2, ("u", POINT, 1.0), tag="goal")]}},
        {
            "id": "model",
            "model_version_id": "mv",
            "data": {"frames": [frame(1, ("p", BOX, 0.9)), frame(3, ("p", BOX, 0.2))]},
        },
    ]
    post = message(v2.PostAnnotationsRequest, annotations=[{"input_id": "v", **a} for a in labels])
    ok(raw("PostAnnotations", post))
    return raw


def streamed(raw: Raw, **fields: Any) -> list[tuple[int, str]]:
    request = json_format.ParseDict({"input_id": "v", **fields}, v2.StreamAnnotationsRequest())
    responses = raw.stub.StreamAnnotations(request, metadata=raw.metadata, timeout=20)
    found, complete = [], []
    for response in responses:
        found.append(ok(response).annotation)
        if response.frame_fully_processed:
            complete.append(response.annotation.data.frames[0].frame_info.number)
    assert complete == sorted({a.data.frames[0].frame_info.number for a in found})
    return [(a.data.frames[0].frame_info.number, a.id) for a in found]


def test_a_stream_in_the_order_of_frames(video: Raw) -> None:
    every = streamed(video)
    assert [number for number, _ in every] == [0, 1, 1, 2, 2, 3, 3, 4]
    assert [name for number, name in every if number == 2] == ["people", "point"]
    for fields, expected in (
        ({"frame_number_start": 3}, [3, 3, 4]),
        ({"frame_time_start": 400}, [4]),
        ({"max_frames": 2}, [0, 1, 1]),
        ({"frame_number_start": 2, "max_frames": 2, "track_ids": ["t"]}, [2, 3]),
        ({"frame_number_start": 1, "max_duration": 200}, [1, 1, 2, 2]),
        ({"frame_time_start": 200, "max_frames": 2, "track_ids": ["t"]}, [2, 3]),
        ({"max_duration": 150}, [0, 1, 1]),
        ({"track_ids": ["t"]}, [0, 1, 2, 3, 4]),
        ({"track_ids": ["p", "u"]}, [1, 2, 3]),
        ({"annotation_type": "POINT"}, [2]),
        ({"annotation_type": 1 + 8}, [2]),
        ({"min_prediction_score": 0.5}, [0, 1, 1, 2, 2, 3, 4]),
        ({"worker": {"model": {"model_version": {"id": "mv"}}}}, [1, 3]),
        ({"worker": {"user": {"id": "nobody"}}}, []),
    ):
        assert [number for number, _ in streamed(video, **fields)] == expected, fields


def test_a_track(video: Raw) -> None:
    request = v2.PostTrackAnnotationsSearchesRequest(input_id="v", track_id="t", max_frames=3)
    found = ok(video("PostTrackAnnotationsSearches", request)).annotations
    assert [a.data.frames[0].frame_info.number for a in found] == [0, 1, 2]
    assert all(r.track_id == "t" for a in found for r in a.data.frames[0].data.regions)
    for fields, code in (
        ({"input_id": "v"}, Code.ANNOTATION_INVALID_ARGUMENT),
        ({"input_id": "none", "track_id": "t"}, Code.INPUT_DOES_NOT_EXIST),
        ({"input_id": "picture", "track_id": "t"}, Code.INPUT_INVALID_ARGUMENT),
    ):
        wrong = message(v2.PostTrackAnnotationsSearchesRequest, **fields)
        assert video("PostTrackAnnotationsSearches", wrong).status.code == code
