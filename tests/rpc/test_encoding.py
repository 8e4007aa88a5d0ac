"""The hand-made encodings say what protobuf says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clarigrpc import audio, errors, image, text, v2, video
from clarigrpc._rpc.encoding import PredictEncoder, tag
from clarigrpc._wire_format import varint
from clarigrpc.arrays import output_concepts, output_embeddings

content = st.binary(min_size=1, max_size=300)
ids = st.text(max_size=20)
metadata = st.dictionaries(
    st.text(max_size=5), st.integers(-5, 5) | st.text(max_size=5), max_size=3
)
made = st.one_of(
    st.builds(image, content, id=ids, metadata=metadata),
    st.builds(image, content, concepts=st.lists(st.text(min_size=1, max_size=5), max_size=3)),
    st.builds(video, content, id=ids),
    st.builds(audio, content, id=ids),
    st.builds(text, st.text(max_size=200), id=ids, metadata=metadata),
    st.just(image("https://example.com/a.png", allow_duplicate_url=True)),
    st.builds(lambda raw: v2.Input.FromString(b"") if not raw else text(raw), st.text(max_size=3)),
)
values = st.lists(st.one_of(content, content.map(bytearray), made), max_size=6)
constants = st.builds(
    v2.PostModelOutputsRequest,
    user_app_id=st.builds(v2.UserAppIDSet, user_id=ids, app_id=ids),
    model_id=ids,
    version_id=ids,
    model=st.none() | st.builds(v2.Model, id=ids),
)


@settings(deadline=None)
@given(constants, values)
def test_requests_are_what_protobuf_would_send(
    constant: v2.PostModelOutputsRequest, given_values: list[Any]
) -> None:
    expected = v2.PostModelOutputsRequest()
    expected.CopyFrom(constant)
    for value in given_values:
        one = value if isinstance(value, v2.Input) else image(value)
        expected.inputs.add().CopyFrom(one)
    encoded = PredictEncoder(constant).encode(given_values)
    parsed = v2.PostModelOutputsRequest.FromString(encoded)
    assert parsed == expected
    assert len(encoded) == expected.ByteSize()
    # Byte for byte after normalisation: no field twice, none unknown.
    assert parsed.SerializeToString(deterministic=True) == expected.SerializeToString(
        deterministic=True
    )


@pytest.mark.parametrize("size", [1, 126, 127, 128, 16_383, 16_384, 2_097_151, 3_000_000])
def test_lengths_around_the_ends_of_varints(size: int) -> None:
    encoder = PredictEncoder(v2.PostModelOutputsRequest(model_id="m"))
    parsed = v2.PostModelOutputsRequest.FromString(encoder.encode([bytes(size)]))
    assert parsed.inputs[0].data.image.base64 == bytes(size)


@given(st.integers(0, 2**40))
def test_varints(value: int) -> None:
    encoded = varint(value)
    assert all(byte >= 0x80 for byte in encoded[:-1])
    assert encoded[-1] < 0x80
    assert sum((byte & 0x7F) << 7 * place for place, byte in enumerate(encoded)) == value


def test_tags_come_from_the_descriptors() -> None:
    number = v2.Image.DESCRIPTOR.fields_by_name["base64"].number
    assert tag(v2.Image, "base64") == varint(number << 3 | 2)


@pytest.mark.parametrize("value", ["a string", 5, None, b""])
def test_what_is_no_input(value: Any) -> None:
    encoder = PredictEncoder(v2.PostModelOutputsRequest(model_id="m"))
    with pytest.raises((TypeError, errors.InvalidArgumentError)):
        encoder.encode([value])


def response(*vectors: list[float]) -> v2.MultiOutputResponse:
    found = v2.MultiOutputResponse()
    for vector in vectors:
        embedding = found.outputs.add().data.embeddings.add()
        embedding.vector.extend(vector)
        embedding.num_dimensions = len(vector)
    return v2.MultiOutputResponse.FromString(found.SerializeToString())


floats = st.floats(width=32, allow_nan=False)


@settings(deadline=None)
@given(
    st.integers(1, 40).flatmap(
        lambda width: st.lists(
            st.lists(floats, min_size=width, max_size=width), min_size=1, max_size=5
        )
    )
)
def test_embeddings_are_those_of_the_slow_way(vectors: list[list[float]]) -> None:
    message = response(*vectors)
    slow = np.array([list(o.data.embeddings[0].vector) for o in message.outputs], np.float32)
    fast = output_embeddings(message)
    assert (output_embeddings(list(message.outputs)) == fast).all()
    assert fast.dtype == np.float32
    assert fast.shape == (len(vectors), len(vectors[0]))
    np.testing.assert_array_equal(fast, slow)
    fast[0, 0] = 1.0  # it is the caller's own


def test_embeddings_of_nothing() -> None:
    assert output_embeddings(v2.MultiOutputResponse()).shape == (0, 0)
    assert output_embeddings(response([], [])).shape == (2, 0)


def test_embeddings_that_are_no_matrix() -> None:
    with pytest.raises(errors.InvalidArgumentError, match="differ"):
        output_embeddings(response([1.0, 2.0], [3.0]))
    missing = response([1.0])
    missing.outputs.add()
    with pytest.raises(errors.InvalidArgumentError, match="output 1 has no embedding"):
        output_embeddings(missing)


concepts = st.builds(
    v2.Concept,
    id=st.text(max_size=4),
    name=st.text(max_size=4),
    value=st.one_of(st.floats(0, 1, width=32), st.just(0.0), st.just(-0.0)),
    app_id=st.sampled_from(["", "main"]),
)
outputs = st.builds(
    lambda id, found, region: v2.Output(
        id=id,
        data=v2.Data(
            concepts=found, regions=[v2.Region(data=v2.Data(concepts=region))] if region else []
        ),
    ),
    st.text(max_size=4),
    st.lists(concepts, max_size=4),
    st.lists(concepts, max_size=2),
)


@settings(deadline=None)
@given(st.lists(st.one_of(outputs, st.just(v2.Output())), max_size=5))
def test_concepts_are_those_of_the_slow_way(found: list[v2.Output]) -> None:
    message = v2.MultiOutputResponse(outputs=found, status=v2.Status(description="Ok"))
    ids, values, offsets = output_concepts(message)
    of_list = output_concepts(iter(message.outputs))
    assert of_list.ids.tolist() == ids.tolist()
    assert of_list.values.tolist() == values.tolist()
    assert of_list.offsets.tolist() == offsets.tolist()
    assert values.dtype == np.float32
    assert len(offsets) == len(found) + 1
    for place, output in enumerate(found):
        own = slice(offsets[place], offsets[place + 1])
        assert list(ids[own]) == [concept.id for concept in output.data.concepts]
        assert values[own].tolist() == [concept.value for concept in output.data.concepts]
    values[:] = 1.0  # they are the caller's own


def test_concepts_of_a_whole_batch() -> None:
    message = v2.MultiOutputResponse()
    for row in range(128):
        own = message.outputs.add().data.concepts
        for column in range(200):
            own.add(id=f"c{column}", name="n", value=(row + column + 1) / 512)
    ids, values, offsets = output_concepts(message)
    of_list = output_concepts(iter(message.outputs))
    assert of_list.ids.tolist() == ids.tolist()
    assert of_list.values.tolist() == values.tolist()
    assert of_list.offsets.tolist() == offsets.tolist()
    assert values.shape == ids.shape == (128 * 200,)
    assert offsets[-1] == len(values)
    expected = (np.arange(128)[:, None] + np.arange(200) + 1) / 512
    np.testing.assert_array_equal(values.reshape(-1, 200), expected.astype(np.float32))
    assert list(ids.reshape(-1, 200)[7]) == [f"c{column}" for column in range(200)]
