"""What all models that look at images share: they also look at the frames of a video."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

import PIL.Image

from clarigrpc import v2
from clarigrpc.local.media import media_content, video_frames
from clarigrpc.local.models.model_runtime import PredictOptions, Runtime
from clarigrpc.local.service_errors import ServiceError
from clarigrpc.v2 import StatusCode


class ImageModel(Runtime):
    """A model of single images.

    Of a video it predicts the frames every ``output_config.sample_ms``, each in
    ``data.frames``; ``generate`` gives every frame as soon as it is done.

    Attributes:
        side: Pixels to a side that are enough; a large JPEG is then decoded to about that.
    """

    side: int | None = None

    @abstractmethod
    def look(self, image: PIL.Image.Image, config: v2.OutputConfig) -> v2.Data:
        """The output for an image."""

    def predict(self, data: v2.Data, options: PredictOptions) -> v2.Data:
        result = v2.Data()
        for piece in self.generate(data, options):
            result.MergeFrom(piece)
        return result

    def generate(self, data: v2.Data, options: PredictOptions) -> Iterator[v2.Data]:
        media_content.require_data(data)
        if not (data.HasField("image") or data.HasField("video")):
            raise ServiceError(
                StatusCode.INPUT_UNSUPPORTED_FORMAT,
                "this model needs data.image, or data.video for its frames",
            )
        kind = media_content.check(data)
        config = options.output_config
        sample_ms = video_frames.interval(config) if kind == "video" else 0
        budget = options.fetcher.budget
        content = media_content.content_of(data, options.fetcher)
        if kind == "image":
            with media_content.open_image(content, budget, side=self.side) as image:
                output = self.look(image, config)
            yield output
            return
        for sample in video_frames.samples(content, sample_ms, options.is_active, budget):
            frame = v2.Frame(data=self.look(sample.image, config))
            frame.frame_info.index = sample.index
            frame.frame_info.time = sample.time
            frame.frame_info.number = sample.number
            yield v2.Data(frames=[frame])
