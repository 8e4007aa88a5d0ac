"""Outputs come to the inputs that they are about, in every way to predict many of them."""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clarigrpc import Client, errors, text, v2
from clarigrpc._bulk.output_matching import in_order
from clarigrpc._rpc.encoding import NUMBERED, PredictEncoder, sent_ids
from clarigrpc.local import LocalServer
from tests.both import Both
from tests.bulk.service import METHOD, Response, outputs, script
from tests.conftest import Connect
from tests.scripted import ScriptedServer

_IDS = st.lists(st.sampled_from(["a", "b", "c", f"{NUMBERED}0", f"{NUMBERED}1"]), max_size=6)


def _response(ids: list[str], texts: list[str]) -> Response:
    response = Response()
    for one, raw in zip(ids, texts, strict=True):
        output = response.outputs.add()
        output.input.id = one
        output.data.text.raw = raw
    return response


@given(ids=_IDS, seed=st.integers(0, 99))
def test_any_order_of_the_outputs(ids: list[str], seed: int) -> None:
    shuffled = random.Random(seed).sample(ids, len(ids))
    found = in_order(ids, _response(shuffled, shuffled))
    assert [output.data.text.raw for output in found] == ids


@given(ids=_IDS, answered=_IDS)
def test_outputs_of_other_inputs_are_refused(ids: list[str], answered: list[str]) -> None:
    response = _response(answered, answered)
    strangers = all(one.startswith(NUMBERED) for one in ids) and not set(ids) & set(answered)
    if len(ids) == len(answered) and (strangers or sorted(ids) == sorted(answered)):
        assert len(in_order(ids, response)) == len(ids)
    else:
        with pytest.raises(errors.InternalError):
            in_order(ids, response)


def test_outputs_without_ids_are_in_the_order_of_the_inputs() -> None:
    ids = ["a", "b", f"{NUMBERED}2"]
    for answered in (["", "", ""], ["a", "", ""], ["", "b", f"{NUMBERED}2"]):
        found = in_order(ids, _response(answered, ["0", "1", "2"]))
        assert [output.data.text.raw for output in found] == ["0", "1", "2"]
    with pytest.raises(errors.InternalError, match="no output for the input with the id 'a'"):
        in_order(ids, _response(["b", "", ""], ["0", "1", "2"]))


_CONTENTS = st.tuples(st.booleans(), st.sampled_from(["", "mine"]), st.binary(max_size=300))


@given(st.lists(_CONTENTS, max_size=6))
def test_a_request_is_what_protobuf_would_write(
    drawn: list[tuple[bool, str, bytes]],
) -> None:
    """Of messages and of the bytes of images, with ids and without, among values that are none."""
    encoder = PredictEncoder(v2.PostModelOutputsRequest(model_id="m"))
    inputs, given = [], []
    for bare, name, content in drawn:
        one = v2.Input(id="" if bare else name)
        one.data.image.base64 = content
        inputs.append(one)
        given.append(content if bare else one)
    before = [one.SerializeToString() for one in inputs]
    encoded = encoder.batch(given)
    kept = [one for one, value in zip(inputs, given, strict=True) if value != b""]
    assert [*encoded.errors] == [place for place, value in enumerate(given) if value == b""]
    assert [*encoded.indexes] == [p for p in range(len(given)) if p not in encoded.errors]
    request = encoder.request(encoded.items, encoded.ids)
    assert len(request) <= len(encoder.constant) + sum(encoded.sizes)
    expected = v2.PostModelOutputsRequest(model_id="m")
    for place, one in enumerate(kept):
        expected.inputs.add().CopyFrom(one)
        expected.inputs[-1].id = one.id or f"{NUMBERED}{place}"
    assert v2.PostModelOutputsRequest.FromString(request) == expected
    assert [one.id for one in expected.inputs] == sent_ids(encoded.ids)
    assert [one.SerializeToString() for one in inputs] == before
    plain = v2.PostModelOutputsRequest.FromString(encoder.encode(kept))
    assert [*plain.inputs] == kept


def reordered(change: Callable[[Response], None]) -> Any:
    """Repeats the ids of the inputs, and changes the response."""

    def answer(request: Any) -> Response:
        response = outputs(request)
        for one, output in zip(request.inputs, response.outputs, strict=True):
            output.input.id = one.id
        change(response)
        return response

    return script(answer)


