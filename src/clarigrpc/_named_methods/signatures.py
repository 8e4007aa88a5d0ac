"""Methods of a model with named arguments: signatures, requests and results."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping
from typing import Any

from google.protobuf import json_format

from clarigrpc import errors, v2
from clarigrpc._named_methods.values import (
    NULLABLE,
    Field,
    MediaReader,
    decode,
    encode,
    encode_none,
    type_name,
)
from clarigrpc._rpc.request_facts import METHOD_NAME

GET_SIGNATURES = "_GET_SIGNATURES"
"""The method that returns the signatures, as JSON ``{name: MethodSignature}``."""

RETURN = "return"
"""Id of the part with the result."""

_STREAMED_IN = (
    v2.RunnerMethodType.STREAMING_UNARY,
    v2.RunnerMethodType.STREAMING_STREAMING,
)
_STREAMED_OUT = (
    v2.RunnerMethodType.UNARY_STREAMING,
    v2.RunnerMethodType.STREAMING_STREAMING,
)


def signatures_input() -> v2.Input:
    """The input that requests the signatures of a model's methods."""
    asking = v2.Input()
    asking.data.metadata.update({METHOD_NAME: GET_SIGNATURES})
    return asking


def read_signatures(output: v2.Output, model_id: str) -> dict[str, v2.MethodSignature]:
    """The signatures in a model's output, by method name.

    Raises:
        UnimplementedError: The output contains no signatures: the model has no named methods.
    """
    text = output.data.text.raw or output.data.string_value
    try:
        decoded = json.loads(text)
        return {
            name: json_format.ParseDict(
                one, v2.MethodSignature(name=name), ignore_unknown_fields=True
            )
            for name, one in decoded.items()
        }
    except (ValueError, AttributeError, TypeError, RecursionError, json_format.ParseError) as error:
        raise without_methods(model_id) from error


def without_methods(model_id: str) -> errors.UnimplementedError:
    """The error of a call by name of a model that only predicts."""
    return errors.UnimplementedError(
        f"model {model_id!r} has no methods with named arguments; use predict(), generate() or "
        "stream()",
        method=GET_SIGNATURES,
    )


def signature_text(signature: v2.MethodSignature) -> str:
    """A signature in Python syntax: ``shout(text: str, times: int = 1) -> str``."""
    arguments = []
    for field in signature.input_fields:
        nullable = " | None" if field.placeholder == NULLABLE and field.type else ""
        text = f"{field.name}: {type_name(field)}{nullable}"
        if not field.required:
            default = field.default
            text += f" = {default!r}" if field.type == Field.STR else f" = {default or None}"
        arguments.append(text)
    results = signature.output_fields
    if len(results) == 1:
        result = type_name(results[0])
    else:
        result = f"{{{', '.join(f'{r.name}: {type_name(r)}' for r in results)}}}"
    return f"{signature.name}({', '.join(arguments)}) -> {result}"


def find(
    signatures: Mapping[str, v2.MethodSignature], name: str, model_id: str
) -> v2.MethodSignature:
    """The signature of a method.

    Raises:
        InvalidArgumentError: The model has no method of this name.
    """
    signature = signatures.get(name)
    if signature is None:
        raise errors.InvalidArgumentError(
            f"model {model_id!r} has no method {name!r}; its methods are "
            f"{', '.join(sorted(signatures))}"
        )
    return signature


