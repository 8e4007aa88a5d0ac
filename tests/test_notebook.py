"""Inputs and outputs as a notebook shows them."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from IPython.core.formatters import DisplayFormatter

from clarigrpc import audio, errors, image, notebook, text, v2, video
from clarigrpc.notebook import to_html
from clarigrpc.types import PredictFailure, PredictSuccess

SUCCESS = v2.Status(code=v2.StatusCode.SUCCESS)


class Page(HTMLParser):
    """What a browser makes of HTML: its tags, their attributes and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag != "img":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + "\n"

    def sources(self) -> list[str]:
        return [value for name, value in self.attributes if name == "src"]


def photo(width: int = 1000, height: int = 500, format: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (width, height), (200, 60, 30)).save(buffer, format)
    return buffer.getvalue()


def embedded(html: str) -> PIL.Image.Image:
    (source,) = Page(html).sources()
    head, content = source.split(",")
    opened = PIL.Image.open(io.BytesIO(base64.b64decode(content, validate=True)))
    assert opened.format is not None
    assert head == f"data:image/{opened.format.lower()};base64"
    return opened


def detected(*names: str) -> v2.Output:
    output = v2.Output(status=SUCCESS)
    for place, name in enumerate(names):
        region = output.data.regions.add()
        box = region.region_info.bounding_box
        box.top_row, box.left_col, box.bottom_row, box.right_col = 0.25, 0.1, 0.75, 0.3 + place / 10
        region.data.concepts.add(id=name, value=0.75)
    return output


def test_a_picture_has_its_regions() -> None:
    html = to_html(detected("cat", "dog"), image(photo(), id="i"))
    assert embedded(html).size == (480, 240)
    assert "top:25.00%;left:10.00%;height:50.00%;width:20.00%" in html
    assert "top:25.00%;left:10.00%;height:50.00%;width:30.00%" in html
    shown = Page(html).text
    assert "cat 0.750" in shown
    assert "dog 0.750" in shown
    for source in (photo(), PIL.Image.open(io.BytesIO(photo()))):  # as of predict
        assert embedded(to_html(detected("cat"), source)).size == (480, 240)
    # The input itself, with its own annotations.
    own = image(photo(100, 50), id="my-photo", concepts=["red"])
    assert embedded(to_html(own)).size == (100, 50)
    assert "my-photo" in Page(to_html(own)).text


@pytest.mark.parametrize("format", ["PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_pictures_of_all_formats(format: str) -> None:
    assert embedded(to_html(image(photo(format=format)))).size == (480, 240)


def test_concepts_are_bars_with_the_best_first() -> None:
    output = v2.Output(status=SUCCESS)
    for number in range(14):
        output.data.concepts.add(id=f"c{number}", value=number / 14)
    html = to_html(output, text("What a day!"))
    shown = Page(html).text
    assert shown.index("What a day!") < shown.index("c13") < shown.index("c4")
    assert "c3\n" not in shown
    assert "and 4 more concepts" in shown
    assert f"width:{13 / 14:.2%}" in html


def test_colours_embeddings_frames_and_failures() -> None:
    output = v2.Output(status=SUCCESS)
    color = output.data.colors.add(raw_hex="#aabbcc", value=0.5)
    color.w3c.name = "Grey"
    output.data.colors.add(raw_hex="red;background:url(http://h/x)").w3c.hex = "nonsense"
    output.data.embeddings.add(vector=[1, 2, 3])
    output.data.frames.add().frame_info.time = 1500
    output.data.frames[0].data.concepts.add(id="cat", value=0.5)
    html = to_html(output)
    shown = Page(html).text
    for one in ("Grey 0.500", "embedding of 3 numbers", "1.50 s", "cat"):
        assert one in shown
    assert "background:#aabbcc" in html
    assert "url(" not in html
    failed = v2.Output()
    failed.status.code = v2.StatusCode.MODEL_DOES_NOT_EXIST
    failed.status.description = "no such <model>"
    assert "MODEL_DOES_NOT_EXIST: no such <model>" in Page(to_html(failed)).text
    assert "video, 3 bytes" in Page(to_html(video(b"abc"))).text
    assert "audio, 3 bytes" in Page(to_html(audio(b"abc"))).text
    assert "image, 3 bytes" in Page(to_html(image(b"abc"))).text


def test_results_hits_responses_and_lists() -> None:
    output = detected("cat")
    output.input.id = "of-the-output"
    failure = PredictFailure(1, None, errors.NotFoundError("gone", method="PostModelOutputs"))
    results: list[PredictSuccess | PredictFailure] = [PredictSuccess(0, output), failure]
    shown = Page(to_html(results)).text
    assert "of-the-output" in shown
    assert "NotFoundError: PostModelOutputs: gone" in shown
    assert "cat 0.750" in Page(to_html(results[0])).text
    assert "cat" in Page(to_html(v2.MultiOutputResponse(outputs=[output]))).text
    hit = v2.Hit(score=0.5, input=text("found", id="i"))
    assert "score 0.500" in Page(to_html(hit)).text
    assert Page(to_html([text(f"{n}-th") for n in range(30)], limit=3)).text.count("-th") == 3
    assert "and 27 more" in Page(to_html((text("a") for _ in range(30)), limit=3)).text
    both = to_html([detected("cat"), detected("dog")], [photo(), photo()])
    assert len(Page(both).sources()) == 2


def test_what_cannot_be_shown() -> None:
    for wrong in (5, None, [5], v2.Model(), PredictSuccess(0, v2.WorkflowResult())):  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="can be shown, not"):
            to_html(wrong)  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidArgumentError, match="2 values, and 1 pictures"):
        to_html([detected(), detected()], [photo()])


