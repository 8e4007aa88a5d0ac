"""Pictures that are made smaller in threads: in order, not too far ahead, each alone."""

from __future__ import annotations

import io
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from clarigrpc import image, v2, video
from clarigrpc._bulk.preparation import PreparationThreads, PreparedValue, is_slow, made_ahead
from clarigrpc.local import LocalServer
from tests.both import Both
from tests.conftest import Connect


def photo(number: int) -> bytes:
    """A picture that is told by its width once it is 40 pixels high."""
    file = io.BytesIO()
    Image.new("RGB", (2 * (20 + number), 80), (number, 0, 0)).save(file, "PNG")
    return file.getvalue()


def width_of(made: v2.Input) -> int:
    return Image.open(io.BytesIO(made.data.image.base64)).width


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photos")
    paths = [folder / f"{number:02}.png" for number in range(24)]
    for number, path in enumerate(paths):
        if number != 5:  # there is none
            path.write_bytes(photo(number))
    return paths


@pytest.fixture(scope="module")
def local() -> Iterator[LocalServer]:
    with LocalServer() as server:
        yield server


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names of the threads that make pictures smaller."""
    from clarigrpc import _pictures

    names: set[str] = set()
    fitted = _pictures.fitted

    def noted(*args: Any) -> bytes:
        names.add(threading.current_thread().name.partition("_")[0])
        return fitted(*args)

    monkeypatch.setattr(_pictures, "fitted", noted)
    return names


def test_what_goes_to_a_thread() -> None:
    slow = [
        partial(image, "cat.jpg", max_side=10),
        partial(image, Path("cat.jpg"), quality=50, id="i"),
        partial(image, source=b"x", format="webp"),
        partial(video, "cat.mp4", fps=1),
    ]
    assert all(map(is_slow, slow))
    quick = [
        *("cat.jpg", Path("cat.jpg"), b"x", v2.Input(), image, lambda: v2.Input()),
        partial(image, "cat.jpg"),
        partial(image, "cat.jpg", id="i"),
        # What others may use at the same time is left to one thread.
        partial(image, Image.new("RGB", (2, 2)), max_side=1),
        partial(image, io.BytesIO(), max_side=1),
        partial(Path.read_bytes, Path("cat.jpg")),
    ]
    assert not any(map(is_slow, quick))


@settings(max_examples=30)
@given(slow=st.lists(st.booleans(), max_size=40), fails=st.booleans())
def test_the_values_of_a_source_in_their_order(slow: list[bool], fails: bool) -> None:
    given_out = 0

    def source() -> Iterator[Any]:
        nonlocal given_out
        for number, one in enumerate(slow):
            given_out += 1
            yield partial(image, photo(number), max_side=40 + number) if one else number
        if fails:
            raise KeyError("the end")

    window = 0
    found = 0
    made = made_ahead(source(), deque())
    try:
        for number, value in enumerate(made):
            window = window or PreparationThreads().window
            assert given_out - number <= window
            assert isinstance(value, PreparedValue) == slow[number]
            assert (value() if slow[number] else value) is not None
            found += 1
    except KeyError:
        assert fails
    else:
        assert not fails
    assert found == len(slow)


@pytest.mark.measures
def test_an_endless_source_is_left() -> None:
    before = threading.active_count()
    made = made_ahead(
        (partial(image, photo(number % 9), max_side=9) for number in count()), deque()
    )
    assert len(list(islice(made, 5))) == 5
    assert threading.active_count() > before
    made.close()
    assert threading.active_count() == before


async def test_predict_many_shrinks_in_threads(
    connect: Connect, local: LocalServer, photos: list[Path], threads: set[str]
) -> None:
    both = connect(local.base, pat=local.pat, user_id="clarifai", app_id="main")
    values = [partial(image, path, max_side=40) for path in photos]
    model = both.client.model("color-recognition")
    sources: list[Any] = [values, iter(values)]
    if not both.is_sync:
        sources.append(as_they_come(values))
    for source in sources:
        threads.clear()
        results = await both.collect(model.predict_many(source, batch_size=3))
        assert [result.index for result in results] == list(range(len(photos)))
        (failed,) = [result for result in results if result.error is not None]
        assert failed.index == 5
        assert isinstance(failed.error, FileNotFoundError)
        assert threads == {"clarigrpc-prepare"}
    assert not [one for one in threading.enumerate() if one.name.startswith("clarigrpc-prepare")]


async def as_they_come(values: list[Any]) -> AsyncIterator[Any]:
    for value in values:
        yield value


async def test_left_early_no_thread_stays(
    connect: Connect, local: LocalServer, photos: list[Path]
) -> None:
    both: Both = connect(local.base, pat=local.pat, user_id="clarifai", app_id="main")
    values = (partial(image, photos[0], max_side=40, id=str(number)) for number in count())
    results = both.client.model("color-recognition").predict_many(values)
    for number in range(3):
        result = await (both.run(next, results) if both.is_sync else anext(results))
        assert (result.index, result.error) == (number, None)
    await both.run(results.close if both.is_sync else results.aclose)
    assert not [one for one in threading.enumerate() if one.name.startswith("clarigrpc-prepare")]


async def test_uploads_shrink_in_threads_and_keep_what_failed(
    connect: Connect, local: LocalServer, photos: list[Path], threads: set[str]
) -> None:
    both = connect(local.base, pat=local.pat, user_id=local.user_id, app_id=local.app_id)
    prefix = "sync" if both.is_sync else "async"
    values = [
        partial(image, path, max_side=40, id=f"{prefix}-{number:02}")
        for number, path in enumerate(photos)
    ]
    report = await both.run(both.client.inputs.upload, values, batch_size=4)
    assert threads == {"clarigrpc-prepare"}
    assert sorted(report.added_ids) == [f"{prefix}-{n:02}" for n in range(24) if n != 5]
    (failed,) = report.failed_inputs
    assert (failed.index, failed.input) == (5, values[5])
    found = await both.run(both.client.inputs.wait, report.added_ids)
    assert len(found) == 23
    photos[5].write_bytes(photo(5))
    try:
        again = await both.run(both.client.inputs.upload, report.failed_inputs)
        assert again.added_ids == [f"{prefix}-05"]
    finally:
        photos[5].unlink()
