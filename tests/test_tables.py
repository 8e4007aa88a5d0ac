"""Outputs as arrays of regions and tokens, Arrow tables, pandas frames and Parquet files."""

from __future__ import annotations

import gc
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clarigrpc import Client, arrays, errors, text, v2
from clarigrpc.types import WorkflowBatch
from tests.both import Both
from tests.bulk.service import METHOD, SUCCESS, script
from tests.conftest import PAT
from tests.scripted import ScriptedServer, refuse

names = st.text(max_size=4)
values = st.floats(0, 1, width=32)
concepts = st.lists(st.builds(v2.Concept, id=names, name=names, value=values), max_size=4)
boxes = st.builds(
    v2.BoundingBox, top_row=values, left_col=values, bottom_row=values, right_col=values
)
regions = st.builds(
    v2.Region,
    id=names,
    region_info=st.none() | st.builds(v2.RegionInfo, bounding_box=boxes),
    data=st.builds(v2.Data, concepts=concepts, text=st.none() | st.builds(v2.Text, raw=names)),
)
vectors = st.lists(values, min_size=3, max_size=3)
data = st.builds(
    v2.Data,
    concepts=concepts,
    regions=st.lists(regions, max_size=3),
    embeddings=st.lists(st.builds(v2.Embedding, vector=vectors), max_size=1),
    text=st.none() | st.builds(v2.Text, raw=names),
)
outputs = st.builds(
    v2.Output,
    input=st.builds(v2.Input, id=names),
    data=data,
    prompt_tokens=st.integers(0, 2**32 - 1),
    completion_tokens=st.integers(0, 9),
)

reads_nulls = pytest.mark.skipif(
    int(pa.__version__.partition(".")[0]) < 26,
    reason="before 26, pyarrow does not read fixed-size lists that are null from a Parquet file",
)


def plain(concept: v2.Concept) -> dict[str, Any]:
    return {"id": concept.id, "name": concept.name, "value": concept.value}


def row(index: int, output: v2.Output) -> dict[str, Any]:
    """What a row of a table is, the slow way."""
    own = output.data
    return {
        "index": index,
        "input_id": output.input.id,
        "error": None,
        "concepts": [plain(one) for one in own.concepts],
        "regions": [
            {
                "id": one.id,
                "top": one.region_info.bounding_box.top_row,
                "left": one.region_info.bounding_box.left_col,
                "bottom": one.region_info.bounding_box.bottom_row,
                "right": one.region_info.bounding_box.right_col,
                "text": one.data.text.raw or None,
                "concepts": [plain(concept) for concept in one.data.concepts],
            }
            for one in own.regions
        ],
        "embedding": list(own.embeddings[0].vector) if own.embeddings else None,
        "text": own.text.raw or None,
        "prompt_tokens": output.prompt_tokens,
        "completion_tokens": output.completion_tokens,
        "cached_tokens": 0,
    }


@settings(max_examples=60, deadline=None)
@given(st.lists(outputs, max_size=5))
def test_a_table_has_what_the_outputs_have(found: list[v2.Output]) -> None:
    expected = [row(index, output) for index, output in enumerate(found)]
    table = arrays.to_arrow(v2.MultiOutputResponse(outputs=found))
    if not any(output.data.embeddings for output in found):
        assert "embedding" not in table.column_names
        for one in expected:
            del one["embedding"]
    else:
        assert table.schema.field("embedding").type == pa.list_(pa.float32(), 3)
    assert table.to_pylist() == expected
    assert arrays.to_arrow(iter(found)).equals(table)
    chosen = arrays.to_arrow(found, columns=["text", "embedding"])
    assert chosen.column_names == ["index", "input_id", "error", "embedding", "text"]
    assert table.num_rows == len(arrays.to_pandas(found))


@settings(max_examples=60, deadline=None)
@given(st.lists(outputs, max_size=5))
def test_regions_and_tokens_as_numpy(found: list[v2.Output]) -> None:
    made = arrays.output_regions(v2.MultiOutputResponse(outputs=found))
    listed = [region for output in found for region in output.data.regions]
    assert made.boxes.shape == (len(listed), 4)
    assert made.boxes.dtype == np.float32
    assert made.ids.tolist() == [region.id for region in listed]
    assert made.offsets.tolist() == [
        sum(len(output.data.regions) for output in found[:place]) for place in range(len(found) + 1)
    ]
    for place, region in enumerate(listed):
        box = region.region_info.bounding_box
        sides = [box.top_row, box.left_col, box.bottom_row, box.right_col]
        assert made.boxes[place].tolist() == sides
        own = slice(made.concepts.offsets[place], made.concepts.offsets[place + 1])
        assert list(made.concepts.ids[own]) == [one.id for one in region.data.concepts]
        assert made.concepts.values[own].tolist() == [one.value for one in region.data.concepts]
    tokens = arrays.output_tokens(found)
    assert tokens.prompt.tolist() == [output.prompt_tokens for output in found]
    assert tokens.completion.tolist() == [output.completion_tokens for output in found]
    assert tokens.cached.dtype == np.int64


