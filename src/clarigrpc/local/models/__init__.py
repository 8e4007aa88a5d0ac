"""The models inside the local server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clarigrpc import v2
from clarigrpc.local.auth import PUBLIC
from clarigrpc.local.catalog import Entry, builtin
from clarigrpc.local.core import Scope
from clarigrpc.local.models.colors import W3C_NAMES, ColorRecognition
from clarigrpc.local.models.embedder import ImageEmbedding
from clarigrpc.local.models.python import PythonModel
from clarigrpc.local.models.text import TextStream


def public_models() -> list[Entry]:
    """The models of user ``clarifai``, app ``main``, which everybody may use."""
    color = v2.Model(
        id="color-recognition",
        model_type_id="visual-classifier",
        description="Finds the dominant colours of an image, their shares of its area, and the "
        "named web colours nearest to them. Measured on the pixels, not learned.",
        task="color-recognition",
    )
    color.visibility.gettable = v2.Visibility.PUBLIC
    color.model_version.output_info.data.concepts.extend(
        v2.Concept(id=name.lower(), name=name, app_id=PUBLIC.app_id, user_id=PUBLIC.user_id)
        for name in W3C_NAMES
    )
    text = v2.Model(
        id="text-stream",
        model_type_id="text-to-text",
        description="Gives its prompt back word by word, to test clients of models that "
        "generate text. It is no language model and has learned nothing.",
    )
    text.visibility.gettable = v2.Visibility.PUBLIC
    embedding = v2.Model(
        id="image-embedding",
        model_type_id="visual-embedder",
        description="Describes where an image has which colours and edges by a vector, so that "
        "images can be compared. Classical features; nothing is learned.",
    )
    embedding.visibility.gettable = v2.Visibility.PUBLIC
    return [
        builtin(PUBLIC, color, ColorRecognition()),
        builtin(PUBLIC, embedding, ImageEmbedding()),
        builtin(PUBLIC, text, TextStream()),
    ]


def user_models(scope: Scope, sources: Mapping[str, Any]) -> list[Entry]:
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
        entries.append(builtin(scope, model, runtime))
    return entries
