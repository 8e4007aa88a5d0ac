"""What has a connection says so where it is to be pickled or copied."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from clarigrpc import text, v2
from tests.conftest import Connect


@pytest.mark.parametrize(
    "part",
    [
        lambda client: client.v2,
        lambda client: client.v2.ListInputs,
        lambda client: client.v2.StreamModelOutputs,
        lambda client: client.channel,
        lambda client: client.bind(v2.V2Stub),
        lambda client: client.inputs,
        lambda client: client.inputs.get,
        lambda client: client.model("m").generate(text("a")),
    ],
)
@pytest.mark.asyncio
async def test_what_stays_in_its_process(connect: Connect, part: Any) -> None:
    client = connect("http://127.0.0.1:1", retry=False).client
    for copied in (pickle.dumps, copy.deepcopy):
        with pytest.raises(TypeError, match="have a client's connection, and cannot be pickled"):
            copied(part(client))
