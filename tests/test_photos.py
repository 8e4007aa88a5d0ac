"""Images that are shrunk or converted before they are sent."""

from __future__ import annotations

import io
import struct
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageCms
import PIL.ImageOps
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clarigrpc import errors, image
from tests.both import Both
from tests.broken_exif import BROKEN_EXIF
from tests.bulk.service import METHOD, outputs, script
from tests.scripted import ScriptedServer

SRGB = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()
RED, BLUE = (255, 0, 0), (0, 0, 255)


def picture(width: int = 400, height: int = 200, mode: str = "RGB") -> PIL.Image.Image:
    """Red, with a blue left quarter."""
    made = PIL.Image.new("RGB", (width, height), RED)
    made.paste(BLUE, (0, 0, width // 4, height))
    return made.convert(mode)


def file_of(made: PIL.Image.Image, format: str = "JPEG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    made.save(buffer, format, **options)
    return buffer.getvalue()


def sent(source: Any, **options: Any) -> PIL.Image.Image:
    content = image(source, **options).data.image.base64
    opened = PIL.Image.open(io.BytesIO(content))
    opened.load()
    return opened


def differs(one: PIL.Image.Image, other: PIL.Image.Image) -> float:
    """The mean difference of two pictures, of 255."""
    return float(
        np.abs(np.asarray(one.convert("RGB"), int) - np.asarray(other.convert("RGB"), int)).mean()
    )


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.integers(1, 400),
    st.sampled_from(["JPEG", "PNG", "WEBP", "BMP"]),
)
def test_no_side_is_longer_and_nothing_is_enlarged(
    width: int, height: int, max_side: int, format: str
) -> None:
    content = file_of(PIL.Image.new("RGB", (width, height), RED), format)
    made = sent(content, max_side=max_side)
    assert made.format == ("PNG" if format == "BMP" else format)
    if max(width, height) <= max_side:
        assert made.size == (width, height)
        if format != "BMP":
            assert image(content, max_side=max_side).data.image.base64 == content
        return
    assert max(made.size) == max_side
    scale = max_side / max(width, height)
    for side, whole in zip(made.size, (width, height), strict=True):
        assert abs(side - max(1, whole * scale)) <= 0.5


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("opened", [False, True], ids=["file", "Pillow"])
def test_a_shrunk_photo_is_turned_as_a_viewer_shows_it(orientation: int, opened: bool) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "a maker of cameras"
    content = file_of(picture(), exif=exif, quality=95)
    shown = PIL.ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(content)))
    source: Any = PIL.Image.open(io.BytesIO(content)) if opened else content
    made = sent(source, max_side=100)
    assert made.size == ((100, 50) if orientation < 5 else (50, 100))
    assert dict(made.getexif()) == {}
    assert differs(made, shown.resize(made.size)) < 8


@pytest.mark.parametrize(
    ("exif", "size"), [(exif, (50, 100) if turns else (100, 50)) for exif, turns in BROKEN_EXIF]
)
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_a_photo_with_broken_exif_is_sent_all_the_same(
    exif: bytes, size: tuple[int, int], format: str
) -> None:
    content = file_of(picture(), format, exif=exif, dpi=(72, 72))
    for source in (content, PIL.Image.open(io.BytesIO(content))):
        made = sent(source, max_side=100)
        assert made.size == size
        shown = (
            picture() if size == (100, 50) else picture().transpose(PIL.Image.Transpose.ROTATE_270)
        )
        assert differs(made, shown.resize(size)) < 8


@pytest.mark.parametrize("format", ["jpeg", "png", "webp"])
def test_a_turned_photo_is_not_turned_again(format: Any) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
    made = sent(file_of(picture(), exif=exif, xmp=xmp), format=format, quality=None)
    assert made.size == ((400, 200) if format == "jpeg" else (200, 400))
    assert sent(file_of(picture(), exif=exif, xmp=xmp), max_side=100, format=format).size == (
        50,
        100,
    )
    if format != "jpeg":
        assert PIL.ImageOps.exif_transpose(made).size == made.size


def test_what_a_decoder_raises_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise struct.error("unpack requires a buffer of 4 bytes")

    monkeypatch.setattr(PIL.Image.Image, "resize", broken)
    with pytest.raises(errors.InvalidArgumentError, match="a buffer of 4 bytes"):
        image(file_of(picture(), "PNG"), max_side=100)


@pytest.mark.parametrize("format", ["jpeg", "png", "webp"])
@pytest.mark.parametrize("clear", [False, True], ids=["opaque", "transparent"])
def test_a_profile_of_greys_is_kept_with_greys(format: Any, clear: bool) -> None:
    options = {"transparency": 7} if clear else {}
    content = file_of(picture(mode="L"), "PNG", icc_profile=b"grey", **options)
    made = sent(content, max_side=100, format=format)
    assert ("icc_profile" in made.info) == (made.mode == "L")
    assert (made.mode == "L") == (format != "webp" and not clear)


def test_a_picture_of_pillow_is_left_as_it_was() -> None:
    opened = PIL.Image.open(io.BytesIO(file_of(picture())))
    made = sent(opened, max_side=50)
    assert (made.size, made.format) == ((50, 25), "PNG")
    assert opened.size == (400, 200)
    opened.load()
    assert opened.size == (400, 200)


@pytest.mark.parametrize("format", ["jpeg", "png", "webp"])
def test_colour_profiles_are_kept(format: Any) -> None:
    content = file_of(picture(), icc_profile=SRGB)
    made = sent(content, max_side=100, format=format)
    assert made.format == format.upper()
    assert made.info["icc_profile"] == SRGB


