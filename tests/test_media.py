"""User values -> inputs."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageCms
import PIL.ImageOps
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
def test_a_file_that_no_message_can_hold_is_not_read(make: Any, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(2**31)
    with pytest.raises(errors.InvalidArgumentError, match=rf"{kind}\(.*large.*2147483648 bytes"):
        make(path)


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
    for wrong in ({"cat": "yes"}, {1: 1.0}, [1], [0], 5, [None], {None: 1.0}):
        with pytest.raises(TypeError, match="concepts are ids, or a mapping of id to value, not"):
            text("t", concepts=wrong)  # type: ignore[arg-type]


def test_a_concept_has_an_id() -> None:
    given: list[Any] = [["cat", ""], {"": 1.0}]
    for empty in given:
        with pytest.raises(errors.InvalidArgumentError, match="the id of a concept is empty"):
            text("t", concepts=empty)


def test_text_is_never_a_path_or_a_url(tmp_path: Path) -> None:
    for raw in ("http://h/x", str(tmp_path), "", "é"):
        assert text(raw).data.text.raw == raw
    for wrong in (None, b"bytes", 5, tmp_path):
        with pytest.raises(TypeError, match="takes a string"):
            text(wrong)  # type: ignore[arg-type]


def test_what_no_message_can_hold() -> None:
    half = "x\ud83d"  # as json.loads makes of a text that was cut
    makers: list[Callable[[], Any]] = [
        lambda: text(half),
        lambda: text("x", id=half),
        lambda: text("x", concepts=[half]),
        lambda: text("x", concepts={"a": 10**400}),
        lambda: text("x", metadata={"a": half}),
        lambda: image(f"http://h/{half}"),
    ]
    for make in makers:
        with pytest.raises(errors.InvalidArgumentError, match=r"surrogate|too large"):
            make()


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
        np.zeros((2, 2, 3), np.int32),
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


MODES = [
    *("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "La"),
    *("CMYK", "YCbCr", "LAB", "HSV", "I", "I;16", "I;16B", "F"),
]


def sent(picture: Any) -> PIL.Image.Image:
    return PIL.Image.open(io.BytesIO(image(picture).data.image.base64))


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_pillow_is_sent_or_refused(mode: str) -> None:
    made = sent(PIL.Image.new(mode, (5, 3)))
    assert made.size == (5, 3)
    assert made.mode in ("1", "L", "LA", "P", "RGB", "RGBA")


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "LAB", "RGBX", "RGBa", "PA"])
def test_colours_stay_what_they_are(mode: str) -> None:
    red = PIL.Image.new("RGB", (4, 4), (255, 0, 0))
    if mode == "LAB":
        srgb, lab = PIL.ImageCms.createProfile("sRGB"), PIL.ImageCms.createProfile("LAB")
        other: Any = PIL.ImageCms.profileToProfile(red, srgb, lab, outputMode="LAB")
    elif mode == "RGBa":
        other = red.convert("RGBA").convert(mode)
    elif mode == "PA":
        other = red.convert("P").convert(mode)
    else:
        other = red.convert(mode)
    pixel: Any = sent(other).convert("RGB").getpixel((1, 1))
    assert np.abs(np.subtract(pixel, (255, 0, 0))).max() < 12


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_sent_as_a_viewer_shows_it(orientation: int) -> None:
    upright = PIL.Image.new("RGB", (40, 20), "red")
    upright.paste("blue", (0, 0, 10, 20))
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    upright.save(file, "JPEG", exif=exif, quality=100)
    opened = PIL.Image.open(file)
    shown = PIL.ImageOps.exif_transpose(opened)
    made = sent(opened)
    assert made.getexif().get(0x0112, 1) == 1
    assert np.abs(np.asarray(made, int) - np.asarray(shown, int)).max() < 8


def test_samples_of_more_than_8_bits_are_scaled_or_refused() -> None:
    ramp = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    expected = np.rint(ramp / 257)
    pictures: list[Any] = [
        ramp,
        PIL.Image.fromarray(ramp),
        PIL.Image.fromarray(ramp.astype(np.int32)),
    ]
    for picture in pictures:
        assert np.abs(np.asarray(sent(picture), int) - expected).max() <= 1
    share = (ramp / 65535).astype(np.float32)
    shares: list[Any] = [share, share.astype(np.float64), PIL.Image.fromarray(share)]
    for picture in shares:
        assert np.abs(np.asarray(sent(picture), int) - expected).max() <= 1
    assert set(np.unique(np.asarray(sent(ramp > 30000).convert("L")))) == {0, 255}
    integers = ramp.astype(np.int32)
    for array in (share * 2, share - 1, share * np.nan, integers):
        with pytest.raises(errors.InvalidArgumentError, match=r"samples|dtype"):
            image(array)
    outside: list[Any] = [integers + 1, integers - 1, share * 2]
    for picture in outside:
        with pytest.raises(errors.InvalidArgumentError, match="samples"):
            image(PIL.Image.fromarray(picture))


@each
def test_data_uris(make: Any, kind: str) -> None:
    for uri in ("data:image/png;base64,AAEC", "DATA:;base64,AAEC", "data:,%00%01%02"):
        assert getattr(make(uri).data, kind).base64 == b"\x00\x01\x02"
    for wrong in ("data:image/png;base64", "data:image/png;base64,A*B="):
        with pytest.raises(errors.InvalidArgumentError, match=r"data URI|base64"):
            make(wrong)


@each
def test_text_that_is_no_path_is_a_short_error(make: Any, kind: str) -> None:
    for wrong in ("QUJD" * 10_000, "ab/" * 500, "a\0b"):
        with pytest.raises(errors.InvalidArgumentError, match="no path") as found:
            make(wrong)
        assert len(str(found.value)) < 300


def test_places() -> None:
    for made in (image(CONTENT, geo=(50.5, -7)), text("x", geo=(50.5, -7))):
        point = made.data.geo.geo_point
        assert (point.latitude, point.longitude) == (50.5, -7)
    for wrong in ((91, 0), (0, 181), (float("nan"), 0)):
        with pytest.raises(errors.InvalidArgumentError, match="latitude"):
            text("x", geo=wrong)


@pytest.mark.parametrize("geo", [(1,), "ab", 3, (None, 1), ("1", "2")])
def test_a_place_is_two_numbers(geo: Any) -> None:
    with pytest.raises(TypeError, match=r"\(latitude, longitude\)|has to be a number"):
        text("here", geo=geo)


def test_a_concept_with_nan_is_refused() -> None:
    with pytest.raises(errors.InvalidArgumentError, match="'cat' is NaN"):
        text("a cat", concepts={"cat": math.nan})


def test_a_picture_opened_as_text(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"\xff\xd8")
    with path.open(encoding="utf-8") as file, pytest.raises(TypeError, match="binary mode"):
        image(file)  # type: ignore[arg-type]


def test_grey_with_an_axis_of_its_own() -> None:
    samples = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert image(samples[:, :, None]) == image(samples)
