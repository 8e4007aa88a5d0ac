"""Video inputs as HLS, which players open by a manifest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from google.protobuf.message import Message

from clarigrpc import v2
from clarigrpc.local.engine.context import Context
from clarigrpc.local.engine.stored_inputs import INPUT_KIND
from clarigrpc.local.media import media_content
from clarigrpc.local.service_errors import ServiceError, make_status
from clarigrpc.local.store.resource_store import StoredCollection
from clarigrpc.v2 import StatusCode

SEGMENT_SECONDS = 4
"""A segment ends at the first key frame after this time."""


def get_video_manifest(
    context: Context, request: v2.GetVideoManifestRequest
) -> v2.GetVideoManifestResponse:
    """The streams of the video, not encoded anew, cut into segments at the first call."""
    app = context.readable(request.user_app_id)
    store, downloads = context.state.store, context.state.downloads
    inputs = StoredCollection.of_app(INPUT_KIND, app)
    row = store.get(inputs, request.input_id)
    if row is None:
        raise ServiceError(
            StatusCode.INPUT_DOES_NOT_EXIST, f"input {request.input_id!r} does not exist"
        )
    item = v2.Input.FromString(row.body)
    if not item.data.HasField("video"):
        raise ServiceError(StatusCode.INPUT_INVALID_ARGUMENT, f"input {item.id!r} is not a video")
    if item.status.code != StatusCode.INPUT_SUCCESS:
        raise ServiceError(
            StatusCode.INPUT_INVALID_REQUEST, f"input {item.id!r} has not been processed"
        )
    manifests = inputs._replace(kind="video_manifest")
    made = store.get(manifests, item.id)
    if made is None or downloads.find(made.body.decode()) is None:
        name = downloads.name(".m3u8")
        content = store.content(row.seq) or media_content.content_of(
            item.data, context.state.fetcher
        )
        write_hls(content, downloads.path(name))
        with store.transaction():
            store.delete(manifests, item.id)
            store.insert(manifests, item.id, name.encode(), key=item.id)
            downloads.keep(name, row.seq)
    else:
        name = made.body.decode()
    return v2.GetVideoManifestResponse(
        status=make_status(StatusCode.SUCCESS), manifest_url=downloads.url(name)
    )


def write_hls(content: bytes, manifest: Path) -> None:
    """Writes a video as a manifest and, beside it, one file with all segments.

    Args:
        content: The video file.
        manifest: The manifest's path, which ends in ``.m3u8``; the segments' ends in ``.m4s``.

    Raises:
        ServiceError: INPUT_UNSUPPORTED_FORMAT (30101) for what is no video.
    """
    import av

    options = {
        "hls_time": str(SEGMENT_SECONDS),
        "hls_playlist_type": "vod",
        "hls_segment_type": "fmp4",
        "hls_flags": "single_file",
        "hls_segment_filename": str(manifest.with_suffix(".m4s")),
    }
    try:
        with (
            media_content.open_container(content) as source,
            av.open(str(manifest), "w", format="hls", options=options) as target,
        ):
            streams = [*source.streams.video[:1], *source.streams.audio[:1]]
            copies = {s.index: target.add_stream_from_template(s) for s in streams}
            for packet in source.demux(streams):
                if packet.dts is not None:  # the end of a stream comes as an empty packet
                    packet.stream = copies[packet.stream.index]
                    target.mux(packet)
    except ServiceError:
        for path in (manifest, manifest.with_suffix(".m4s")):
            path.unlink(missing_ok=True)
        raise


UNARY: dict[str, Callable[[Context, Any], Message]] = {"GetInputVideoManifest": get_video_manifest}
