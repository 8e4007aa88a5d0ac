"""What a version of a dataset holds: its inputs and annotations as they were, counted, exported."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from google.protobuf import json_format

from clarigrpc import v2
from clarigrpc.local import json_values
from clarigrpc.local.engine import search_filters
from clarigrpc.local.engine.box_interpolation import interpolate
from clarigrpc.local.engine.dataset_membership import members_of
from clarigrpc.local.engine.input_level_annotations import own_annotation
from clarigrpc.local.engine.stored_inputs import INPUT_KIND, annotations_of
from clarigrpc.local.media import media_content
from clarigrpc.local.store.resource_store import PARENT_SEPARATOR, Store, StoredCollection
from clarigrpc.local.user_app import UserApp

SNAPSHOT_KINDS = ("snapshot_input", "snapshot_annotation")
"""Kinds of the store with the frozen content of dataset versions, nested in dataset and version."""

ExportFormat = v2.DatasetVersionExportFormat
_BATCH_INPUTS = 1000
_LABELS: tuple[Literal["concepts", "regions", "frames", "time_segments"], ...] = (
    "concepts",
    "regions",
    "frames",
    "time_segments",
)
_Group = v2.DatasetVersionMetricsGroupType


class SnapshotEntry(NamedTuple):
    """One input of a version with its annotations."""

    input: v2.Input
    annotations: list[v2.Annotation]


def _where(kind: str, app: UserApp, dataset_id: str, version_id: str) -> StoredCollection:
    parent = PARENT_SEPARATOR.join((dataset_id, version_id))
    return StoredCollection.of_app(kind, app, parent)


def take(
    store: Store,
    app: UserApp,
    dataset_id: str,
    version: v2.DatasetVersion,
    query: v2.Query,
    *,
    predictions: Mapping[str, list[v2.Annotation]] | None = None,
    sample_ms: int = 0,
) -> Iterator[None]:
    """Freezes what the dataset holds and the query lets through, input by input.

    Between two of them a transaction may end. What changes meanwhile is frozen as it is then.

    Args:
        store: Where all is kept.
        app: The app.
        dataset_id: The dataset.
        version: Its new version.
        query: What annotations have to fit; without conditions all do.
        predictions: Annotations to take by the ids of inputs, instead of those that are stored.
        sample_ms: Milliseconds between frames of videos to interpolate, 0 for none.
    """
    inputs, annotations = (_where(kind, app, dataset_id, version.id) for kind in SNAPSHOT_KINDS)
    store.clear(inputs)
    store.clear(annotations)
    live = StoredCollection.of_app(INPUT_KIND, app)
    filters = search_filters.Filters(query)
    for member in store.walk(members_of(app, dataset_id), newest_first=False):
        row = store.get(live, member.id)
        item = store.message(v2.Input, row) if row is not None else None
        if item is None:
            continue
        if predictions is None:
            own = own_annotation(item, app)
            every = [own] if own.data.ListFields() else []
            every += annotations_of(store, app, item.id)
        else:
            every = predictions.get(item.id, [])
        if sample_ms:
            every = [interpolate(found, sample_ms) for found in every]
        kept = [found for found in every if filters.pass_annotation(item, found)]
        # A query without conditions takes inputs without annotations as well.
        if not kept and (query.filters or version.annotation_filter_config.ignore_empty_inputs):
            continue
        store.insert(inputs, item.id, item.SerializeToString())
        for found in kept:
            store.insert(
                annotations, f"{found.input_id}/{found.id}", found.SerializeToString(), key=item.id
            )
        yield


def entries(
    store: Store, app: UserApp, dataset_id: str, version_id: str
) -> Iterator[SnapshotEntry]:
    """The inputs of a version in the order in which they came to the dataset."""
    inputs, annotations = (_where(kind, app, dataset_id, version_id) for kind in SNAPSHOT_KINDS)
    for row in store.walk(inputs, newest_first=False):
        found = store.walk(annotations, newest_first=False, key=row.id)
        yield SnapshotEntry(
            v2.Input.FromString(row.body), [v2.Annotation.FromString(one.body) for one in found]
        )


def count(content: Iterable[SnapshotEntry]) -> v2.DatasetVersionMetrics:
    """The numbers about some inputs."""
    totals: dict[str, int] = {}

    def add(name: str, number: int) -> None:
        totals[name] = totals.get(name, 0) + number

    for item, labels in content:
        data = [label.data for label in labels]
        regions = [region for one in data for region in one.regions]
        frames = [frame for one in data for frame in one.frames]
        in_frames = [region for frame in frames for region in frame.data.regions]
        tags = {c.id for one in data for c in one.concepts if c.value >= 0.5}
        labelled = any(True for one in data for _ in search_filters.concepts_of(one))
        add("inputs_count", 1)
        add("unlabeled_inputs_count", not labelled)
        add("inputs_with_metadata_count", item.data.HasField("metadata"))
        add("inputs_with_geo_count", item.data.HasField("geo"))
        add("regions_count", len(regions) + len(in_frames))
        for region in [*regions, *in_frames]:
            info = region.region_info
            add("bounding_boxes_count", info.HasField("bounding_box"))
            add("polygons_count", info.HasField("polygon"))
            add("points_count", info.HasField("point"))
            add("masks_count", info.HasField("mask"))
        add("region_inputs_count", bool(regions))
        add("region_frames_count", sum(bool(frame.data.regions) for frame in frames))
        add("frames_count", len(frames))
        add("frame_inputs_count", bool(frames))
        add("embeddings_count", sum(len(one.embeddings) for one in data))
        add("positive_input_tags_count", len(tags))
        add("positive_region_tags_count", _positive(regions))
        add("positive_frame_tags_count", _positive(frames))
    metrics = v2.DatasetVersionMetrics()
    for name in (
        field.name
        for field in v2.DatasetVersionMetrics.DESCRIPTOR.fields
        if field.name != "region_location_matrix"
    ):
        getattr(metrics, name).value = totals.get(name, 0)
    return metrics


def _positive(parts: Iterable[Any]) -> int:
    return sum(1 for part in parts for concept in part.data.concepts if concept.value >= 0.5)


def _regions(
    entry: SnapshotEntry, kind: Literal["bounding_box", "polygon", "point", "mask"]
) -> int:
    return sum(
        region.region_info.HasField(kind)
        for annotation in entry.annotations
        for region in annotation.data.regions
    )


def _concepts(entry: SnapshotEntry) -> set[str]:
    return {
        concept.id
        for annotation in entry.annotations
        for concept in search_filters.concepts_of(annotation.data)
        if concept.value >= 0.5
    }


def _pixels(entry: SnapshotEntry) -> list[object]:
    info = entry.input.data.image.image_info
    return [info.width * info.height] if info.width and info.height else []


def _ratio(entry: SnapshotEntry) -> list[object]:
    info = entry.input.data.image.image_info
    return [round(info.width / info.height, 2)] if info.width and info.height else []


_GROUPS: dict[Any, Callable[[SnapshotEntry], Iterable[object]]] = {
    _Group.INPUT_TYPE: lambda entry: [media_content.kind_of(entry.input.data)],
    _Group.CONCEPT_ID: _concepts,
    _Group.CONCEPTS_COUNT: lambda entry: [len(_concepts(entry))],
    _Group.BOUNDING_BOXES_COUNT: lambda entry: [_regions(entry, "bounding_box")],
    _Group.POLYGONS_COUNT: lambda entry: [_regions(entry, "polygon")],
    _Group.POINTS_COUNT: lambda entry: [_regions(entry, "point")],
    _Group.MASKS_COUNT: lambda entry: [_regions(entry, "mask")],
    _Group.PIXELS_COUNT: _pixels,
    _Group.ASPECT_RATIO: _ratio,
}


_ALL_INPUTS = "total"
"""Beside the kinds of inputs, all of them; the published SDK reads it."""


def groups(content: list[SnapshotEntry]) -> list[v2.DatasetVersionMetricsGroup]:
    """The numbers about parts of a version: by kind of input, by concept and so on.

    Of an empty version they are those by kind of input, all 0: programs wait until there are some.
    """
    found = []
    for kind, values_of in _GROUPS.items():
        parts: dict[Any, list[SnapshotEntry]] = {}
        if kind == _Group.INPUT_TYPE and not content:
            parts = {medium: [] for medium in media_content.MEDIA_KINDS}
        for entry in content:
            for value in values_of(entry):
                parts.setdefault(value, []).append(entry)
        if kind == _Group.INPUT_TYPE:
            parts[_ALL_INPUTS] = content
        for value in sorted(parts):
            group = v2.DatasetVersionMetricsGroup(
                parent_path="/", type=kind, metrics=count(parts[value])
            )
            if isinstance(value, str):
                group.value.string_value = value
            else:
                group.value.number_value = value
            found.append(group)
    return found


def export(path: Path, form: ExportFormat.ValueType, content: list[SnapshotEntry]) -> None:
    """Writes an archive of a version.

    The forms of the service start with a member ``mimetype``, and then have the inputs, with their
    annotations in their data, as messages InputBatch in members ``all/<number>_n<inputs in it>``,
    the layout that the published SDK's DatasetExportReader reads. The COCO form is one
    ``annotations.json`` in that layout.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        if form == ExportFormat.COCO:
            archive.writestr("annotations.json", json.dumps(coco(content), indent=1))
            return
        as_json = form == ExportFormat.CLARIFAI_DATA_JSON
        kind = "json" if as_json else "protobuf"
        archive.writestr("mimetype", f"application/x.clarifai-data+{kind}", zipfile.ZIP_STORED)
        for start in range(0, len(content), _BATCH_INPUTS):
            part = content[start : start + _BATCH_INPUTS]
            batch = v2.InputBatch(inputs=[_labelled(entry) for entry in part])
            name = f"all/{start // _BATCH_INPUTS:06d}_n{len(part)}"
            if as_json:
                shown, _ = json_values.with_nulls(batch)
                text = json_format.MessageToJson(shown, preserving_proto_field_name=True)
                archive.writestr(name, text)
            else:
                archive.writestr(name, batch.SerializeToString())


