"""The types of models that this server can run, and those that it can train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clarigrpc import v2
from clarigrpc.local.models.image_crop import IMAGE_CROP_TYPE

ENRICH_DATASET = "enrich_dataset"
AUTOMATIC, DISABLED = "Automatic", "Disabled"
MUTUALLY_EXCLUSIVE = "concepts_mutually_exclusive"
TEMPLATE = "template"
LOGISTIC_REGRESSION = "logistic-regression"
NUM_EPOCHS = "num_epochs"
TRAINING_DATASET, TRAINING_DATASET_VERSION = "dataset_id", "dataset_version_id"
"""Keys of ``train_info.params`` that name what ``train_info.dataset`` names."""

_TRAINING_FIELDS = (
    v2.ModelTypeField(
        path=f"train_info.params.{ENRICH_DATASET}",
        field_type=v2.ModelTypeField.ENUM,
        description="Whether random images are added as negative examples, if the embedding model "
        "is image-embedding.",
        model_type_enum_options=[
            v2.ModelTypeEnumOption(id=AUTOMATIC, recommended=True),
            v2.ModelTypeEnumOption(id=DISABLED),
        ],
    ),
    v2.ModelTypeField(
        path=f"train_info.params.{MUTUALLY_EXCLUSIVE}",
        field_type=v2.ModelTypeField.BOOLEAN,
        description="Whether every input has exactly one of the concepts; their values then add up "
        "to 1. Needs at least two concepts.",
    ),
    v2.ModelTypeField(
        path="output_info.data.concepts",
        field_type=v2.ModelTypeField.ARRAY_OF_CONCEPTS,
        description="Concepts to train; by default all concepts of the inputs.",
    ),
    v2.ModelTypeField(
        path="input_info.base_embed_model",
        field_type=v2.ModelTypeField.WORKFLOW_EMBED_MODELS,
        description="Model that computes the embeddings to classify.",
    ),
)
_TRAINING_FIELDS[0].default_value.string_value = AUTOMATIC
_TRAINING_FIELDS[1].default_value.bool_value = False

# Named by the tests of the published gRPC client (test_deep_training) and SDK (test_model_train),
# and by the service's documentation.
STAND_IN_TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "visual-classifier": ("classification_cifar10_v1", "MMClassification_ResNet_50_RSB_A1"),
    "text-classifier": ("HF_GPTNeo_125m_lora",),
}
"""Templates of the service by the type of model; each trains as logistic-regression does."""


def _templated_fields(model_type: str) -> tuple[v2.ModelTypeField, ...]:
    template = v2.ModelTypeField(
        path=f"train_info.params.{TEMPLATE}",
        field_type=v2.ModelTypeField.ENUM,
        description="How to train. There is one way, under several names.",
        model_type_enum_options=[
            v2.ModelTypeEnumOption(
                id=LOGISTIC_REGRESSION,
                description="Logistic regressions on the embeddings of a public model.",
                model_type_fields=_TRAINING_FIELDS[:2],
                recommended=True,
            )
        ],
    )
    template.default_value.string_value = LOGISTIC_REGRESSION
    epochs = v2.ModelTypeField(
        path=f"train_info.params.{NUM_EPOCHS}",
        field_type=v2.ModelTypeField.NUMBER,
        description="Has no effect.",
    )
    for name in STAND_IN_TEMPLATES[model_type]:
        template.model_type_enum_options.add(
            id=name,
            description=f"Local stand-in: the same as {LOGISTIC_REGRESSION}; no neural network is "
            "trained.",
            model_type_fields=[*_TRAINING_FIELDS[:2], epochs],
        )
    return (template, *_TRAINING_FIELDS)


BASES: Mapping[str, tuple[str, ...]] = {
    "embedding-classifier": ("image-embedding", "text-embedding"),
    "visual-classifier": ("image-embedding",),
    "text-classifier": ("text-embedding",),
}
"""Trainable types -> the public embedding models that they work on unless told otherwise: the
first one that fits the inputs."""


def _listed(
    model_type: str, description: str, inputs: Sequence[str], outputs: Sequence[str], **more: Any
) -> v2.ModelType:
    """A type whose title is its id in words, unless ``more`` has another one."""
    return v2.ModelType(
        id=model_type,
        title=more.pop("title", model_type.replace("-", " ").capitalize()),
        description=description,
        input_fields=inputs,
        output_fields=outputs,
        **more,
    )


def _classifier(
    model_type: str, description: str, inputs: Sequence[str], fields: Sequence[v2.ModelTypeField]
) -> v2.ModelType:
    """A type of models that can be trained."""
    return _listed(
        model_type,
        description,
        inputs,
        ["concepts"],
        trainable=True,
        creatable=True,
        evaluation_type=v2.EvaluationType.Classification,
        model_type_fields=fields,
    )


LISTED_MODEL_TYPES = (
    _classifier(
        "embedding-classifier",
        "Classifies the embeddings of another model, with a linear classifier.",
        ["image", "video", "text"],
        _TRAINING_FIELDS,
    ),
    _classifier(
        "visual-classifier",
        "Classifies images and the frames of videos.",
        ["image"],
        _templated_fields("visual-classifier"),
    ),
    _classifier(
        "text-classifier", "Classifies texts.", ["text"], _templated_fields("text-classifier")
    ),
    _listed(
        "visual-detector",
        "Detects objects and their positions in images.",
        ["image"],
        ["regions[...].region_info", "regions[...].data.concepts"],
    ),
    _listed(
        IMAGE_CROP_TYPE,
        "Crops an image to each of its regions.",
        ["image", "regions[...].region_info"],
        ["regions[...].data.image"],
        title="Image cropper",
        creatable=True,
        model_type_fields=[
            v2.ModelTypeField(
                path="output_info.params.margin",
                field_type=v2.ModelTypeField.NUMBER,
                description="Size of a crop relative to its region; 1 by default.",
            )
        ],
    ),
    _listed(
        "clusterer",
        "Says which cell of a division an embedding is in.",
        ["embeddings"],
        ["clusters"],
    ),
    _listed("visual-embedder", "Computes vectors of images.", ["image"], ["embeddings"]),
    _listed("text-embedder", "Computes vectors of texts.", ["text"], ["embeddings"]),
    _listed("text-to-text", "Generates text from text.", ["text"], ["text"]),
    _listed("any-to-any", "A model with its own methods and arguments.", (), (), creatable=True),
)
"""What ListModelTypes shows."""


def use_of_type(model_type: str) -> v2.WorkflowModelUseCase.ValueType:
    """What models of a type are used for in workflows, by what they give."""
    for listed in LISTED_MODEL_TYPES:
        if listed.id == model_type:
            if "concepts" in listed.output_fields:
                return v2.WorkflowModelUseCase.CLASSIFICATION
            if "regions[...].data.concepts" in listed.output_fields:
                return v2.WorkflowModelUseCase.DETECTION
    return v2.WorkflowModelUseCase.WORKFLOW_MODEL_USE_CASE_NOT_SET
