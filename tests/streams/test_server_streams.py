"""Streams of annotations and logs, with both clients."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from clarigrpc import errors, v2
from tests.both import Both
from tests.scripted import Answer, Fail, ScriptedServer, reply

STREAM = "StreamAnnotations"
DOWN = Fail(grpc.StatusCode.UNAVAILABLE)


def annotation(
    id: str, number: int | None = None, *, time: int = 0, last: bool = False
) -> v2.SingleStreamAnnotationResponse:
    made = v2.Annotation(id=id)
    if number is not None:
        info = made.data.frames.add().frame_info
        info.number = number
        info.time = time
    response: v2.SingleStreamAnnotationResponse = reply(
        STREAM, annotation=made, frame_fully_processed=last
    )
    return response


def ids(found: list[Any]) -> list[str]:
    return [one.id for one in found]


async def test_annotations(both: Both, scripted: ScriptedServer) -> None:
    scripted.on(STREAM, [annotation("a", 0), annotation("b", 0, last=True), annotation("c", 1)])
    stream = both.client.annotations.stream(
        "video", track_ids=["t"], max_frames=9, min_prediction_score=0.5
    )
    assert ids(await both.collect(stream)) == ["a", "b", "c"]
    request = scripted.seen[0].request
    assert (request.input_id, request.track_ids, request.max_frames) == ("video", ["t"], 9)


async def test_taken_up_at_the_frame_where_it_broke(both: Both, scripted: ScriptedServer) -> None:
    scripted.on(
        STREAM,
        Answer([annotation("a", 3), annotation("b", 4), annotation("c", 4)], fail=DOWN),
        DOWN,
        Answer([annotation("b", 4), annotation("c", 4), annotation("d", 4)], fail=DOWN),
        [annotation("b", 4), annotation("c", 4), annotation("d", 4), annotation("e", 6)],
    )
    stream = both.client.annotations.stream("video", frame_number_start=2, max_frames=10)
    assert ids(await both.collect(stream)) == ["a", "b", "c", "d", "e"]
    starts = [seen.request.frame_number_start for seen in scripted.seen]
    lengths = [seen.request.max_frames for seen in scripted.seen]
    assert starts == [2, 4, 4, 4]
    assert lengths == [10, 8, 8, 8]


async def test_a_frame_that_is_done_is_not_asked_for_again(
    both: Both, scripted: ScriptedServer
) -> None:
    scripted.on(
        STREAM,
        Answer([annotation("a", 3), annotation("b", 3, last=True)], fail=DOWN),
        [annotation("a", 4)],  # ids may come again in another frame
    )
    assert ids(await both.collect(both.client.annotations.stream("video"))) == ["a", "b", "a"]
    assert scripted.seen[1].request.frame_number_start == 4


async def test_by_time(both: Both, scripted: ScriptedServer) -> None:
    scripted.on(
        STREAM,
        Answer([annotation("a", 3, time=1500)], fail=DOWN),
        [annotation("a", 3, time=1500), annotation("b", 4, time=1540)],
    )
    stream = both.client.annotations.stream("video", frame_time_start=1000, max_duration=2000)
    assert ids(await both.collect(stream)) == ["a", "b"]
    second = scripted.seen[1].request
    assert (second.frame_time_start, second.max_duration) == (1500, 1500)


@pytest.mark.parametrize(
    ("before", "options"),
    [
        (annotation("a"), {}),  # no frame
        (annotation("", 3), {}),  # no id
        (annotation("a", 3), {"frame_number_start": 2, "max_duration": 100}),
    ],
)
async def test_without_a_cursor_the_failure_raises(
    both: Both, scripted: ScriptedServer, before: Any, options: dict[str, int]
) -> None:
    scripted.on(STREAM, Answer([before], fail=DOWN))
    found: list[Any] = []
    with pytest.raises(errors.UnavailableError):
        await both.collect(both.client.annotations.stream("video", **options), found)
    assert len(found) == 1


async def test_live_annotations(both: Both, scripted: ScriptedServer) -> None:
    scripted.on("StreamLivestreamAnnotations", Answer([annotation("a", 3)], fail=DOWN))
    found: list[Any] = []
    with pytest.raises(errors.UnavailableError):
        await both.collect(both.client.annotations.stream_live("video"), found)
    assert ids(found) == ["a"]


async def test_logs(both: Both, scripted: ScriptedServer) -> None:
    method = "StreamLogEntries"
    lines = [[v2.LogEntry(message="one"), v2.LogEntry(message="two")], [], [v2.LogEntry()]]
    answers = [reply(method, log_entries=entries) for entries in lines]
    scripted.on(method, DOWN, Answer(answers, fail=DOWN))
    found: list[Any] = []
    with pytest.raises(errors.UnavailableError):
        await both.collect(both.client.logs.stream("runner", runner_id="r"), found)
    assert [one.message for one in found] == ["one", "two", ""]
    request = scripted.seen[0].request
    assert (request.log_type, request.runner_id) == ("runner", "r")


async def test_an_id_that_logs_do_not_have(both: Both) -> None:
    with pytest.raises(TypeError, match=r"no field input_id; it has .*runner_id"):
        both.client.logs.stream("runner", input_id="x")
