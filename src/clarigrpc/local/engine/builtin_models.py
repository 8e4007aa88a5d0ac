"""Which models are inside the local server, and those that its user gave it as Python."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from clarigrpc import v2
from clarigrpc.local.engine.model_catalog import CatalogEntry, builtin
from clarigrpc.local.models.color_recognition import W3C_NAMES, ColorRecognition
from clarigrpc.local.models.face_detection import FaceDetection
from clarigrpc.local.models.image_embedding import ImageEmbedding
from clarigrpc.local.models.model_runtime import Runtime
from clarigrpc.local.models.python_models import PythonModel
from clarigrpc.local.models.text_embedding import TextEmbedding
from clarigrpc.local.models.text_sentiment import SENTIMENTS as SENTIMENTS
from clarigrpc.local.models.text_sentiment import TextSentiment
from clarigrpc.local.models.text_stream import TextStream
from clarigrpc.local.user_app import PUBLIC_APP, UserApp


def public_models() -> list[CatalogEntry]:
    """The models of user ``clarifai``, app ``main``, which everybody may use."""
    return [
        _public(
            ColorRecognition(),
            id="color-recognition",
            model_type_id="visual-classifier",
            task="color-recognition",
            description="Finds the dominant colours of an image, their shares of its area, and the "
            "nearest named web colours. Computed from the pixels, not learned.",
            concepts=((name.lower(), name) for name in W3C_NAMES),
        ),
        _public(
            FaceDetection(),
            id="face-detection",
            model_type_id="visual-detector",
            task="visual-detection",
            description="Detects frontal faces with the Haar cascade of OpenCV. It does not "
            "recognize persons.",
            concepts=[("face", "face")],
        ),
        _public(
            ImageEmbedding(),
            id="image-embedding",
            model_type_id="visual-embedder",
            description="Computes a vector of the colours and edges in each part of an image, to "
            "compare images. Classical features, not learned.",
        ),
        _public(
            TextEmbedding(),
            id="text-embedding",
            model_type_id="text-embedder",
            description="Computes a vector of the parts of words in a text, to compare texts. "
            "Hashing, not learned.",
        ),
        _public(
            TextSentiment(),
            id="text-sentiment",
            model_type_id="text-classifier",
            task="text-classification",
            description="Rates an English text as positive, neutral or negative with the VADER "
            "lexicon and its rules.",
            concepts=((name, name) for name in SENTIMENTS),
        ),
        _public(
            TextStream(),
            id="text-stream",
            model_type_id="text-to-text",
            description="Returns its prompt word by word, to test clients of models that generate "
            "text. It is not a language model.",
        ),
    ]


def _public(
    runtime: Runtime, *, concepts: Iterable[tuple[str, str]] = (), **fields: str
) -> CatalogEntry:
    model = v2.Model(**fields)  # type: ignore[arg-type]
    model.visibility.gettable = v2.Visibility.PUBLIC
    for concept_id, name in concepts:
        model.model_version.output_info.data.concepts.add(
            id=concept_id, name=name, app_id=PUBLIC_APP.app_id, user_id=PUBLIC_APP.user_id
        )
    return builtin(PUBLIC_APP, model, runtime)


def user_models(app: UserApp, sources: Mapping[str, Any]) -> list[CatalogEntry]:
    """A user's functions and classes as models of an app, by id."""
    entries = []
    for model_id, source in sources.items():
        runtime = PythonModel(source)
        model = v2.Model(id=model_id, model_type_id="any-to-any")
        model.description = (
            f"{getattr(source, '__qualname__', type(source).__qualname__)} in Python"
        )
        model.visibility.gettable = v2.Visibility.PRIVATE
        model.model_version.method_signatures.extend(runtime.signatures)
        entries.append(builtin(app, model, runtime))
    return entries