def test_inks_become_the_colours_that_they_show() -> None:
    for profile in (None, b"no profile", SRGB):  # SRGB is one of another colour space
        content = file_of(picture(mode="CMYK"), icc_profile=profile, quality=95)
        made = sent(content, max_side=100)
        assert made.mode == "RGB"
        assert "icc_profile" not in made.info
        assert differs(made, picture(*made.size)) < 12


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F"])
@pytest.mark.parametrize("format", ["jpeg", "png", "webp"])
def test_every_mode_becomes_every_format(mode: str, format: Any) -> None:
    made = sent(PIL.Image.new(mode, (40, 20)), max_side=10, format=format)
    assert (made.size, made.format) == ((10, 5), format.upper())


def test_what_is_transparent_stays_so_or_is_white() -> None:
    clear = PIL.Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    clear.paste((0, 0, 255, 255), (0, 0, 20, 40))
    palette = clear.convert("P")
    palette.info["transparency"] = palette.getpixel((39, 0))
    for source in (clear, file_of(clear, "PNG"), file_of(clear, "WEBP", lossless=True), palette):
        kept = sent(source, max_side=20).convert("RGBA")
        assert kept.getpixel((18, 10))[3] == 0  # type: ignore[index]
        assert kept.getpixel((2, 10))[2:] == (255, 255)  # type: ignore[index]
        white = sent(source, max_side=20, format="jpeg")
        assert min(white.getpixel((18, 10))) > 240  # type: ignore[arg-type]


def test_quality_makes_files_smaller_and_never_larger() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    photo = file_of(PIL.Image.fromarray(noise), quality=95)
    sizes = [len(image(photo, quality=one).data.image.base64) for one in (20, 60, 90)]
    assert sizes == sorted(set(sizes))
    assert sizes[-1] < len(photo)
    low = file_of(PIL.Image.fromarray(noise), quality=20)
    assert image(low, quality=95).data.image.base64 == low
    assert sent(file_of(PIL.Image.fromarray(noise), "PNG"), quality=80).format == "JPEG"
    assert sent(noise, quality=80).format == "JPEG"
    assert sent(file_of(PIL.Image.fromarray(noise), "WEBP"), quality=10).format == "WEBP"


@pytest.mark.parametrize("format", ["GIF", "TIFF", "PNG", "WEBP"])
def test_animations_and_pages_are_sent_whole_or_refused(format: str) -> None:
    content = file_of(picture(), format, save_all=True, append_images=[picture(mode="L")])
    if format in ("PNG", "WEBP"):
        assert image(content, max_side=400).data.image.base64 == content
        assert image(content, format=format.lower()).data.image.base64 == content  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidArgumentError, match=f"a {format} file of 2 frames"):
        image(content, max_side=100)
    with pytest.raises(errors.InvalidArgumentError, match=f"a {format} file of 2 frames"):
        image(content, format="jpeg")


def test_the_first_picture_of_a_camera_with_several_is_the_photo() -> None:
    content = file_of(picture(), "MPO", save_all=True, append_images=[picture(40, 20)])
    assert PIL.Image.open(io.BytesIO(content)).format == "MPO"
    assert image(content, max_side=400).data.image.base64 == content
    made = sent(content, max_side=100)
    assert (made.size, made.format) == ((100, 50), "JPEG")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_side": 0}, "max_side=0"),
        ({"max_side": -5}, "max_side=-5"),
        ({"max_side": 10.5}, "max_side=10.5"),
        ({"max_side": True}, "max_side=True"),
        ({"quality": 0}, "quality=0"),
        ({"quality": 101}, "from 1 to 100"),
        ({"format": "gif"}, "jpeg, png, webp"),
        ({"format": "png", "quality": 5}, "PNG has no quality"),
    ],
)
def test_options_that_make_no_sense(options: Any, says: str) -> None:
    with pytest.raises(errors.InvalidArgumentError, match=says):
        image(file_of(picture()), **options)


def test_what_cannot_be_shrunk_says_so(tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidArgumentError, match="fetches URLs itself"):
        image("https://h/x.jpg", max_side=100)
    whole = file_of(picture())
    for content in (b"no picture", whole[: len(whole) // 2]):
        with pytest.raises(errors.InvalidArgumentError, match="image"):
            image(content, max_side=100)
    path = tmp_path / "photo.jpg"
    path.write_bytes(whole)
    for source in (path, str(path), memoryview(whole), io.BytesIO(whole)):
        assert sent(source, max_side=100).size == (100, 50)
    with pytest.raises(errors.InvalidArgumentError, match=r"65536 x 1.* give max_side"):
        image(PIL.Image.new("L", (65_536, 1)), format="jpeg")


async def test_predict_many_makes_inputs_when_their_turn_comes(
    both: Both, scripted: ScriptedServer, tmp_path: Path
) -> None:
    sides: list[int] = []

    def answer(request: Any) -> Any:
        for one in request.inputs:
            opened = PIL.Image.open(io.BytesIO(one.data.image.base64))
            sides.append(max(opened.size))
        return outputs(request)

    scripted.always(METHOD, script(answer))
    good, bad = tmp_path / "good.jpg", tmp_path / "bad.jpg"
    good.write_bytes(file_of(picture()))
    bad.write_bytes(b"no picture")
    values = [partial(image, one, max_side=64) for one in (good, bad, tmp_path / "none", good)]
    results = await both.collect(both.client.model("m").predict_many(values))
    assert sides == [64, 64]
    assert [type(one.error).__name__ for one in results] == [
        "NoneType",
        "InvalidArgumentError",
        "FileNotFoundError",
        "NoneType",
    ]
