"""The models inside the server, on real pictures, texts and videos."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import PIL.Image
import pytest

from clarigrpc import v2
from clarigrpc.local import LocalServer
from clarigrpc.local.engine.builtin_models import builtin_models
from clarigrpc.local.engine.input_embeddings import EMBEDDING_LENGTHS
from clarigrpc.local.models.color_recognition import W3C_NAMES
from clarigrpc.local.models.model_types import BASES
from clarigrpc.local.service import model_tables
from tests.local.conftest import PUBLIC, Raw, png
from tests.local.pictures import encoded, photograph, video
from tests.local.web import serving

Code = v2.StatusCode


@pytest.fixture(scope="module")
def raw() -> Iterator[Raw]:
    with LocalServer() as server, grpc.insecure_channel(server.address) as channel:
        yield Raw(server, v2.V2Stub(channel))


def ask(raw: Raw, model_id: str, *data: v2.Data, **config: Any) -> list[v2.Output]:
    request = v2.PostModelOutputsRequest(user_app_id=PUBLIC, model_id=model_id)
    for one in data:
        request.inputs.add(data=one)
    request.model.model_version.output_info.output_config.MergeFrom(v2.OutputConfig(**config))
    return list(raw("PostModelOutputs", request).outputs)


def good(outputs: list[v2.Output]) -> list[v2.Data]:
    assert [output.status.code for output in outputs] == [Code.SUCCESS] * len(outputs), outputs
    return [output.data for output in outputs]


def image(content: bytes) -> v2.Data:
    return v2.Data(image=v2.Image(base64=content))


def text(raw: str) -> v2.Data:
    return v2.Data(text=v2.Text(raw=raw))


def film(content: bytes) -> v2.Data:
    return v2.Data(video=v2.Video(base64=content))


def test_every_public_model_has_a_type_and_says_what_it_is(raw: Raw) -> None:
    models = raw("ListModels", v2.ListModelsRequest(user_app_id=PUBLIC)).models
    types = raw("ListModelTypes", v2.ListModelTypesRequest(user_app_id=PUBLIC)).model_types
    ids = {kind.id for kind in types}
    assert {model.id for model in models} == set(builtin_models())
    assert {model.model_type_id for model in models} <= ids
    assert all(model.description for model in models)
    assert {kind.id for kind in types if kind.trainable} == set(BASES)


def test_the_page_about_the_models_is_as_the_code(raw: Raw) -> None:
    page = (Path(__file__).parents[3] / "docs" / "local-models.md").read_text()
    assert model_tables.written(page) == page
    rows = dict(re.findall(r"^\| `([\w-]+)` \| `([\w-]+)` \| ", page, re.MULTILINE))
    models = raw("ListModels", v2.ListModelsRequest(user_app_id=PUBLIC)).models
    assert rows == {model.id: model.model_type_id for model in models}
    for medium, dimensions in EMBEDDING_LENGTHS.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{medium}-embedding`"))
        assert f" {dimensions} numbers" in row
    assert f"the {len(W3C_NAMES)} named web colours" in page
    kinds = raw("ListModelTypes", v2.ListModelTypesRequest(user_app_id=PUBLIC)).model_types
    for field in (field for kind in kinds for field in kind.model_type_fields):
        assert f"`{field.path}`" in page


# Colours


def test_colours_of_photographs(raw: Raw) -> None:
    names = ("astronaut", "coffee", "chelsea", "rocket", "coins")
    results = good(
        ask(raw, "color-recognition", *(image(encoded(photograph(n), "JPEG")) for n in names))
    )
    for data in results:
        shares = [color.value for color in data.colors]
        assert shares == sorted(shares, reverse=True)
        assert 0.5 < sum(shares) <= 1.0 + 1e-6
        assert min(shares) >= 0.01
        assert [c.value for c in data.concepts] == sorted(
            (c.value for c in data.concepts), reverse=True
        )
    # Grey metal has no colour.
    assert all(
        len({color.raw_hex[n : n + 2] for n in (1, 3, 5)}) == 1 for color in results[-1].colors
    )


def test_colours_of_chance_pixels_add_up(raw: Raw) -> None:
    chance = np.random.default_rng(1)
    pictures = []
    for _ in range(64):
        height, width = chance.integers(1, 80, 2)
        few = chance.integers(0, 256, (chance.integers(1, 9), 3), dtype=np.uint8)
        pixels = few[chance.integers(0, len(few), (height, width))]
        pictures.append(image(encoded(PIL.Image.fromarray(pixels))))
    for data in good(ask(raw, "color-recognition", *pictures)):
        total = sum(color.value for color in data.colors)
        assert 0.85 < total <= 1.0 + 1e-6
        assert total == pytest.approx(sum(concept.value for concept in data.concepts))


# Faces


def test_a_face_is_found_where_it_is(raw: Raw) -> None:
    person = photograph("astronaut")  # 512 x 512; the face is about at (225, 115)
    pair = PIL.Image.new("RGB", (1024, 512))
    pair.paste(person, (0, 0))
    pair.paste(person, (512, 0))
    without = [photograph(name) for name in ("coffee", "brick", "coins")]
    found = good(
        ask(raw, "face-detection", *(image(encoded(p, "JPEG")) for p in (person, pair, *without)))
    )
    (face,) = found[0].regions
    box = face.region_info.bounding_box
    assert 0.30 < box.left_col < 225 / 512 < box.right_col < 0.60
    assert 0.08 < box.top_row < 115 / 512 < box.bottom_row < 0.40
    assert [(c.id, c.value) for c in face.data.concepts] == [("face", face.value)]
    assert 0.8 < face.value < 1.0
    halves = sorted(region.region_info.bounding_box.left_col for region in found[1].regions)
    assert len(halves) == 2
    assert halves[0] < 0.5 < halves[1]
    assert [len(data.regions) for data in found[2:]] == [0, 0, 0]


def test_faces_below_the_least_value_are_left_out(raw: Raw) -> None:
    person = image(encoded(photograph("astronaut"), "JPEG"))
    (data,) = good(ask(raw, "face-detection", person, min_value=0.99))
    assert not data.regions


# Texts


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("What a wonderful day, I love it!", "positive"),
        ("This is horrible. I hate the awful noise.", "negative"),
        ("The food was not good at all, terrible.", "negative"),
        ("The table has four legs.", "neutral"),
        ("…", "neutral"),
    ],
)
def test_sentiment(raw: Raw, said: str, expected: str) -> None:
    (data,) = good(ask(raw, "text-sentiment", text(said)))
    assert data.concepts[0].id == expected
    assert sum(concept.value for concept in data.concepts) == pytest.approx(1.0)
    values = [concept.value for concept in data.concepts]
    assert values == sorted(values, reverse=True)
    compound = data.metadata["compound"]
    assert isinstance(compound, float)
    assert np.sign(compound) == {"positive": 1, "neutral": 0, "negative": -1}[expected]


def test_texts_that_share_words_have_vectors_that_are_close(raw: Raw) -> None:
    said = ("the invoice is overdue", "overdue invoices were sent", "a walk along the beach")
    vectors = [
        np.array(data.embeddings[0].vector)
        for data in good(ask(raw, "text-embedding", *map(text, said)))
    ]
    assert [float(np.linalg.norm(v)) for v in vectors] == pytest.approx([1, 1, 1])
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2


def test_the_vector_of_an_image_survives_another_size_and_format(raw: Raw) -> None:
    cat, coffee = photograph("chelsea"), photograph("coffee")
    files = (
        encoded(cat),
        encoded(cat.resize((200, 133)), "JPEG"),
        encoded(coffee),
    )
    vectors = []
    for data in good(ask(raw, "image-embedding", *map(image, files))):
        (embedding,) = data.embeddings
        assert embedding.num_dimensions == len(embedding.vector)
        vectors.append(np.array(embedding.vector))
    assert vectors[0] @ vectors[1] > 0.98 > 0.9 > vectors[0] @ vectors[2]


@pytest.mark.parametrize(
    "model_id", ["color-recognition", "face-detection", "image-embedding", "text-sentiment"]
)
def test_what_a_model_cannot_take_fails_alone(raw: Raw, model_id: str) -> None:
    right = text("fine") if model_id == "text-sentiment" else image(png("red"))
    wrong = image(png("red")) if model_id == "text-sentiment" else text("fine")
    outputs = ask(raw, model_id, right, wrong, v2.Data(), right)
    assert [output.status.code for output in outputs] == [
        Code.SUCCESS,
        Code.INPUT_UNSUPPORTED_FORMAT,
        Code.INPUT_INVALID_ARGUMENT,
        Code.SUCCESS,
    ]


# Videos


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """6.5 s: two of red, two of blue, the rest lime."""
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    return video(path, [("red", 20), ("blue", 20), ("lime", 25)])


def seen(data: v2.Data) -> list[tuple[int, str]]:
    return [(frame.frame_info.time, frame.data.concepts[0].id) for frame in data.frames]


@pytest.mark.parametrize(
    ("sample_ms", "expected"),
    [
        (2000, [(1000, "red"), (3000, "blue"), (5000, "lime")]),
        (
            0,
            [
                *((500, "red"), (1500, "red"), (2500, "blue")),
                *((3500, "blue"), (4500, "lime"), (5500, "lime")),
            ],
        ),
        (4000, [(2000, "blue"), (6000, "lime")]),
        (13000, [(6500 // 2, "blue")]),  # the video ends before the middle of the first interval
        (60000, [(6500 // 2, "blue")]),
    ],
)
def test_frames_come_from_the_middle_of_each_interval(
    raw: Raw, clip: bytes, sample_ms: int, expected: list[tuple[int, str]]
) -> None:
    (data,) = good(ask(raw, "color-recognition", film(clip), sample_ms=sample_ms))
    assert seen(data) == expected
    assert [frame.frame_info.index for frame in data.frames] == list(range(len(expected)))
    assert [frame.frame_info.number for frame in data.frames] == [t // 100 for t, _ in expected]


def test_the_shortest_interval_takes_every_frame_of_ten_a_second(raw: Raw, clip: bytes) -> None:
    (data,) = good(ask(raw, "color-recognition", film(clip), sample_ms=100))
    assert [frame.frame_info.number for frame in data.frames] == list(range(65))
    assert [frame.frame_info.time for frame in data.frames] == [100 * n + 50 for n in range(65)]


def test_a_frame_that_shows_for_long_stands_for_each_interval(raw: Raw, tmp_path: Path) -> None:
    slow = video(tmp_path / "slow.avi", [("red", 1), ("blue", 1)], fps=0.5, codec="MJPG")
    (data,) = good(ask(raw, "color-recognition", film(slow)))
    assert seen(data) == [(500, "red"), (1500, "red"), (2500, "blue"), (3500, "blue")]


def test_limits_on_concepts_hold_for_each_frame(raw: Raw, clip: bytes) -> None:
    (data,) = good(ask(raw, "color-recognition", film(clip), sample_ms=2000, min_value=1.1))
    assert [len(frame.data.concepts) for frame in data.frames] == [0, 0, 0]


def test_videos_by_url(raw: Raw, clip: bytes) -> None:
    with serving(lambda: clip) as web:
        data = v2.Data(video=v2.Video(url=f"{web}/clip.mp4"))
        (found,) = good(ask(raw, "color-recognition", data, sample_ms=4000))
    assert seen(found) == [(2000, "blue"), (6000, "lime")]


def test_faces_and_vectors_of_a_video(raw: Raw, tmp_path: Path) -> None:
    person = photograph("astronaut").crop((100, 0, 356, 192))
    scenes = [(person, 10), (photograph("brick"), 10)]
    content = video(tmp_path / "person.mp4", scenes)
    (faces,) = good(ask(raw, "face-detection", film(content)))
    assert [len(frame.data.regions) for frame in faces.frames] == [1, 0]
    (vectors,) = good(ask(raw, "image-embedding", film(content)))
    (still,) = good(ask(raw, "image-embedding", image(encoded(person.resize((160, 120))))))
    alike = [
        float(np.array(frame.data.embeddings[0].vector) @ np.array(still.embeddings[0].vector))
        for frame in vectors.frames
    ]
    assert alike[0] > 0.95 > 0.9 > alike[1]


def test_frames_are_streamed_one_by_one(raw: Raw, clip: bytes) -> None:
    request = v2.PostModelOutputsRequest(user_app_id=PUBLIC, model_id="color-recognition")
    request.inputs.add(data=film(clip))
    request.model.model_version.output_info.output_config.sample_ms = 2000
    pieces = [seen(r.outputs[0].data) for r in raw("GenerateModelOutputs", request)]
    assert pieces == [[(1000, "red")], [(3000, "blue")], [(5000, "lime")]]


@pytest.mark.parametrize("sample_ms", [99, 60001])
def test_intervals_out_of_bounds_are_refused(raw: Raw, clip: bytes, sample_ms: int) -> None:
    (output,) = ask(raw, "color-recognition", film(clip), sample_ms=sample_ms)
    assert output.status.code == Code.PREDICT_INVALID_REQUEST
    assert str(sample_ms) in output.status.details


def test_what_is_no_video_is_refused(raw: Raw, clip: bytes, tmp_path: Path) -> None:
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(clip)
    playlist = f"#EXTM3U\n#EXTINF:1,\n{secret}\n#EXT-X-ENDLIST\n".encode()
    listing = f"ffconcat version 1.0\nfile '{secret}'\n".encode()
    outputs = ask(
        raw,
        "color-recognition",
        *map(film, (b"nonsense", clip[:40], png("red"), playlist, listing, clip)),
        sample_ms=4000,
    )
    assert [output.status.code for output in outputs] == [Code.INPUT_UNSUPPORTED_FORMAT] * 5 + [
        Code.SUCCESS
    ]


def test_videos_of_more_than_ten_minutes_are_refused(raw: Raw, tmp_path: Path) -> None:
    scenes = [("red", 61)]
    long = video(tmp_path / "long.avi", scenes, fps=0.1, codec="MJPG")
    (output,) = ask(raw, "color-recognition", film(long))
    assert output.status.code == Code.INPUT_OVER_LIMIT
    assert "10 minutes" in output.status.details


def test_a_model_stops_when_its_caller_has_gone(raw: Raw, tmp_path: Path) -> None:
    content = video(tmp_path / "steady.mp4", [("red", 400)], fps=1)
    request = v2.PostModelOutputsRequest(user_app_id=PUBLIC, model_id="color-recognition")
    request.inputs.add(data=film(content))
    request.model.model_version.output_info.output_config.sample_ms = 100
    call = raw("GenerateModelOutputs", request)
    next(call)
    call.cancel()
    # The thread is free again: as many streams as there are threads, and one call more.
    for _ in range(64):
        call = raw("GenerateModelOutputs", request)
        next(call)
        call.cancel()
    assert raw("GetInputCount", v2.GetInputCountRequest()).status.code == Code.SUCCESS