def reverse(response: Response) -> None:
    kept = list(response.outputs)
    del response.outputs[:]
    response.outputs.extend(reversed(kept))


def rename(response: Response) -> None:
    response.outputs[-1].input.id = "stranger"


def rename_all(response: Response) -> None:
    for output in response.outputs:
        output.input.id = f"of-the-service-{output.data.text.raw}"


def values(given_ids: bool) -> list[v2.Input]:
    return [text(str(number), id=f"id-{number}" if given_ids else "") for number in range(200)]


@pytest.mark.parametrize("given_ids", [True, False])
async def test_a_list_is_matched(both: Both, scripted: ScriptedServer, given_ids: bool) -> None:
    model = both.client.model("m")
    scripted.always(METHOD, reordered(reverse))
    found = await both.run(model.predict, values(given_ids))
    assert [output.data.text.raw for output in found] == [str(number) for number in range(200)]
    scripted.always(METHOD, reordered(rename))
    with pytest.raises(errors.InternalError, match="no output for the input"):
        await both.run(model.predict, values(given_ids))
    scripted.always(METHOD, reordered(rename_all))
    if given_ids:
        with pytest.raises(errors.InternalError, match="no output for the input"):
            await both.run(model.predict, values(given_ids))
    else:  # a service that gives ids of its own
        assert len(await both.run(model.predict, values(given_ids))) == 200


@pytest.mark.parametrize("given_ids", [True, False])
async def test_many_are_matched(both: Both, scripted: ScriptedServer, given_ids: bool) -> None:
    model = both.client.model("m")
    scripted.always(METHOD, reordered(reverse))
    found = await both.collect(model.predict_many(values(given_ids), batch_size=16))
    for result in found:
        assert result.output.data.text.raw == str(result.index)
    assert len(found) == 200


async def test_an_answer_about_another_input_fails_that_input_alone(
    both: Both, scripted: ScriptedServer
) -> None:
    def confuse(response: Response) -> None:
        for output in response.outputs:
            if output.input.id == "id-5":
                output.input.id = "stranger"

    scripted.always(METHOD, reordered(confuse))
    model = both.client.model("m")
    found = await both.collect(model.predict_many(values(True)[:20], batch_size=8))
    (failed,) = [result for result in found if result.error is not None]
    assert failed.index == 5
    assert isinstance(failed.error, errors.InternalError)
    assert len(found) == 20


def test_callers_that_share_a_request_get_their_own_outputs(scripted: ScriptedServer) -> None:
    scripted.always(METHOD, reordered(reverse))
    with (
        Client(base=scripted.base, pat="x" * 20, user_id="u", app_id="a") as client,
        ThreadPoolExecutor(16) as threads,
    ):
        model = client.model("m", coalesce=True)
        found = list(threads.map(model.predict, values(False)))
    assert [output.data.text.raw for output in found] == [str(number) for number in range(200)]
    assert len(scripted.seen) < 200, "requests were shared"


async def test_files_that_cannot_be_read_fail_alone(connect: Connect, tmp_path: Path) -> None:
    for number in range(6):
        Image.new("RGB", (8, 8), (40 * number, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "2.png").write_bytes(b"")
    (tmp_path / "4.png").unlink()
    paths = [tmp_path / f"{number}.png" for number in range(6)]

    class Bomb(Exception):
        """As Pillow's own, which is neither a ValueError nor an OSError."""

    class Picture:
        def save(self, file: Any, format: str | None = None) -> None:
            raise AssertionError

        @property
        def size(self) -> tuple[int, int]:
            raise Bomb

    with LocalServer() as server:
        both = connect(server.base, pat=server.pat)
        model = both.client.model("color-recognition", user_id="clarifai", app_id="main")
        found = await both.collect(model.predict_many([*paths, Picture()]))
        failed = {result.index: result.error for result in found if result.error is not None}
        assert failed.keys() == {2, 4, 6}
        assert "2.png" in str(failed[2])
        assert "4.png" in str(failed[4])
        assert isinstance(failed[6], Bomb)
        await both.close()
