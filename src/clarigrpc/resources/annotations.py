"""The annotations of an app."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypedDict, Unpack

from clarigrpc import errors, v2
from clarigrpc.resources.base import Operations
from clarigrpc.streams import AsyncStream, Session, Stream

STREAM = "StreamAnnotations"
STREAM_LIVE = "StreamLivestreamAnnotations"


class FrameOptions(TypedDict, total=False):
    """What part of a video's annotations is streamed; everything by default.

    Attributes:
        track_ids: Only of these tracks.
        frame_number_start: Number of the first frame.
        frame_time_start: Time of the first frame in milliseconds, instead of its number.
        annotation_type: Kinds, added up.
        max_frames: End after so many frames.
        max_duration: End after so many milliseconds of the video.
        worker: Only of this user, model or workflow.
        min_prediction_score: Leave out predictions below this score, 0.0 to 1.0.
    """

    track_ids: Sequence[str]
    frame_number_start: int
    frame_time_start: int
    annotation_type: v2.AnnotationDataType.ValueType
    max_frames: int
    max_duration: int
    worker: v2.Worker
    min_prediction_score: float


class FrameSession(Session[v2.Annotation]):
    """Annotations in the order of their frames, taken up again at the frame where they broke off.

    The cursor is the number of the frame, or its time where the request starts or ends by time.
    It holds as long as annotations say their frame and, inside a frame, have an id.
    """

    def __init__(self, request: v2.StreamAnnotationsRequest) -> None:
        self._request = request
        by_time = bool(request.frame_time_start or request.max_duration)
        self._start, self._length, self._position = (
            ("frame_time_start", "max_duration", "time")
            if by_time
            else ("frame_number_start", "max_frames", "number")
        )
        self._origin = getattr(request, self._start)
        self._limit = getattr(request, self._length)
        # An end that is told in the other measure cannot be moved along.
        self._resumable = not by_time or not (request.frame_number_start or request.max_frames)
        self._at = self._origin
        self._seen: set[str] = set()
        self._progress = False

    def request(self) -> v2.StreamAnnotationsRequest:
        request = v2.StreamAnnotationsRequest()
        request.CopyFrom(self._request)
        setattr(request, self._start, self._at)
        if self._limit:
            setattr(request, self._length, self._limit - (self._at - self._origin))
        self._progress = False
        return request

    def may_resume(self, error: errors.ApiError) -> bool:
        # Without progress the channel itself has tried again.
        left = not self._limit or self._at < self._origin + self._limit
        return self._progress and self._resumable and left

    def accept(self, response: v2.SingleStreamAnnotationResponse) -> Iterator[v2.Annotation]:
        new = response.HasField("annotation") and self._is_new(response.annotation)
        if response.frame_fully_processed:
            self._at += 1
            self._seen.clear()
        if new:
            self._progress = True
            yield response.annotation

    def _is_new(self, annotation: v2.Annotation) -> bool:
        """Whether no attempt has seen it yet; moves the cursor to it."""
        frames = annotation.data.frames
        at = getattr(frames[0].frame_info, self._position) if frames else -1
        if at < self._at or not annotation.id:
            self._resumable = False
            return True
        if at > self._at:
            self._at = at
            self._seen.clear()
        if annotation.id in self._seen:
            return False
        self._seen.add(annotation.id)
        return True


class _LiveSession(Session[v2.Annotation]):
    """Annotations as they are made. There is no cursor."""

    def __init__(self, request: v2.StreamLivestreamAnnotationsRequest) -> None:
        self._request = request

    def request(self) -> v2.StreamLivestreamAnnotationsRequest:
        return self._request

    def accept(self, response: v2.SingleStreamAnnotationResponse) -> Iterator[v2.Annotation]:
        if response.HasField("annotation"):
            yield response.annotation


class AnnotationOperations(Operations):
    """The annotations of an app."""

    def _frames(self, input_id: str, options: FrameOptions) -> FrameSession:
        return FrameSession(
            v2.StreamAnnotationsRequest(user_app_id=self.user_app_id, input_id=input_id, **options)
        )

    def _live(self, input_id: str, min_prediction_score: float) -> _LiveSession:
        return _LiveSession(
            v2.StreamLivestreamAnnotationsRequest(
                user_app_id=self.user_app_id,
                input_id=input_id,
                min_prediction_score=min_prediction_score,
            )
        )


class Annotations(AnnotationOperations):
    """The annotations of an app."""

    def stream(
        self, input_id: str, *, timeout: float | None = None, **options: Unpack[FrameOptions]
    ) -> Stream[v2.Annotation]:
        """The annotations of a video in the order of its frames.

        A connection that breaks is taken up again at the frame where it broke; nothing is lost or
        doubled, as long as the annotations say their frame and have ids. Where they do not, the
        failure raises.

        Args:
            input_id: The video.
            timeout: Seconds for the whole stream; None: the client's ``stream_timeout``.
            options: Where to start and to end, and what to leave out, see ``FrameOptions``.

        Returns:
            An iterator of annotations. Leave its ``with`` block, ``cancel`` it or drop it to end
            the call.
        """
        return Stream(self.unary(STREAM), self._frames(input_id, options), timeout)

    def stream_live(
        self, input_id: str, *, min_prediction_score: float = 0.0, timeout: float | None = None
    ) -> Stream[v2.Annotation]:
        """The annotations of a live video while they are made.

        There is no cursor: a connection that breaks after the first annotation raises.
        """
        session = self._live(input_id, min_prediction_score)
        return Stream(self.unary(STREAM_LIVE), session, timeout)


class AsyncAnnotations(AnnotationOperations):
    """The annotations of an app."""

    def stream(
        self, input_id: str, *, timeout: float | None = None, **options: Unpack[FrameOptions]
    ) -> AsyncStream[v2.Annotation]:
        """As ``Annotations.stream``."""
        return AsyncStream(self.unary(STREAM), self._frames(input_id, options), timeout)

    def stream_live(
        self, input_id: str, *, min_prediction_score: float = 0.0, timeout: float | None = None
    ) -> AsyncStream[v2.Annotation]:
        """As ``Annotations.stream_live``."""
        session = self._live(input_id, min_prediction_score)
        return AsyncStream(self.unary(STREAM_LIVE), session, timeout)