@pytest.mark.parametrize(
    "url",
    [
        "https://user:SECRET@h.example/x.jpg",
        "https://h.example/x.jpg?signature=SECRET",
        "https://h.example/x.jpg#SECRET",
        "https://[SECRET/x.jpg",
        "s3://SECRET:SECRET@bucket/x.jpg",
    ],
)
def test_credentials_of_addresses_are_not_shown(url: str) -> None:
    for made in (v2.Image(url=url), v2.Video(url=url)):
        kind = type(made).__name__.lower()
        html = to_html(v2.Input(data=v2.Data(**{kind: made})))  # type: ignore[arg-type]
        assert "SECRET" not in html
        assert Page(html).sources() == []


def test_metadata_is_not_shown() -> None:
    made = text("x", metadata={"token": "SECRET"})
    assert "SECRET" not in to_html(made)


def test_plain_addresses_are_loaded_by_the_browser() -> None:
    html = to_html(image("https://h.example/a&b.jpg"))
    assert Page(html).sources() == ["https://h.example/a&b.jpg"]
    assert 'referrerpolicy="no-referrer"' in html
    for scheme in ("javascript:alert(1)//", "file:///etc/"):
        crafted = v2.Input(data=v2.Data(image=v2.Image(url=f"{scheme}x.jpg")))
        assert Page(to_html(crafted)).sources() == []


hostile = st.sampled_from(
    ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "&lt;b&gt;", "';}</div>"]
) | st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=8)
number = st.floats(width=32)


@settings(max_examples=60, deadline=None)
@given(hostile, hostile, number, number)
def test_every_text_is_escaped_and_every_number_survives(
    word: str, other: str, one: float, two: float
) -> None:
    output = v2.Output(status=v2.Status(code=99999, description=word))  # type: ignore[arg-type]
    output.input.id = word
    output.data.text.raw = other
    output.data.image.url = "https://h.example/" + word
    output.data.concepts.add(id=word, name=other, value=one)
    region = output.data.regions.add(id=word)
    region.region_info.bounding_box.top_row = one
    region.region_info.bounding_box.bottom_row = two
    region.region_info.bounding_box.right_col = two
    region.data.text.raw = other
    output.data.colors.add(raw_hex=word).w3c.name = other
    output.data.colors.add(raw_hex="#aabbcc", value=two).w3c.name = other
    page = Page(to_html(output))
    assert set(page.tags) <= {"div", "img", "span", "b"}
    assert {name for name, _ in page.attributes} <= {"style", "src", "alt", "referrerpolicy"}
    assert page.open == []
    for name, value in page.attributes:
        if name == "style":
            assert re.fullmatch(r"[a-z0-9#%(),.:;/ -]*", value), value


def test_the_extension_shows_the_end_of_a_cell() -> None:
    shell = SimpleNamespace(display_formatter=DisplayFormatter())
    output = detected("cat")
    values: list[Any] = [output, text("x"), PredictSuccess(0, output), v2.Hit()]

    def formats() -> set[bool]:
        return {"text/html" in shell.display_formatter.format(one)[0] for one in values}

    assert formats() == {False}
    notebook.load_ipython_extension(shell)
    assert formats() == {True}
    html = shell.display_formatter.format(output)[0]["text/html"]
    assert html == to_html(output)
    notebook.unload_ipython_extension(shell)
    assert formats() == {False}


def test_show_displays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[Any] = []
    monkeypatch.setattr("IPython.display.display", seen.append)
    path = tmp_path / "photo.jpg"
    path.write_bytes(photo())
    notebook.show(detected("cat"), path)
    (shown,) = seen
    assert shown.data == to_html(detected("cat"), path)
