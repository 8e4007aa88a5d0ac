"""Arguments that a server refuses where they are given, before it starts."""

from __future__ import annotations

from typing import Any

import pytest

from clarigrpc.local import LocalServer


def shout(words: str) -> str:
    return words.upper()


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"models": [shout]}, TypeError, "models has to map ids to models, not list"),
        ({"models": {3: shout}}, TypeError, "has to be a string, not 3"),
        ({"models": {"": shout}}, ValueError, "'' is no id of a model"),
        ({"models": {"a/b": shout}}, ValueError, "'a/b' is no id of a model"),
        ({"limits": {"requests": "1/second"}}, TypeError, "limits has to be a Limits, not dict"),
        ({"pat": 3}, TypeError, "pat has to be a string, not int"),
        ({"user_id": b"me"}, TypeError, "user_id has to be a string, not bytes"),
    ],
)
def test_what_is_no_argument(arguments: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        LocalServer(**arguments)