def _labelled(entry: SnapshotEntry) -> v2.Input:
    """The input with all that its annotations in the version say."""
    item = v2.Input()
    item.CopyFrom(entry.input)
    for name in _LABELS:
        item.data.ClearField(name)
        for found in entry.annotations:
            getattr(item.data, name).MergeFrom(getattr(found.data, name))
    return item


def coco(content: Iterable[SnapshotEntry]) -> dict[str, Any]:
    """A version in the layout of COCO: images, categories, and boxes in pixels."""
    images: list[dict[str, Any]] = []
    boxes: list[dict[str, Any]] = []
    categories: dict[str, int] = {}
    for number, (item, labels) in enumerate(content, 1):
        info = item.data.image.image_info
        images.append(
            {
                "id": number,
                "file_name": item.id,
                "coco_url": item.data.image.url,
                "width": info.width,
                "height": info.height,
            }
        )
        for region in (region for found in labels for region in found.data.regions):
            if not region.region_info.HasField("bounding_box"):
                continue
            box = region.region_info.bounding_box
            width = (box.right_col - box.left_col) * info.width
            height = (box.bottom_row - box.top_row) * info.height
            for concept in region.data.concepts:
                boxes.append(
                    {
                        "id": len(boxes) + 1,
                        "image_id": number,
                        "category_id": categories.setdefault(
                            concept.name or concept.id, len(categories) + 1
                        ),
                        "bbox": [
                            box.left_col * info.width,
                            box.top_row * info.height,
                            width,
                            height,
                        ],
                        "area": width * height,
                        "iscrowd": 0,
                    }
                )
    return {
        "images": images,
        "annotations": boxes,
        "categories": [{"id": number, "name": name} for name, number in categories.items()],
    }