@settings(max_examples=40, deadline=None)
@given(st.lists(outputs, max_size=5))
def test_a_row_for_each_concept_or_region(found: list[v2.Output]) -> None:
    frame = arrays.to_pandas(found, rows="concepts")
    assert frame[["index", "id", "name", "value"]].to_dict("records") == [
        {"index": index, **plain(concept)}
        for index, output in enumerate(found)
        for concept in output.data.concepts
    ]
    frame = arrays.to_pandas(found, rows="regions")
    assert list(zip(frame["index"], frame["input_id"], frame["id"], strict=True)) == [
        (index, output.input.id, region.id)
        for index, output in enumerate(found)
        for region in output.data.regions
    ]


def test_wrong_arguments() -> None:
    output = v2.Output()
    for columns in (["nonsense"], "text"):
        with pytest.raises(errors.InvalidArgumentError, match="columns is a list of concepts"):
            arrays.to_arrow([output], columns=columns)  # type: ignore[arg-type]
    with pytest.raises(errors.InvalidArgumentError, match="rows are outputs, concepts"):
        arrays.to_pandas([output], rows="words")  # type: ignore[arg-type]
    workflows = WorkflowBatch([0], [v2.WorkflowResult()], {})
    for wrong in (v2.WorkflowResult(), 5, workflows, [v2.Output()], "text"):
        with pytest.raises(TypeError, match=f"not {type(wrong).__name__}"):
            arrays.to_arrow([wrong])  # type: ignore[list-item]
    two = v2.Output(data=v2.Data(embeddings=[v2.Embedding(vector=[1]), v2.Embedding(vector=[2])]))
    one = v2.Output(data=v2.Data(embeddings=[v2.Embedding(vector=[1])]))
    three = v2.Output(data=v2.Data(embeddings=[v2.Embedding(vector=[1, 2, 3])]))
    with pytest.raises(errors.InvalidArgumentError, match="output 0 has 2 embeddings"):
        arrays.to_arrow([two])
    with pytest.raises(errors.InvalidArgumentError, match="dimensions: 1, 3"):
        arrays.to_arrow([one, three])


def embed(request: Any) -> Any:
    """An embedding and a text for each input; "bad" is refused, and "none" has no embedding."""
    if any(one.data.text.raw == "bad" for one in request.inputs):
        return refuse(METHOD, v2.StatusCode.INPUT_INVALID_ARGUMENT, "bad input")
    response = v2.MultiOutputResponse()
    response.status.code = SUCCESS
    for one in request.inputs:
        output = response.outputs.add()
        output.status.code = SUCCESS
        output.input.id = one.id
        output.data.text.raw = one.data.text.raw
        if one.data.text.raw != "none":
            number = int(one.data.text.raw)
            output.data.embeddings.add(vector=[number, number / 2])
    return response


async def test_results_and_batches_of_a_run(both: Both, scripted: ScriptedServer) -> None:
    scripted.always(METHOD, script(embed))
    given_texts = [text(raw, id=f"i{raw}") for raw in ("1", "bad", "3", "none")]
    model = both.client.model("m")
    results = await both.collect(model.predict_many(given_texts, batch_size=2))
    batches = await both.collect(model.predict_batches(given_texts, batch_size=2))
    table = arrays.to_arrow(results)
    # The texts of errors name the request.
    assert arrays.to_arrow(batches).drop(["error"]).equals(table.drop(["error"]))
    assert table["index"].to_pylist() == [0, 1, 2, 3]
    assert table["input_id"].to_pylist() == ["i1", None, "i3", "inone"]
    assert table["text"].to_pylist() == ["1", None, "3", "none"]
    assert table["embedding"].to_pylist() == [[1, 0.5], None, [3, 1.5], None]
    assert table["concepts"].to_pylist() == [[], None, [], []]
    (error,) = filter(None, table["error"].to_pylist())
    assert error.startswith("InvalidArgumentError: ")
    assert "bad input" in error
    frame = arrays.to_pandas(results)
    assert frame["embedding"][2].tolist() == [3, 1.5]


