"""Boxes between the frames of a video that somebody annotated."""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from typing import NamedTuple

from clarigrpc import v2
from clarigrpc.local.service_errors import ServiceError
from clarigrpc.v2 import StatusCode

MAX_FRAMES = 10_000
"""Most frames that one annotation gets."""

_SIDES = ("top_row", "left_col", "bottom_row", "right_col")


class _Key(NamedTuple):
    """A box of a track in a frame; ``time`` in milliseconds."""

    time: int
    number: int
    region: v2.Region


def interpolate(annotation: v2.Annotation, sample_ms: int) -> v2.Annotation:
    """The annotation with frames in between: one at each multiple of a time, where a track goes on.

    A track are the regions with the same ``track_id``. From one of its boxes to the next each side
    moves evenly; the concepts stay those of the earlier box. What was annotated stays as it is.

    Args:
        annotation: Has frames with boxes, or nothing to interpolate.
        sample_ms: Milliseconds between frames, at least 1.

    Raises:
        ServiceError: It would be more than MAX_FRAMES.
    """
    tracks = _tracks(annotation.data.frames)
    known = {frame.frame_info.time for frame in annotation.data.frames}
    times: set[int] = set()
    for keys in tracks.values():
        first = keys[0].time // sample_ms + 1
        wanted = range(first * sample_ms, keys[-1].time, sample_ms)
        if len(wanted) <= MAX_FRAMES:
            times |= set(wanted) - known
        if max(len(wanted), len(times)) > MAX_FRAMES:
            raise ServiceError(
                StatusCode.DATASET_VERSION_FAILURE,
                f"annotation {annotation.id!r} would have more than {MAX_FRAMES} frames",
            )
    frames = {frame.frame_info.time: frame for frame in annotation.data.frames}
    for time in times:
        frame = frames[time] = v2.Frame()
        frame.frame_info.time = time
        for keys in tracks.values():
            after = bisect.bisect(keys, time, key=lambda key: key.time)
            if 0 < after < len(keys):
                _between(keys[after - 1], keys[after], frame)
    result = v2.Annotation()
    result.CopyFrom(annotation)
    del result.data.frames[:]
    result.data.frames.extend(frames[time] for time in sorted(frames))
    return result


def _tracks(frames: Iterable[v2.Frame]) -> dict[str, list[_Key]]:
    tracks: dict[str, list[_Key]] = {}
    for frame in sorted(frames, key=lambda one: one.frame_info.time):
        info = frame.frame_info
        for region in frame.data.regions:
            if region.track_id and region.region_info.HasField("bounding_box"):
                key = _Key(info.time, info.number, region)
                tracks.setdefault(region.track_id, []).append(key)
    return tracks


def _between(before: _Key, after: _Key, frame: v2.Frame) -> None:
    share = (frame.frame_info.time - before.time) / (after.time - before.time)
    frame.frame_info.number = round(before.number + share * (after.number - before.number))
    region = frame.data.regions.add()
    region.CopyFrom(before.region)
    region.ClearField("id")
    one, two = (key.region.region_info.bounding_box for key in (before, after))
    for side in _SIDES:
        start = getattr(one, side)
        value = start + share * (getattr(two, side) - start)
        setattr(region.region_info.bounding_box, side, value)
