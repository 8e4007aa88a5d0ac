"""User values -> inputs."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from clarigrpc import audio, errors, image, text, v2, video
from clarigrpc.media import as_input

MEDIA = [(image, "image"), (video, "video"), (audio, "audio")]
each = pytest.mark.parametrize(("make", "kind"), MEDIA)
CONTENT = b"\x00\x01content"


@each
def test_sources_of_bytes(make: Any, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(CONTENT)
    with path.open("rb") as file:
        sources = [
            CONTENT,
            bytearray(CONTENT),
            memoryview(CONTENT),
            path,
            str(path),
            file,
            io.BytesIO(CONTENT),
        ]
        for source in sources:
            made = make(source)
            assert type(made) is v2.Input
            assert getattr(made.data, kind).base64 == CONTENT
            assert [field.name for field, _ in made.data.ListFields()] == [kind]


@each
def test_urls(make: Any, kind: str) -> None:
    for url in ("http://h/x", "https://h/x?a=1", "HTTPS://h/x"):
        assert getattr(make(url).data, kind).url == url
    assert getattr(make("http://h/x", allow_duplicate_url=True).data, kind).allow_duplicate_url


@each
def test_empty_sources(make: Any, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    for source in (b"", bytearray(), path, io.BytesIO()):
        with pytest.raises(errors.InvalidArgumentError, match=f"{kind}.*empty"):
            make(source)


@each
def test_sources_of_wrong_types(make: Any, kind: str) -> None:
    for source in (None, 5, 1.5, [], {}, object(), v2.Image()):
        with pytest.raises(TypeError, match=f"{kind}.. takes a path, a URL, bytes"):
            make(source)
    with pytest.raises(TypeError, match="binary mode"):
        make(io.StringIO("text"))


def test_ids_concepts_and_metadata() -> None:
    made = image(
        b"x",
        id="i",
        concepts=["cat", v2.Concept(id="dog", value=0.5)],
        metadata={"a": [1, None, {"b": "c"}], "d": True},
    )
    assert made.id == "i"
    assert [(one.id, one.value) for one in made.data.concepts] == [("cat", 1), ("dog", 0.5)]
    assert dict(made.data.metadata)["d"] is True
    made = text("t", concepts={"cat": 1.0, "dog": 0.0})
    assert [(one.id, one.value) for one in made.data.concepts] == [("cat", 1), ("dog", 0)]
    assert made.data.text.raw == "t"
    for one in ("cat", v2.Concept(id="cat", value=1)):
        assert list(image(b"x", concepts=one).data.concepts) == [v2.Concept(id="cat", value=1)]
    for wrong in ({"cat": "yes"}, {1: 1.0}, [1], 5):
        with pytest.raises(TypeError, match="concepts are ids, or a mapping of id to value, not"):
            text("t", concepts=wrong)  # type: ignore[arg-type]


def test_text_is_never_a_path_or_a_url(tmp_path: Path) -> None:
    for raw in ("http://h/x", str(tmp_path), "", "é"):
        assert text(raw).data.text.raw == raw
    for wrong in (None, b"bytes", 5, tmp_path):
        with pytest.raises(TypeError, match="takes a string"):
            text(wrong)  # type: ignore[arg-type]


def decoded(made: v2.Input) -> PIL.Image.Image:
    return PIL.Image.open(io.BytesIO(made.data.image.base64))


def test_pictures_and_arrays_are_sent_as_png() -> None:
    array = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    for source in (array, PIL.Image.fromarray(array)):
        picture = decoded(image(source))
        assert picture.format == "PNG"
        assert np.array_equal(np.asarray(picture), array)
    grey = array[:, :, 0]
    assert np.array_equal(np.asarray(decoded(image(grey))), grey)
    assert decoded(image(np.zeros((2, 2, 4), np.uint8))).mode == "RGBA"


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 2, 3), np.float32),
        np.zeros(4, np.uint8),
        np.zeros((1, 2, 2, 3), np.uint8),
        np.zeros((0, 2, 3), np.uint8),
        np.zeros((2, 2, 7), np.uint8),
    ],
)
def test_arrays_that_are_no_pictures(array: Any) -> None:
    with pytest.raises(errors.InvalidArgumentError, match="image"):
        image(array)


def test_what_predict_takes() -> None:
    made = text("t")
    assert as_input(made) is made
    assert as_input(b"x").data.image.base64 == b"x"
    with pytest.raises(TypeError, match=r"say image\(\.\.\.\)"):
        as_input("cat.jpg")  # type: ignore[arg-type]