@pytest.fixture
def client(scripted: ScriptedServer) -> Iterator[Client]:
    with Client(base=scripted.base, pat=PAT, user_id="u", app_id="a", timeout=30) as made:
        yield made


def texts(*numbers: int) -> Iterator[v2.Input]:
    for number in numbers:
        yield text(str(number))


def wide(request: Any) -> Any:
    """Outputs with an embedding of 8 KB each."""
    good = v2.Status(code=SUCCESS)
    made = v2.MultiOutputResponse(status=good)
    for one in request.inputs:
        output = made.outputs.add(status=good, input=v2.Input(id=one.id))
        output.data.embeddings.add(vector=[float(one.data.text.raw)] * 2048)
    return made


@pytest.mark.measures
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the memory from /proc")
def test_memory_stays_where_it_is_over_any_number_of_rows(
    client: Client, scripted: ScriptedServer, tmp_path: Path
) -> None:
    scripted.always(METHOD, script(wide))
    marks: list[int] = []

    def source() -> Iterator[v2.Input]:
        for number in range(20_001):
            if number and number % 5000 == 0:
                scripted.seen.clear()
                gc.collect()
                pages = int(Path("/proc/self/statm").read_text().split()[1])
                marks.append(pages * resource.getpagesize() // 1_000_000)
            yield text(str(number))

    report = arrays.to_parquet(client.model("m"), source(), tmp_path, rows_per_file=3000)
    assert (report.rows, report.failed) == (20_001, 0)
    # 10,000 more rows have 80 MB of embeddings. Protobuf and Arrow keep some of what is freed.
    assert marks[3] - marks[1] < 60, marks


def test_a_run_goes_on_where_it_ended(
    client: Client, scripted: ScriptedServer, tmp_path: Path
) -> None:
    scripted.always(METHOD, script(embed))
    folder, model = tmp_path / "outputs", client.model("m")

    def broken() -> Iterator[v2.Input]:
        yield from texts(*range(25))
        raise ValueError("the source ends here")

    with pytest.raises(ValueError, match="the source ends here"):
        arrays.to_parquet(model, broken(), folder, rows_per_file=10)
    assert sorted(one.name for one in folder.glob("*.parquet")) == [
        f"part-{first:012d}.parquet" for first in (0, 10, 20)
    ]
    sent = sum(len(seen.requests[0].inputs) for seen in scripted.calls(METHOD))
    assert sent == 25
    (folder / ".part.tmp").write_bytes(b"of a process that was killed")
    report = arrays.to_parquet(model, texts(*range(40)), folder, rows_per_file=10)
    assert report == arrays.ParquetReport(rows=15, failed=0, rows_before=25)
    assert sum(len(seen.requests[0].inputs) for seen in scripted.calls(METHOD)) == 40
    frame = pd.read_parquet(folder)
    assert frame["index"].tolist() == list(range(40))
    assert frame["text"].tolist() == [str(number) for number in range(40)]
    assert frame["embedding"][39].tolist() == [39, 19.5]
    assert pq.ParquetFile(folder / f"part-{25:012d}.parquet").metadata.num_rows == 10
    again = arrays.to_parquet(model, texts(*range(40)), folder)
    assert again == arrays.ParquetReport(rows=0, failed=0, rows_before=40)
    assert sorted(os.listdir(folder))[0] == ".lock"
    assert len(os.listdir(folder)) == 6


@reads_nulls
def test_failed_rows_are_rows(client: Client, scripted: ScriptedServer, tmp_path: Path) -> None:
    scripted.always(METHOD, script(embed))
    given_values: list[Any] = [text("1"), tmp_path / "missing.jpg", text("bad"), text("none")]
    report = arrays.to_parquet(
        client.model("m"), given_values, tmp_path / "o", columns=["text", "embedding"]
    )
    assert (report.rows, report.failed) == (4, 2)
    table = pq.read_table(tmp_path / "o")
    assert table.column_names == ["index", "input_id", "error", "embedding", "text"]
    assert [bool(one) for one in table["error"].to_pylist()] == [False, True, True, False]


def test_folders_of_something_else(
    client: Client, scripted: ScriptedServer, tmp_path: Path
) -> None:
    scripted.always(METHOD, script(embed))
    folder, model = tmp_path / "o", client.model("m")
    arrays.to_parquet(model, texts(*range(6)), folder, rows_per_file=2)
    with pytest.raises(errors.ConfigurationError, match="give another folder"):
        arrays.to_parquet(client.model("n"), texts(1), folder)
    with pytest.raises(errors.ConfigurationError, match="give another folder"):
        arrays.to_parquet(model, texts(1), folder, columns=["text"])
    with pytest.raises(errors.InvalidArgumentError, match="rows_per_file"):
        arrays.to_parquet(model, texts(1), folder, rows_per_file=0)
    (folder / f"part-{2:012d}.parquet").unlink()
    with pytest.raises(errors.ConfigurationError, match="lacks the file that begins with row 2"):
        arrays.to_parquet(model, texts(1), folder)


@pytest.mark.parametrize(
    "other",
    [
        {"user_id": "other"},
        {"app_id": "other"},
        {"version_id": "other"},
        {"output_config": v2.OutputConfig(max_concepts=3)},
    ],
    ids=lambda other: next(iter(other)),
)
def test_a_folder_has_the_outputs_of_one_model(
    client: Client, scripted: ScriptedServer, tmp_path: Path, other: Any
) -> None:
    scripted.always(METHOD, script(embed))
    arrays.to_parquet(client.model("m"), texts(1), tmp_path)
    # Of the client or of the model: it is the same one.
    same = client.model("m", user_id="u", app_id="a")
    assert arrays.to_parquet(same, texts(1, 2), tmp_path).rows_before == 1
    with pytest.raises(errors.ConfigurationError, match=r"other|max_concepts"):
        arrays.to_parquet(client.model("m", **other), texts(1, 2, 3), tmp_path)


@reads_nulls
def test_a_column_of_embeddings_waits_for_one(
    client: Client, scripted: ScriptedServer, tmp_path: Path
) -> None:
    scripted.always(METHOD, script(embed))
    model, missing = client.model("m"), tmp_path / "missing.jpg"
    wanted: Any = {"columns": ["embedding"]}
    with pytest.raises(errors.InvalidArgumentError, match=r"(?s)none of .* 2 .*missing\.jpg"):
        arrays.to_parquet(model, [missing, missing], tmp_path / "o", **wanted)
    with pytest.raises(
        errors.InvalidArgumentError, match=r"none of .* 1 outputs has an embedding;"
    ):
        arrays.to_parquet(model, [text("none")], tmp_path / "o", **wanted)

    def broken() -> Iterator[Any]:
        yield missing
        raise ValueError("the source ends here")

    with pytest.raises(ValueError, match="the source ends here") as raised:
        arrays.to_parquet(model, broken(), tmp_path / "o", **wanted)
    assert any("not written" in note for note in raised.value.__notes__)
    report = arrays.to_parquet(model, [missing, text("1")], tmp_path / "o", **wanted)
    assert (report.rows, report.failed, report.rows_before) == (2, 1, 0)
    assert pq.read_table(tmp_path / "o")["embedding"].to_pylist() == [None, [1, 0.5]]


def test_an_interrupt_completes_the_file(
    client: Client, scripted: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted.always(METHOD, script(embed))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    written = pq.ParquetWriter.write_table

    def interrupted(self: Any, table: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        written(self, table)

    monkeypatch.setattr(pq.ParquetWriter, "write_table", interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            arrays.to_parquet(client.model("m"), texts(*range(5)), tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(pd.read_parquet(tmp_path)) == 5


def test_a_folder_has_one_run_at_a_time(
    client: Client, scripted: ScriptedServer, tmp_path: Path
) -> None:
    scripted.always(METHOD, script(embed))
    model = client.model("m")

    def nested() -> Iterator[v2.Input]:
        with pytest.raises(errors.ConfigurationError, match="in use by another run"):
            arrays.to_parquet(model, texts(1), tmp_path)
        yield from texts(1, 2)

    assert arrays.to_parquet(model, nested(), tmp_path).rows == 2


def test_an_embedding_that_comes_late_is_not_dropped(
    client: Client, scripted: ScriptedServer, tmp_path: Path
) -> None:
    scripted.always(METHOD, script(embed))
    model = client.model("m")
    assert arrays.to_parquet(model, [text("none")] * 3, tmp_path).rows == 3
    late = [text("none")] * 3 + [text("5")]
    with pytest.raises(errors.InvalidArgumentError, match="name the columns"):
        arrays.to_parquet(model, late, tmp_path)
    assert len(pd.read_parquet(tmp_path)) == 3


@pytest.mark.parametrize(
    "function",
    [
        arrays.output_embeddings,
        arrays.output_concepts,
        arrays.output_regions,
        arrays.output_tokens,
        arrays.to_pandas,
    ],
)
@pytest.mark.parametrize("value", [v2.Output(), None, 3, "outputs"])
def test_one_output_is_no_list(function: Any, value: Any) -> None:
    with pytest.raises(TypeError, match="put a single output in a list"):
        function(value)
