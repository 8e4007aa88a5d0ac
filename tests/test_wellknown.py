from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction
from typing import Any

import pytest
from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    descriptor_pool,
    duration_pb2,
    json_format,
    message_factory,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from clarigrpc import v2, wellknown
from tests.strategies import JSON_OBJECTS, JSON_VALUES, messages


@given(JSON_OBJECTS)
def test_struct_has_the_content_of_the_mapping(mapping: dict[str, Any]) -> None:
    data = v2.Data()
    data.metadata.CopyFrom(wellknown.struct(mapping))
    expected = json_format.ParseDict(mapping, struct_pb2.Struct())
    assert data.metadata.SerializeToString(deterministic=True) == expected.SerializeToString(
        deterministic=True
    )


@given(JSON_VALUES)
def test_value_has_the_content_of_the_object(obj: Any) -> None:
    expected = json_format.ParseDict(obj, struct_pb2.Value())
    assert wellknown.value(obj).SerializeToString(deterministic=True) == expected.SerializeToString(
        deterministic=True
    )


def test_values_of_other_number_and_sequence_types() -> None:
    message = wellknown.struct({"a": Fraction(1, 2), "b": (1, 2), "c": [], "d": {}})
    assert json_format.MessageToDict(message) == {"a": 0.5, "b": [1, 2], "c": [], "d": {}}


@pytest.mark.parametrize(
    ("mapping", "error", "text"),
    [
        ({"a": {"b": [1, {2}]}}, TypeError, r"^a\.b\[1\]: set has no JSON form"),
        ({"a": b"x"}, TypeError, r"^a: bytes has no JSON form"),
        ({"a": {1: 2}}, TypeError, r"^a: key 1 is int, not str"),
        ({1: 2}, TypeError, r"^mapping: key 1 is int, not str"),
        ({"a": float("nan")}, ValueError, r"^a: nan has no JSON form"),
        ({"a": [float("-inf")]}, ValueError, r"^a\[0\]: -inf has no JSON form"),
        ({"a": 10**400}, ValueError, r"^a: the number is too large"),
        ([1], TypeError, r"^a Struct is made of a mapping, not of list"),
        ("text", TypeError, r"^a Struct is made of a mapping, not of str"),
    ],
)
def test_struct_says_what_it_cannot_hold(mapping: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        wellknown.struct(mapping)


def test_value_says_what_it_cannot_hold() -> None:
    with pytest.raises(TypeError, match=r"^value: object has no JSON form"):
        wellknown.value(object())
    with pytest.raises(ValueError, match=r"^value: inf has no JSON form"):
        wellknown.value(float("inf"))


@given(
    st.datetimes(
        min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=st.just(UTC)
    )
)
def test_timestamp_goes_back_to_the_same_moment(moment: datetime) -> None:
    item = v2.Input()
    item.created_at.CopyFrom(wellknown.timestamp(moment))
    assert item.created_at.ToDatetime(UTC) == moment


def test_timestamp_timezones() -> None:
    east = datetime(2024, 5, 6, 7, tzinfo=timezone(timedelta(hours=2)))
    assert wellknown.timestamp(east).ToDatetime() == datetime(2024, 5, 6, 5)
    assert wellknown.timestamp(datetime(2024, 5, 6)).ToJsonString() == "2024-05-06T00:00:00Z"


@pytest.mark.parametrize("moment", [0, "2024-05-06", None, datetime(2024, 5, 6).date()])
def test_timestamp_refuses_other_types(moment: Any) -> None:
    with pytest.raises(TypeError, match=r"^a Timestamp is made of a datetime, not of"):
        wellknown.timestamp(moment)


LIMIT = timedelta(seconds=315_576_000_000)


@given(st.timedeltas(min_value=-LIMIT, max_value=LIMIT))
def test_duration_goes_back_to_the_same_span(span: timedelta) -> None:
    message = wellknown.duration(span)
    assert message.ToTimedelta() == span
    assert json_format.MessageToJson(message)


def test_duration_refuses_what_it_cannot_hold() -> None:
    with pytest.raises(TypeError, match=r"^a Duration is made of a timedelta, not of float"):
        wellknown.duration(1.5)  # type: ignore[arg-type]
    for span in (timedelta.max, timedelta.min, LIMIT + timedelta(microseconds=1)):
        with pytest.raises(ValueError, match=r"^a Duration holds at most"):
            wellknown.duration(span)


def test_convert_python_values() -> None:
    assert wellknown.convert({"a": 1}) == wellknown.struct({"a": 1})
    moment = datetime(2024, 5, 6, tzinfo=UTC)
    assert wellknown.convert(moment) == wellknown.timestamp(moment)
    assert wellknown.convert(timedelta(1)) == wellknown.duration(timedelta(1))


def test_convert_public_messages_into_what_fields_take() -> None:
    struct = struct_pb2.Struct()
    struct.update({"a": 1})
    timestamp = timestamp_pb2.Timestamp(seconds=5, nanos=6)
    item = v2.Input(created_at=wellknown.convert(timestamp))
    item.data.metadata.CopyFrom(wellknown.convert(struct))
    assert (item.created_at.seconds, item.created_at.nanos) == (5, 6)
    assert item.data.metadata["a"] == 1
    app = v2.App(is_template=wellknown.convert(wrappers_pb2.BoolValue(value=True)))
    assert app.is_template.value is True
    assert wellknown.convert(duration_pb2.Duration(seconds=3)).ToTimedelta() == timedelta(seconds=3)


def test_convert_keeps_our_own_message() -> None:
    for message in (v2.Input(id="i"), wellknown.struct({"a": 1})):
        assert wellknown.convert(message) is message


def _foreign_input() -> type[Any]:
    """A class of another pool that has the name of ours and a field that ours lacks."""
    pool = descriptor_pool.DescriptorPool()  # type: ignore[no-untyped-call, unused-ignore]
    file = descriptor_pb2.FileDescriptorProto(
        name="foreign.proto", package="clarifai.api", syntax="proto3"
    )
    message = file.message_type.add(name="Input")
    field = descriptor_pb2.FieldDescriptorProto
    message.field.add(name="id", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    message.field.add(name="new", number=999, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("clarifai.api.Input"))


def test_convert_a_message_of_another_pool() -> None:
    foreign = _foreign_input()(id="i", new="unknown to us")
    ours = wellknown.convert(foreign)
    assert type(ours) is v2.Input
    assert ours.id == "i"
    assert ours.SerializeToString() == foreign.SerializeToString()


def test_convert_nested_messages() -> None:
    label = v2.MetricData.Label(value="n")
    assert wellknown.convert(label) is label


@settings(deadline=None, max_examples=30)
@given(messages(struct_pb2.Struct))
def test_convert_any_struct(public: struct_pb2.Struct) -> None:
    data = v2.Data(metadata=wellknown.convert(public))
    assert json_format.MessageToDict(data.metadata) == json_format.MessageToDict(public)


@pytest.mark.parametrize("source", [None, 1, "text", [1], b"", datetime(2024, 5, 6).date()])
def test_convert_refuses_other_types(source: Any) -> None:
    with pytest.raises(TypeError, match=f"^cannot make a message of {type(source).__name__}: give"):
        wellknown.convert(source)


def test_convert_refuses_a_message_that_we_do_not_have() -> None:
    with pytest.raises(TypeError, match=r"^clarigrpc\.v2 has no message google\.protobuf\.Any"):
        wellknown.convert(any_pb2.Any())
