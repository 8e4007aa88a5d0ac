"""The models inside the local server."""

from __future__ import annotations

from clarigrpc import v2
from clarigrpc.local.auth import PUBLIC
from clarigrpc.local.catalog import Entry, builtin
from clarigrpc.local.models.colors import W3C_NAMES, ColorRecognition
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
    return [builtin(PUBLIC, color, ColorRecognition()), builtin(PUBLIC, text, TextStream())]