class MethodCall:
    """One call of a method: checks the arguments, encodes the requests, decodes the results.

    Args:
        signature: Signature of the method.
        arguments: Values by argument name. None stays None where the signature says that the
            argument may be None; else it uses the server's default of an optional argument.
        request: Serializes the request for an input.

    Attributes:
        values: The iterable for the streamed argument; None if the method has none.
        streams: Whether the method streams its results.

    Raises:
        TypeError: An argument is unknown, missing or of a wrong type.
        InvalidArgumentError: A value has the right type but cannot be encoded.
    """

    def __init__(
        self,
        signature: v2.MethodSignature,
        arguments: Mapping[str, Any],
        request: Callable[[v2.Input], bytes],
    ) -> None:
        self._signature = signature
        self._request = request
        self.streams = signature.method_type in _STREAMED_OUT
        self.values: Any = None
        fields = {field.name: field for field in signature.input_fields}
        for name in arguments:
            if name not in fields:
                raise self._type_error(f"unknown argument {name!r}")
        streamed = [field for field in signature.input_fields if field.iterator]
        if signature.method_type in _STREAMED_IN and len(streamed) != 1:
            raise errors.InvalidArgumentError(
                f"{signature_text(signature)} has {len(streamed)} streamed arguments; only one is "
                "supported"
            )
        self._streamed = streamed[0] if streamed else None
        self._data = v2.Data()
        self._data.metadata.update({METHOD_NAME: signature.name})
        for name, field in fields.items():
            value = arguments.get(name)
            if value is None and name in arguments and field.placeholder == NULLABLE:
                encode_none(self._data.parts.add(id=name).data)
                continue
            if value is None and (field.required or field is self._streamed):
                raise self._type_error(f"missing argument {name!r}")
            if value is None:
                continue
            if field is self._streamed:
                self.values = self._checked_stream(value)
            else:
                self._add(self._data, field, value)
        self._first = True

    def _checked_stream(self, value: Any) -> Any:
        assert self._streamed is not None
        plain = isinstance(value, (str, bytes, bytearray, Mapping))
        if plain or not isinstance(value, (Iterable, AsyncIterable)):
            raise self._type_error(
                f"argument {self._streamed.name!r}: expected an iterable, not "
                f"{type(value).__name__}"
            )
        return value

    def _add(self, data: v2.Data, field: v2.ModelTypeField, value: Any) -> None:
        try:
            encode(value, field, data.parts.add(id=field.name).data)
        except TypeError as error:
            raise self._type_error(f"argument {field.name!r}: {error}") from None
        except (ValueError, OverflowError, RecursionError) as error:
            raise errors.InvalidArgumentError(
                f"{self._signature.name}(): argument {field.name!r}: {error}"
            ) from error

    def _type_error(self, what: str) -> TypeError:
        signature = self._signature
        return TypeError(
            f"{signature.name}(): {what}; the signature is {signature_text(signature)}"
        )

    def request(self) -> bytes:
        """The request with all arguments except the streamed one."""
        return self._request(v2.Input(data=self._data))

    def encode(self, value: Any) -> bytes:
        """The request for a value of the streamed argument; the first has all other arguments."""
        assert self._streamed is not None
        item = v2.Input()
        if self._first:
            item.data.CopyFrom(self._data)
        self._add(item.data, self._streamed, value)
        self._first = False
        return self._request(item)

    def empty(self) -> bytes:
        """The request of a stream without values."""
        return self.request()

    def result(self, output: v2.Output) -> Any:
        """The result in an output.

        The value of a single result, a dict of several results by name, or the ``v2.Data`` if the
        signature has no type for it.

        Raises:
            InternalError: The output does not match the signature.
        """
        fields = self._signature.output_fields
        parts = {part.id: part.data for part in output.data.parts}
        reader = MediaReader()
        try:
            if len(fields) > 1:
                return {f.name: decode(parts[f.name], f, reader) for f in fields if f.name in parts}
            field = fields[0] if fields else Field()
            if RETURN in parts:
                return decode(parts[RETURN], field, reader)
            if field.name in parts:
                return decode(parts[field.name], field, reader)
            return decode(output.data, field, reader) if field.type else output.data
        except ValueError as error:
            raise errors.InternalError(
                f"the output of {signature_text(self._signature)} does not match: {error}",
                method=self._signature.name,
            ) from error

    def results(self, outputs: Iterator[v2.Output]) -> Iterator[Any]:
        """The results in outputs."""
        return map(self.result, outputs)
