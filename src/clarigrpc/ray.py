"""Predictions, inputs and searches in datasets of Ray Data, on as many machines as Ray has.

    import ray
    from clarigrpc.ray import predict

    photos = ray.data.read_parquet("s3://bucket/photos")
    predict(photos, "general", column="url", kind="image").write_parquet("s3://bucket/outputs")

Needs the extra ``ray``, on the workers as well. Each task and each actor has a client of its own,
with the options given as ``client=ClientOptions(...)``; what they leave out comes from the
environment of the worker. The page "Many machines" of the documentation has more.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, Unpack, get_args

from google.protobuf.json_format import MessageToDict

from clarigrpc import query, v2
from clarigrpc._extras import NeedsExtra
from clarigrpc._ray_data.inputs_report import FailedRow, InputsReport
from clarigrpc.arrays import OutputColumn, ParquetReport, checked_columns
from clarigrpc.errors import InvalidArgumentError
from clarigrpc.types import ClientOptions

if TYPE_CHECKING:
    import pyarrow as pa
    from ray.data import Dataset

    from clarigrpc._ray_data.bulk_actor import BulkActor

__all__ = [
    "FailedRow",
    "InputKind",
    "InputsReport",
    "Predictor",
    "PredictorOptions",
    "predict",
    "predict_to_parquet",
    "read_annotations",
    "read_hits",
    "read_inputs",
    "write_inputs",
]

InputKind: TypeAlias = Literal["image", "video", "audio", "text", "input"]
"""What a column holds. "image", "video" and "audio": bytes of a file, its path or a URL; "image"
also arrays, as ``ray.data.read_images`` makes them. "text": texts. "input": serialized inputs, as
in the column ``message`` of ``read_inputs``."""


class PredictorOptions(TypedDict, total=False):
    """Options of ``Predictor``, which has their documentation."""

    column: str
    kind: InputKind | None
    method: str
    arguments: Mapping[str, str] | Sequence[str]
    user_id: str
    app_id: str
    version_id: str | None
    output_config: v2.OutputConfig | None
    columns: Sequence[OutputColumn] | None
    batch_size: int | None
    in_flight: int | None
    timeout: float | None
    prefix: str
    client: ClientOptions | None


class Predictor:
    """Predicts the rows of batches, for ``Dataset.map_batches``: one client in each actor.

    ``predict`` is the short way. A batch of any format becomes an Arrow table with three columns
    more:

    - ``output``: a struct with the ``columns`` of ``arrays.to_arrow`` (``concepts``, ``regions``,
      ``embedding``, ``text`` and the counts of tokens; an embedding is a list of any length here).
      With ``method``, the method's result: str, bytes, int, float and bool as such, all else as
      text in JSON. Null where the row failed.
    - ``error``: string, why the row failed; null where it did not. A row never fails its batch.
    - ``latency``: seconds from reading the row to its result, with retries.

    The rows of a batch are predicted as ``predict_many`` does. The class is asynchronous: Ray gives
    an actor several batches of a block at once.

    Args:
        model: Id of the model.
        column: Column of the inputs.
        kind: What it holds. None takes bytes and arrays for images; strings need a kind.
        method: Method with named arguments to call for each row, in place of ``column``. It must
            neither take nor return a stream.
        arguments: Columns by the names of the method's arguments, or columns that are called as
            these are.
        user_id: Id of the model's owner. Empty uses the client's user.
        app_id: Id of the model's app. Empty uses the client's app.
        version_id: Id of the version. None uses the latest.
        output_config: Settings of the outputs. None uses the model's.
        columns: Fields of ``output``. None has all.
        batch_size, in_flight, timeout: As of ``predict_many``, for each batch of rows.
        prefix: Before the names of the three columns, to tell several models apart.
        client: Options of the client. None takes all from the worker's environment.

    Raises:
        ConfigurationError: The extra ``ray`` is not installed.
        InvalidArgumentError: ``kind`` or ``columns`` names what there is not, or not exactly one of
            ``column`` and ``method`` is given. Of a batch: it lacks a column, or has one of the
            three already.
    """

    def __init__(
        self,
        model: str,
        *,
        column: str = "",
        kind: InputKind | None = None,
        method: str = "",
        arguments: Mapping[str, str] | Sequence[str] = (),
        user_id: str = "",
        app_id: str = "",
        version_id: str | None = None,
        output_config: v2.OutputConfig | None = None,
        columns: Sequence[OutputColumn] | None = None,
        batch_size: int | None = None,
        in_flight: int | None = None,
        timeout: float | None = None,
        prefix: str = "",
        client: ClientOptions | None = None,
    ) -> None:
        with NeedsExtra("ray", "Predictor()"):
            from clarigrpc._ray_data.bulk_actor import ActorTask
        _check_kind(kind)
        if bool(column) == bool(method):
            raise InvalidArgumentError(
                "Predictor() needs column=, or method= with arguments=, and not both"
            )
        if isinstance(arguments, str):
            raise InvalidArgumentError(f"arguments={arguments!r}: a list of columns, or a mapping")
        if not isinstance(arguments, Mapping):
            arguments = {name: name for name in arguments}
        self._task = ActorTask(
            model={
                "model_id": model,
                "user_id": user_id,
                "app_id": app_id,
                "version_id": version_id,
                "output_config": output_config,
            },
            column=column,
            kind=kind,
            method=method,
            arguments=arguments,
            columns=checked_columns(columns) or get_args(OutputColumn),
            run={"batch_size": batch_size, "in_flight": in_flight, "timeout": timeout},
            prefix=prefix,
        )
        self._options = client.options if isinstance(client, _PlannedOptions) else client
        self._actor: BulkActor | None = None

    async def __call__(self, batch: Any) -> pa.Table:
        """The batch as a table, with the columns of the predictions."""
        if self._actor is None:  # on the event loop that its client then belongs to
            from clarigrpc._ray_data.bulk_actor import BulkActor

            self._actor = BulkActor(self._task, self._options)
        return await self._actor.add_columns(batch)

    async def close(self) -> None:
        """Close the connection. An actor of Ray needs no closing: it ends with its process."""
        if self._actor is not None:
            await self._actor.close()


class _PlannedOptions:
    """Options of a client as Ray's plan holds them.

    Ray can log the arguments of actors, a data class with all of its fields. Of this, it logs the
    name of the class.
    """

    def __init__(self, options: ClientOptions) -> None:
        self.options = options


def predict(
    dataset: Dataset,
    model: str,
    *,
    actors: int | tuple[int, int] = 2,
    cpus_per_actor: float = 0.5,
    rows_per_batch: int = 1024,
    **options: Unpack[PredictorOptions],
) -> Dataset:
    """A dataset with the predictions of its rows, made when it is read or written.

    Args:
        dataset: What to predict.
        model: Id of the model.
        actors: Number of actors, each with a client of its own, or the least and the most of them.
        cpus_per_actor: CPUs that Ray reserves for an actor. Actors wait for the service most of the
            time. They must leave some CPUs to the other tasks of the plan, which does not begin
            otherwise.
        rows_per_batch: Rows that an actor is given at once. It has some batches at the same time.
        options: Those of ``Predictor``: ``column``, ``kind``, ``method``, ``client``, ...

    Returns:
        The dataset with the columns ``output``, ``error`` and ``latency``.

    Raises:
        ConfigurationError: The extra ``ray`` is not installed.
        InvalidArgumentError: An option of ``Predictor`` is wrong, or ``actors``,
            ``cpus_per_actor`` or ``rows_per_batch`` is out of range.
        TypeError: ``Predictor`` has no such option.
    """
    with NeedsExtra("ray", "predict()"):
        from ray.data import ActorPoolStrategy
    Predictor(model, **options)  # wrong options are told here, not by a worker
    least, most = (actors, actors) if isinstance(actors, int) else actors
    if not 1 <= least <= most:
        raise InvalidArgumentError(
            f"actors={actors!r}: a number from 1 on, or the least and the most of them"
        )
    if not cpus_per_actor >= 0:
        raise InvalidArgumentError(f"cpus_per_actor={cpus_per_actor!r}: at least 0")
    if rows_per_batch < 1:
        raise InvalidArgumentError(f"rows_per_batch={rows_per_batch!r}: at least 1")
    planned: dict[str, Any] = {**options}
    if (client := options.get("client")) is not None:
        planned["client"] = _PlannedOptions(client)
    return dataset.map_batches(
        Predictor,
        fn_constructor_args=(model,),
        fn_constructor_kwargs=planned,
        batch_format="pyarrow",
        batch_size=rows_per_batch,
        compute=ActorPoolStrategy(min_size=least, max_size=most),
        num_cpus=cpus_per_actor,
    )


def predict_to_parquet(
    dataset: Dataset,
    folder: str | os.PathLike[str],
    model: str,
    *,
    id_column: str,
    rows_per_file: int = 10_000,
    actors: int | tuple[int, int] = 2,
    cpus_per_actor: float = 0.5,
    rows_per_batch: int = 1024,
    **options: Unpack[PredictorOptions],
) -> ParquetReport:
    """Predict the rows of a dataset and write them to Parquet files, going on where a run ended.

    The folder gets files ``part-<run>-<number>.parquet`` with the columns of the dataset and those
    of ``predict``, in no certain order. Each appears when it is complete. Readers of Parquet take
    the folder as one table.

    Run it again to continue, also after the driver was killed: rows whose id is in a file are left
    out before they are predicted. What was predicted and not written yet is predicted again. Rows
    that failed are written, with their ``error``, and not tried again. A worker of an earlier run
    that is still alive is kept from adding files.

    Args:
        dataset: What to predict.
        folder: Path, or a URI such as ``s3://bucket/outputs``. All workers must reach it.
        model: Id of the model.
        id_column: Column of whole numbers, strings or bytes that tell rows apart: each id once. The
            ids of what was written take 16 bytes each in the memory of every machine.
        rows_per_file: Rows of a file, or more.
        actors, cpus_per_actor, rows_per_batch: As of ``predict``.
        options: Those of ``Predictor``.

    Returns:
        How many rows were written, how many of them have an ``error``, and how many were there.

    Raises:
        ConfigurationError: The extra ``ray`` is not installed, or the folder is in use by another
            run, or has rows of another model, ``output_config`` or ``columns``.
        InvalidArgumentError: As of ``predict``. Of rows: an id is null or of another type.
    """
    with NeedsExtra("ray", "predict_to_parquet()"):
        from clarigrpc._ray_data.output_parts import NotWritten, OutputFolder, PartsDatasink
    if rows_per_file < 1:
        raise InvalidArgumentError(f"rows_per_file={rows_per_file!r}: at least 1")

    def predicted(rows: Dataset) -> Dataset:
        return predict(
            rows,
            model,
            actors=actors,
            cpus_per_actor=cpus_per_actor,
            rows_per_batch=rows_per_batch,
            **options,
        )

    predicted(dataset)  # wrong options are told before the folder is touched
    target = OutputFolder(folder, _made_by(model, id_column, options))
    complete = False
    try:
        ids, before = target.written_ids(id_column)
        todo = dataset.map_batches(
            NotWritten(ids, id_column).filter, batch_format="pyarrow", zero_copy_batch=True
        )
        sink = PartsDatasink(target.writer, rows_per_file, f"{options.get('prefix', '')}error")
        predicted(todo).write_datasink(sink)
        complete = True
    finally:
        target.close(complete=complete)
    return ParquetReport(sink.written, sink.failed, before)


def _made_by(model: str, id_column: str, options: PredictorOptions) -> dict[str, Any]:
    """What the rows of a folder depend on, in values of JSON."""
    config = options.get("output_config")
    columns = checked_columns(options.get("columns"))
    arguments = options.get("arguments") or ()
    named = ("user_id", "app_id", "version_id", "column", "kind", "method", "prefix")
    return {
        "model_id": model,
        "id_column": id_column,
        **{name: options.get(name) or "" for name in named},
        "arguments": dict(arguments) if isinstance(arguments, Mapping) else [*arguments],
        "columns": ",".join(columns) if columns else "default",
        "output_config": {}
        if config is None
        else MessageToDict(config, preserving_proto_field_name=True),
    }


def read_inputs(
    *, limit: int | None = None, client: ClientOptions | None = None, **reading: Any
) -> Dataset:
    """The inputs of an app, oldest first, read by several tasks.

    Columns: ``id``, ``kind`` ("image", "video", "audio" or "text"), ``url``, ``text``,
    ``concepts`` (list of structs of ``id``, ``name`` and ``value``), ``metadata`` (JSON),
    ``dataset_ids``, ``status_code``, ``created_at`` and ``message`` (the serialized ``v2.Input``,
    which ``predict(..., column="message", kind="input")`` takes).

    The app is divided by the times at which inputs were created, so that inputs that are added or
    deleted meanwhile neither double nor hide others. ``select_columns`` and ``filter(expr=...)``
    reach the tasks: equality of ``id`` asks the service for these alone, anything else is applied
    before rows leave the task.

    Args:
        limit: Most inputs, the oldest ones, which one task reads. None reads all.
        client: Options of the client, with the app. None takes all from the environment: for the
            division from the driver's, for reading from the worker's.
        reading: Options of ``ray.data.read_datasource``, for example ``override_num_blocks`` for
            the number of tasks, or ``concurrency``.

    Raises:
        ConfigurationError: The extra ``ray`` is not installed, or an option is missing.
        InvalidArgumentError: ``limit`` is below 1.
        ApiError: The service cannot be asked for the number of inputs.
    """
    return _reading("inputs", "read_inputs()", client, reading, limit=limit)


def read_annotations(
    *,
    limit: int | None = None,
    client: ClientOptions | None = None,
    filters: Mapping[str, Any] | None = None,
    **reading: Any,
) -> Dataset:
    """The annotations of an app, read by several tasks, each those of some of its inputs.

    Columns: ``id``, ``input_id``, ``user_id``, ``task_id``, ``concepts`` (as of ``read_inputs``),
    ``regions`` (their number), ``metadata`` (JSON), ``status_code``, ``created_at`` and
    ``message`` (the serialized ``v2.Annotation``).

    Filters and columns reach the tasks as with ``read_inputs``; equality of ``id`` or ``input_id``
    asks the service for these alone.

    Args:
        limit: Most annotations, which one task reads. None reads all.
        client: As of ``read_inputs``.
        filters: Options of ``client.annotations.list``, for example ``{"statuses": [...]}`` or
            ``{"list_all_annotations": True}``.
        reading: As of ``read_inputs``.

    Raises:
        ConfigurationError, InvalidArgumentError, ApiError: As of ``read_inputs``.
    """
    return _reading(
        "annotations", "read_annotations()", client, reading, filters=filters, limit=limit
    )


def read_hits(
    *conditions: query.Condition,
    annotations: bool = False,
    limit: int | None = None,
    client: ClientOptions | None = None,
    search: Mapping[str, Any] | None = None,
    **reading: Any,
) -> Dataset:
    """The hits of a search, read by several tasks, each some of its pages.

    Columns: ``score``, ``annotation_id``, the columns of ``read_inputs`` of the hit's input, and
    ``message`` (the serialized ``v2.Hit``). The order of the hits is that of their scores only with
    ``ray.data.ExecutionOptions(preserve_order=True)``.

    A search is divided by the numbers of pages, so that what is added or deleted meanwhile may move
    a hit to another page. The service does the filtering by ``conditions``; ``filter(expr=...)`` is
    applied before rows leave the task.

    Args:
        conditions: Filters and ranks of ``clarigrpc.query``.
        annotations: Whether annotations are searched for, instead of inputs.
        limit: Most hits, those with the highest scores, which one task reads. None reads all.
        client: As of ``read_inputs``.
        search: Options of ``client.search.inputs``: ``language``, ``min_value``, ``metric``.
        reading: As of ``read_inputs``.

    Raises:
        ConfigurationError, InvalidArgumentError, ApiError: As of ``read_inputs``.
    """
    asked = {"conditions": conditions, "search": search, "search_annotations": annotations}
    return _reading("hits", "read_hits()", client, reading, limit=limit, **asked)


def _reading(
    rows: Any, user: str, client: ClientOptions | None, reading: Mapping[str, Any], **asked: Any
) -> Dataset:
    if asked["limit"] is not None and asked["limit"] < 1:
        raise InvalidArgumentError(f"limit={asked['limit']!r}: at least 1, or None")
    with NeedsExtra("ray", user):
        from ray.data import read_datasource

        from clarigrpc._ray_data.app_datasource import AppDatasource, AppQuery
    source = AppDatasource(AppQuery(rows=rows, options=client, **asked))
    dataset: Dataset = read_datasource(source, **reading)
    return dataset


def write_inputs(
    dataset: Dataset,
    *,
    column: str,
    kind: InputKind | None = None,
    id_column: str = "",
    concepts_column: str = "",
    metadata_columns: Sequence[str] = (),
    client: ClientOptions | None = None,
    concurrency: int | None = None,
    batch_size: int = 128,
    in_flight: int = 4,
    timeout: float = 300.0,
) -> InputsReport:
    """Add the rows of a dataset as inputs to an app, each once.

    Ids are made from the content, with concepts and metadata. So a task that Ray repeats because
    its worker died, or another run of the whole, finds what is there and adds the rest. With ids of
    your own, an input that has the id counts as found where its content, as far as the service
    returns it, is the same, and as failed otherwise.

    Args:
        dataset: What to add.
        column: Column of the content.
        kind: What it holds. None takes bytes and arrays for images; strings need a kind.
        id_column: Column of ids of your own, strings or whole numbers. Empty makes them from the
            content.
        concepts_column: Column with a list of ids of concepts.
        metadata_columns: Columns whose values are kept as the metadata of the input.
        client: Options of the client, with the app. None takes all from the worker's environment.
        concurrency: Tasks that write at the same time. None lets Ray decide.
        batch_size, in_flight, timeout: As of ``client.inputs.upload``, for each task.

    Returns:
        The counts, and the rows that failed.

    Raises:
        ConfigurationError: The extra ``ray`` is not installed.
        InvalidArgumentError: ``kind`` is none of them.
        ray.exceptions.RayTaskError: A task failed as a whole: its cause is the ApiError of a
            service that rejects the credentials or could not be reached for ``timeout`` seconds,
            or a column is missing. What was added stays.
    """
    with NeedsExtra("ray", "write_inputs()"):
        from clarigrpc._ray_data.input_datasink import InputDatasink, InputRows
    _check_kind(kind)
    if isinstance(metadata_columns, str):
        raise InvalidArgumentError(f"metadata_columns={metadata_columns!r}: a list of columns")
    sink = InputDatasink(
        InputRows(
            column=column,
            kind=kind,
            id_column=id_column,
            concepts_column=concepts_column,
            metadata_columns=metadata_columns,
        ),
        client,
        {"batch_size": batch_size, "in_flight": in_flight, "timeout": timeout},
    )
    dataset.write_datasink(sink, concurrency=concurrency)
    return sink.report


def _check_kind(kind: str | None) -> None:
    kinds = get_args(InputKind)
    if kind is not None and kind not in kinds:
        raise InvalidArgumentError(f"kind={kind!r}: kinds are {', '.join(kinds)}")
