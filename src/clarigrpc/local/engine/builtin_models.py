"""Which models are inside the local server, and those that its user gave it as Python."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from clarigrpc import v2
from clarigrpc.local.engine.model_catalog import CatalogEntry, builtin
from clarigrpc.local.models.color_recognition import W3C_NAMES, ColorRecognition
from clarigrpc.local.models.embedding_cluster import EmbeddingCluster
from clarigrpc.local.models.face_detection import FaceDetection
from clarigrpc.local.models.image_crop import IMAGE_CROP_TYPE, ImageCrop
from clarigrpc.local.models.image_embedding import ImageEmbedding
from clarigrpc.local.models.image_tagger import TAG_GROUPS, ImageTagger
from clarigrpc.local.models.model_runtime import Runtime
from clarigrpc.local.models.model_types import BASES
from clarigrpc.local.models.python_models import PythonModel
from clarigrpc.local.models.text_embedding import TextEmbedding
from clarigrpc.local.models.text_sentiment import SENTIMENTS, TextSentiment
from clarigrpc.local.models.text_stream import TextStream
from clarigrpc.local.models.text_tagger import TEXT_TAGS, TextTagger
from clarigrpc.local.user_app import PUBLIC_APP, UserApp


@dataclass(frozen=True)
class BuiltinModel:
    """A model inside the server, before an app has it.

    Attributes:
        runtime: Runs it.
        model: Its id, type, name, description and concepts.
        other_ids: Further ids that mean it: those of the hosted model it stands in for.
        version_ids: Ids of versions of that hosted model, newest first.
    """

    runtime: Runtime
    model: v2.Model
    other_ids: tuple[str, ...] = ()
    version_ids: tuple[str, ...] = ()


# Where the ids of hosted models are seen: the published gRPC client's tests (public_test_helper,
# test_workflow_crud), the published JavaScript client's list of models, and the example code for
# calls that name a version.
def builtin_models() -> dict[str, BuiltinModel]:
    """The models inside the server by id, made anew. What needs a large library loads it late."""
    faces = FaceDetection()
    embedding = ImageEmbedding()
    sentiment = TextSentiment()
    found = [
        _model(
            ColorRecognition(),
            id="color-recognition",
            model_type_id="visual-classifier",
            task="color-recognition",
            name="Local stand-in: color recognition",
            description="Local stand-in: finds the dominant colours of an image, their shares of "
            "its area, and the nearest named web colours. Computed from the pixels, not learned.",
            concepts=((name.lower(), name) for name in W3C_NAMES),
            other_ids=("eeed0b6733a644cea07cf4c60f87ebb7", "color"),
            version_ids=("dd9458324b4b45c2be1a7ba84d27cd04",),
        ),
        _model(
            faces,
            id="face-detection",
            model_type_id="visual-detector",
            task="visual-detection",
            name="Local stand-in: face detection",
            description="Local stand-in: detects frontal faces with the Haar cascade of OpenCV. "
            "It does not recognize persons.",
            concepts=[("face", "face")],
            other_ids=("a403429f2ddf4b49b307e318f00e528b",),
            version_ids=(
                "6dc7e46bc9124c5c8824be4822abe105",
                "fe995da8cb73490f8556416ecf25cea3",
                "45fb9a671625463fa646c3523a3087d5",
                "34ce21a40cc24b6b96ffee54aabff139",
            ),
        ),
        _tagger(
            faces,
            TAG_GROUPS,
            id="general-image-recognition",
            what="general image recognition",
            other_ids=("aaa03c23b3724a16a56b629203edc62c", "general-v1.3"),
            version_ids=("aa7f35c01e0642fda5cf400f543e7c40", "aa9ca48295b37401f8af92ad1af0d91d"),
        ),
        _tagger(
            faces,
            ("people", "light"),
            id="moderation-recognition",
            what="moderation",
            limits="It judges nothing: no value says that an image is safe or not.",
            other_ids=("d16f390eb32cad478c7ae150069bd2c6",),
            version_ids=("aa8be956dbaa4b7a858826a84253cab9", "7cde8e92896340b0998b8260d47f1502"),
        ),
        _tagger(
            faces,
            ("people",),
            id="face-sentiment-recognition",
            what="face sentiment recognition",
            limits="It recognizes no sentiment.",
            version_ids=("a5d7776f0c064a41b48c3ce039049f65",),
        ),
        _tagger(
            faces,
            ("people",),
            id="nsfw-recognition",
            what="NSFW recognition",
            limits="It judges nothing: no value says that an image is safe or not.",
            other_ids=("e9576d86d2004ed1a38ba0cf39ecb4b1", "nsfw-v1.0"),
            version_ids=("aa47919c9a8d4d94bfa283121281bcc4",),
        ),
        _tagger(
            faces,
            ("colour", "structure"),
            id="apparel-recognition",
            what="apparel recognition",
            limits="It recognizes no garment.",
            other_ids=("e0be3b9d6a454f0493ac3a30784001ff", "apparel"),
            version_ids=("dc2cd6d9bff5425a80bfe0c4105583c1",),
        ),
        _tagger(
            faces,
            ("colour", "light", "structure"),
            id="food-item-recognition",
            what="food item recognition",
            limits="It recognizes no food.",
            other_ids=("bd367be194cf45149e75f01d59f77ba7", "food-items-v1.0"),
            version_ids=("1d5fd481e0cf4826aa72ec3ff049e044", "dfebc169854e429086aceb8368662641"),
        ),
        _tagger(
            faces,
            ("scene", "light", "colour"),
            id="travel-recognition",
            what="travel recognition",
            limits="It recognizes no place.",
            other_ids=("eee28c313d69466f836ab83287a54ed9", "travel-v1.0"),
        ),
        # The ids in words of these are not published.
        _tagger(
            faces,
            ("people", "scene", "colour"),
            id="c386b7a870114f4a87477c0824499348",
            what="weddings",
            limits="It recognizes no wedding.",
            other_ids=("weddings-v1.0",),
        ),
        _tagger(
            faces,
            ("structure", "colour"),
            id="fbefb47f9fdb410e8ce14f24f54b47ff",
            what="textures and patterns",
        ),
        _tagger(
            faces,
            ("sharpness", "light", "format", "scene"),
            id="bec14810deb94c40a05f1f0eb3c91403",
            what="landscape quality",
            limits="It rates nothing.",
        ),
        _tagger(
            faces,
            ("sharpness", "light", "format", "people"),
            id="de9bd05cfdbf4534af151beb2a5d0953",
            what="portrait quality",
            limits="It rates nothing.",
        ),
        _model(
            embedding,
            id="general-image-embedding",
            model_type_id="visual-embedder",
            name="Local stand-in: general image embedding",
            description="Local stand-in: the same as image-embedding, under the id of the hosted "
            "model.",
            other_ids=("bbb5f41425b8468d9b7a554ff10f8581",),
            version_ids=("bb186755eda04f9cbb6fe32e816be104",),
        ),
        _model(
            EmbeddingCluster(),
            id="general-clusterering",
            model_type_id="clusterer",
            name="Local stand-in: general clustering",
            description="Local stand-in: says which cell of a fixed division of the space an "
            "embedding is in. Nothing is learned.",
            version_ids=("cc2074cff6dc4c02b6f4e1b8606dcb54",),
        ),
        _model(
            ImageCrop(1.1),
            id="margin-110-image-crop",
            model_type_id=IMAGE_CROP_TYPE,
            name="Image crop, 10 % margin",
            description="Crops an image to each of its regions, with a margin of 10 %.",
            version_ids=("b9987421b40a46649566826ef9325303",),
        ),
        _model(
            embedding,
            id="image-embedding",
            model_type_id="visual-embedder",
            name="Image embedding",
            description="Computes a vector of the colours and edges in each part of an image, to "
            "compare images. Classical features, not learned.",
        ),
        _model(
            TextEmbedding(),
            id="text-embedding",
            model_type_id="text-embedder",
            name="Text embedding",
            description="Computes a vector of the parts of words in a text, to compare texts. "
            "Hashing, not learned.",
        ),
        _model(
            sentiment,
            id="text-sentiment",
            model_type_id="text-classifier",
            task="text-classification",
            name="Text sentiment",
            description="Rates an English text as positive, neutral or negative with the VADER "
            "lexicon and its rules.",
            concepts=((name, name) for name in SENTIMENTS),
        ),
        _model(
            TextTagger(sentiment),
            id="moderation-multilingual-text-classification",
            model_type_id="text-classifier",
            task="text-classification",
            name="Local stand-in: text moderation",
            description="Local stand-in: counts capital letters, exclamation marks and links, and "
            "rates the sentiment of English. It judges nothing.",
            concepts=((tag.id, tag.name) for tag in TEXT_TAGS),
            other_ids=("bdcedc0f8da58c396b7df12f634ef923",),
            version_ids=("79c2248564b0465bb96265e0c239352b",),
        ),
        _model(
            TextStream(),
            id="text-stream",
            model_type_id="text-to-text",
            name="Text stream",
            description="Returns its prompt word by word, to test clients of models that generate "
            "text. It is not a language model.",
        ),
    ]
    return {made.model.id: made for made in found}


def _model(
    runtime: Runtime,
    *,
    concepts: Iterable[tuple[str, str]] = (),
    other_ids: tuple[str, ...] = (),
    version_ids: tuple[str, ...] = (),
    **fields: str,
) -> BuiltinModel:
    model = v2.Model(**fields)  # type: ignore[arg-type]
    for concept_id, name in concepts:
        model.model_version.output_info.data.concepts.add(
            id=concept_id, name=name, app_id=PUBLIC_APP.app_id, user_id=PUBLIC_APP.user_id
        )
    return BuiltinModel(runtime, model, other_ids, version_ids)


def _tagger(
    faces: FaceDetection,
    groups: tuple[str, ...],
    *,
    id: str,
    what: str,
    limits: str = "It recognizes no objects.",
    other_ids: tuple[str, ...] = (),
    version_ids: tuple[str, ...] = (),
) -> BuiltinModel:
    """A classifier of images that gives the tags of some groups."""
    runtime = ImageTagger(groups, faces)
    listed = groups[0] if len(groups) == 1 else f"{', '.join(groups[:-1])} and {groups[-1]}"
    return _model(
        runtime,
        id=id,
        model_type_id="visual-classifier",
        task="visual-classification",
        name=f"Local stand-in: {what}",
        description=f"Local stand-in: tags for what can be measured of an image: {listed}. "
        f"{limits} Computed from the pixels, not learned.",
        concepts=((tag.id, tag.name) for tag in runtime.tags),
        other_ids=other_ids,
        version_ids=version_ids,
    )


def public_models(*, only_bases: bool = False) -> list[CatalogEntry]:
    """The models of user ``clarifai``, app ``main``, which everybody may use.

    Args:
        only_bases: Leave out all but the embedding models that trainings work on.
    """
    kept = {name for names in BASES.values() for name in names}
    entries = []
    for made in builtin_models().values():
        if only_bases and made.model.id not in kept:
            continue
        made.model.visibility.gettable = v2.Visibility.PUBLIC
        entries.append(
            builtin(
                PUBLIC_APP,
                made.model,
                made.runtime,
                other_ids=made.other_ids,
                version_ids=made.version_ids,
            )
        )
    return entries


class PublicNode(NamedTuple):
    """A node of a public workflow.

    Attributes:
        model: Id of its model.
        id: By default that of its model.
        after: Id of the node whose output it takes; none takes the inputs as they are.
    """

    model: str
    id: str = ""
    after: str = ""


# The nodes of General as the published SDK's test_export has them.
PUBLIC_WORKFLOWS: Mapping[str, tuple[PublicNode, ...]] = {
    "General": (
        PublicNode("general-image-recognition", "general-v1.5-concept"),
        PublicNode("general-image-embedding", "general-v1.5-embed"),
        PublicNode("general-clusterering", "general-v1.5-cluster", after="general-v1.5-embed"),
    ),
    "Face": (PublicNode("face-detection"),),
    "Moderation": (PublicNode("moderation-recognition"),),
    "Apparel": (PublicNode("apparel-recognition"), PublicNode("color-recognition")),
    "Food": (PublicNode("food-item-recognition"), PublicNode("general-image-embedding")),
    "Travel": (PublicNode("travel-recognition"), PublicNode("general-image-embedding")),
    "Text": (PublicNode("text-embedding"), PublicNode("text-sentiment")),
}
"""Workflows of the public app, by id."""


def user_models(app: UserApp, sources: Mapping[str, Any]) -> list[CatalogEntry]:
    """A user's functions and classes as models of an app, by id."""
    entries = []
    for model_id, source in sources.items():
        if not isinstance(model_id, str):
            raise TypeError(f"the id of a model has to be a string, not {model_id!r}")
        if not model_id or "/" in model_id:
            raise ValueError(f"{model_id!r} is no id of a model: it is empty or has a slash")
        runtime = PythonModel(source)
        model = v2.Model(id=model_id, model_type_id="any-to-any")
        model.description = (
            f"{getattr(source, '__qualname__', type(source).__qualname__)} in Python"
        )
        model.visibility.gettable = v2.Visibility.PRIVATE
        model.model_version.method_signatures.extend(runtime.signatures)
        entries.append(builtin(app, model, runtime))
    return entries
