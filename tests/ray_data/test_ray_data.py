"""``clarigrpc.ray`` on a cluster of Ray, against a local server in this process.

The server counts: its model notes every text that it is given.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clarigrpc import image, v2
from clarigrpc._file_lock import lock_file
from clarigrpc.local import LocalServer
from tests.contract import peer
from tests.local.conftest import png
from tests.ray_data.cluster import Cluster, Driver, DriverError
from tests.waiting import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds workers in /proc")

# With the newest protobuf, while the tests of the development environment have an older one.
REQUIREMENTS = (
    "ray[data]==2.60.0",
    "grpcio>=1.76",
    "grpcio-status>=1.76",
    "googleapis-common-protos>=1.70",
    "pillow>=10.3",
    "protobuf>=7",
)


class Counting:
    """A model that notes what it is given, and can be held up.

    Attributes:
        texts: How often each text was given.
        reached: Set when it was given ``pause`` texts.
    """

    def __init__(self) -> None:
        self.texts: Counter[str] = Counter()
        self.pause = 0
        self.reached = threading.Event()
        self.going_on = threading.Event()
        self._lock = threading.Lock()

    def begin(self, pause: int) -> None:
        """Forget everything, and stop at this number of texts; 0: never."""
        self.texts.clear()
        self.pause = pause
        self.reached.clear()
        self.going_on.clear()

    def is_settled(self) -> bool:
        """Whether nothing comes any more."""
        before = self.texts.total()
        time.sleep(1.0)
        return before == self.texts.total()

    def __call__(self, text: str) -> str:
        if text == "bad":
            raise ValueError("this text is bad")
        with self._lock:
            self.texts[text] += 1
            held = 0 < self.pause <= self.texts.total()
        if held:
            self.reached.set()
            self.going_on.wait(60)
        return text.upper()


@pytest.fixture(scope="module")
def counting() -> Counting:
    return Counting()


@pytest.fixture(scope="module")
def server(counting: Counting) -> Iterator[LocalServer]:
    def shout(text: str) -> str:
        return counting(text)

    with LocalServer(record_calls=10_000, models={"shout": shout}) as started:
        yield started


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    python = peer.environment("ray", REQUIREMENTS)
    with Cluster(python) as started:
        yield started


@pytest.fixture(scope="module")
def driver(cluster: Cluster) -> Iterator[Driver]:
    with cluster.driver() as started:
        yield started


@pytest.fixture
def app(server: LocalServer, request: pytest.FixtureRequest) -> dict[str, str]:
    """Options of a client with an app of its own."""
    app_id = request.node.name.replace("[", "-").strip("]")[:40]
    with server.client() as client:
        client.apps.create(v2.App(id=app_id))
    return options(server, app_id)


def options(server: LocalServer, app_id: str = "") -> dict[str, str]:
    """Options of a client."""
    where = {"user_id": server.user_id, "app_id": app_id or server.app_id}
    return {"base": server.base, "pat": server.pat, **where}


def count(server: LocalServer, app: dict[str, str]) -> int:
    """How many inputs the app has, says the server."""
    with server.client(app_id=app["app_id"]) as client:
        return sum(value for _, value in client.inputs.status().ListFields())


SHOUT: dict[str, Any] = {"model": "shout", "method": "predict", "arguments": {"text": "body"}}


def test_inputs_are_added_once_and_read_once(
    server: LocalServer, app: dict[str, str], driver: Driver
) -> None:
    assert driver.do("written", client=app, count=2500, blocks=4) == [2500, 2500, 0, 0]
    assert driver.do("written", client=app, count=2500, blocks=3) == [2500, 0, 2500, 0]
    assert count(server, app) == 2500
    before = len(server.calls())
    texts = driver.do("read", client=app, tasks=4)
    assert Counter(texts) == {f"text {number}": 1 for number in range(2500)}
    streamed = [call.request.last_id for call in server.calls()[before:] if "Stream" in call.method]
    assert len(streamed) >= 3  # by several tasks ...
    assert len(set(streamed)) == len(streamed)  # ... none of which read what another one did


def test_filters_columns_and_limits_reach_the_service(
    server: LocalServer, app: dict[str, str], driver: Driver
) -> None:
    driver.do("written", client=app, count=300, blocks=1)
    with server.client(app_id=app["app_id"]) as client:
        ids = sorted(one.id for one in client.inputs.list(page=1, per_page=3))
    before = len(server.calls())
    some, by_text, first = driver.do(
        "read_some", client=app, ids=[*ids, "nobody"], text="text 7", limit=5
    )
    assert (some, by_text, first) == (ids, [{"text": "text 7", "kind": "text"}], 5)
    asked = [call.request for call in server.calls()[before:]]
    listed = [one for one in asked if isinstance(one, v2.ListInputsRequest)]
    assert {*listed[0].ids} == {*ids, "nobody"}
    assert [one.per_page for one in asked if isinstance(one, v2.StreamInputsRequest)][-1] == 5


def test_cursors_that_are_deleted_lose_and_double_nothing(
    app: dict[str, str], driver: Driver
) -> None:
    for number in range(20):  # one after the other, so that their times differ
        row = {"body": f"text {number}"}
        driver.do("written_rows", client=app, rows=[row], column="body", kind="text")
    read = driver.do("read_while_cursors_go", client=app)
    assert read == [f"text {number}" for number in range(3, 20)]


def test_annotations_and_hits(server: LocalServer, app: dict[str, str], driver: Driver) -> None:
    rows = [{"body": f"text {n}", "about": ["even"] if n % 2 == 0 else []} for n in range(20)]
    made = driver.do(
        "written_rows", client=app, rows=rows, column="body", kind="text", concepts_column="about"
    )
    assert made == [20, 20, 0, 0, []]
    with server.client(app_id=app["app_id"]) as client:
        client.inputs.wait([one.id for one in client.inputs.list()])
    annotations, of_one, hits, same = driver.do("found", client=app, concept="even")
    assert annotations >= 10
    assert of_one
    assert all(of_one)
    assert hits == sorted(f"text {number}" for number in range(0, 20, 2))
    assert same == "{True}"


def test_rows_that_cannot_be_added_are_reported(app: dict[str, str], driver: Driver) -> None:
    rows = [
        {"id": "one", "body": "first", "place": "here"},
        {"id": "two", "body": None, "place": "there"},
        {"id": "one", "body": "other", "place": "here"},
        {"id": None, "body": "third", "place": "here"},
    ]
    *counts, failures = driver.do(
        "written_rows",
        client=app,
        rows=rows,
        column="body",
        kind="text",
        id_column="id",
        metadata_columns=["place"],
    )
    assert counts == [4, 1, 0, 3]
    assert any("the row has no id (null)" in error for _, _, error in failures)
    assert "FAILURE: row 1: the row has no value (null)" in [error for _, _, error in failures]
    assert any("INPUT_DUPLICATE" in error for _, _, error in failures)
    # Numbers are no names of concepts.
    rows = [{"body": "with numbers", "about": [1]}, {"body": "without", "about": None}]
    *counts, failures = driver.do(
        "written_rows", client=app, rows=rows, column="body", kind="text", concepts_column="about"
    )
    assert counts == [2, 1, 0, 1]
    assert "TypeError: concepts are ids" in failures[0][2]
    # Two rows with the same content are the same input.
    same = [{"body": "same"}, {"body": "same"}]
    made = driver.do("written_rows", client=app, rows=same, column="body", kind="text")
    assert made == [2, 1, 1, 0, []]


def test_plans_that_ray_logs_hold_no_credential(server: LocalServer, driver: Driver) -> None:
    predicting, reading = driver.do("logged", client=options(server))
    assert "'column': 'body'" in predicting
    assert "AppDatasource" in reading
    assert server.pat not in predicting + reading


def test_a_row_never_fails_its_block(server: LocalServer, driver: Driver) -> None:
    rows = [{"id": n, "body": text} for n, text in enumerate(["one", "bad", None, "four"])]
    found, types = driver.do("predicted", client=options(server), rows=rows, **SHOUT)
    assert [row["output"] for row in found] == ["ONE", None, None, "FOUR"]
    assert [bool(row["error"]) for row in found] == [False, True, True, False]
    assert "this text is bad" in found[1]["error"]
    assert all(0 <= row["latency"] < 60 for row in found)
    assert types == ["string", "string", "double"]


def test_outputs_are_structs_of_the_same_type_in_every_block(
    server: LocalServer, driver: Driver, tmp_path: Path
) -> None:
    picture = tmp_path / "picture.png"
    picture.write_bytes(png("red"))
    rows = [{"id": 1, "body": str(picture)}, {"id": 2, "body": str(tmp_path / "none.png")}]
    model = {"model": "color-recognition", "user_id": "clarifai", "app_id": "main"}
    asked = {"client": options(server), "rows": rows, "column": "body", **model}
    found = driver.do("direct", kind="image", prefix="color_", **asked)
    assert found[0]["color_output"]["embedding"] is None
    assert found[1]["color_output"] is None
    assert found[1]["color_error"].startswith("FileNotFoundError")
    with server.client() as client:
        direct = client.model("color-recognition", user_id="clarifai", app_id="main").predict(
            image(picture)
        )
    assert [one["name"] for one in found[0]["color_output"]["concepts"]] == [
        one.name for one in direct.data.concepts
    ]


def test_batches_of_every_format_give_the_same(server: LocalServer, driver: Driver) -> None:
    asked = {"client": options(server), "method": "predict", "arguments": {"text": "body"}}
    first, *others = driver.do("formats", **asked)
    assert [row["output"] for row in first] == ["A", "B"]
    assert others == [first, first]


def test_inputs_that_were_read_can_be_predicted(
    server: LocalServer, app: dict[str, str], driver: Driver
) -> None:
    driver.do("written", client=app, count=50, blocks=1)
    model = {"model": "text-sentiment", "user_id": "clarifai", "app_id": "main"}
    model["column"] = "message"
    assert driver.do("predicted_inputs", client=app, **model) == [50, []]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"column": "body", "kind": "picture"}, "kind='picture': kinds are image, video, audio"),
        ({"column": "body", "method": "predict"}, "needs column=, or method= with arguments="),
        ({"column": "body", "columns": ["concept"]}, "columns='concept': columns is a list of"),
        ({"column": "body", "rows_per_batch": 0}, "rows_per_batch=0: at least 1"),
        ({"column": "body", "actors": (3, 2)}, "actors=[3, 2]: a number from 1 on, or the least"),
        ({"column": "text"}, "the dataset has no column 'text'; its columns are id, body"),
        ({"column": "body", "prefix": ""}, "the dataset has a column 'error' already"),
    ],
)
def test_what_is_wrong_is_said(
    server: LocalServer, driver: Driver, asked: dict[str, Any], says: str
) -> None:
    row: dict[str, Any] = {"id": 1, "body": "text"}
    if "prefix" in asked:
        row["error"] = "taken"
    with pytest.raises(DriverError) as raised:
        # Ray's part is told before an actor is made, and the rest without one.
        do = "predicted" if asked.keys() & {"rows_per_batch", "actors"} else "direct"
        driver.do(do, client=options(server), rows=[row], model="shout", **asked)
    assert says in str(raised.value)
    assert "InvalidArgumentError" in str(raised.value)


def test_workers_that_die_while_they_add(
    server: LocalServer, app: dict[str, str], cluster: Cluster, driver: Driver
) -> None:
    with server.faults.delay("PostInputs", 0.05):
        driver.begin("written", client=app, count=4000, blocks=2, in_flight=1)
        until(lambda: count(server, app) > 500, 200)
        victims = cluster.workers("Write")
        assert victims
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
    rows, added, found, failed = driver.end()
    assert (rows, added + found, failed) == (4000, 4000, 0)
    assert found > 100  # what the dead had added
    assert count(server, app) == 4000


def test_actors_that_die_while_they_predict(
    server: LocalServer, counting: Counting, cluster: Cluster, driver: Driver, tmp_path: Path
) -> None:
    counting.begin(pause=300)
    folder = str(tmp_path / "out")
    driver.begin("to_parquet", client=options(server), folder=folder, count=1000)
    assert counting.reached.wait(200)
    victims = cluster.workers("MapWorker")
    assert victims
    os.kill(victims[0], signal.SIGKILL)
    counting.going_on.set()
    assert driver.end() == [1000, 0, 0]
    rows = driver.do("parquet", folder=folder)
    assert Counter(row["output"] for row in rows) == {f"TEXT {n}": 1 for n in range(1000)}
    assert len(counting.texts) == 1000


def test_late_files_of_dead_runs_go_also_where_the_next_run_dies(
    driver: Driver, tmp_path: Path
) -> None:
    part, folder = tmp_path / "a.parquet", tmp_path / "out"
    part.write_bytes(b"not read")
    late = "part-0123456789abcdef-000000.parquet"
    found, left = driver.do("begun_again", folder=str(folder), part=str(part), late=late)
    assert found == [0, 1, 2]
    assert late not in left
    assert {name for name in left if name.startswith(".")} == {".lock", ".run.json"}
    assert len(left) == 5


def test_a_driver_that_dies_goes_on(
    server: LocalServer, counting: Counting, cluster: Cluster, driver: Driver, tmp_path: Path
) -> None:
    counting.begin(pause=600)
    folder = tmp_path / "out"
    asked = {"client": options(server), "folder": str(folder), "count": 1000}
    with cluster.driver() as dying:
        dying.begin("to_parquet", **asked)
        assert counting.reached.wait(200)
        until(lambda: [*folder.glob("part-*.parquet")])
        dying.kill()
    counting.going_on.set()
    until(lambda: not cluster.workers("MapWorker"))
    until(counting.is_settled)  # what the dead had asked for
    written = {row["output"] for row in driver.do("parquet", folder=str(folder))}
    assert 100 <= len(written) < 1000
    # A worker that does not know yet may come with a file: it is not counted, and goes.
    part = next(folder.glob("part-*.parquet"))
    counting.begin(pause=1)
    driver.begin("to_parquet", **asked)
    assert counting.reached.wait(200)
    shutil.copy(part, folder / "part-0123456789abcdef-000000.parquet")
    counting.going_on.set()
    rows, failed, before = driver.end()
    assert (rows + before, failed, before) == (1000, 0, len(written))
    assert written.isdisjoint(text.upper() for text in counting.texts)
    assert {*counting.texts.values()} == {1}
    rows = driver.do("parquet", folder=str(folder))
    assert Counter(row["output"] for row in rows) == {f"TEXT {n}": 1 for n in range(1000)}
    with pytest.raises(DriverError, match=r"was made by .* give another folder"):
        driver.do("to_parquet", **asked, prefix="other_")
    with (folder / ".lock").open("rb+") as lock:
        assert lock_file(lock.fileno())
        with pytest.raises(DriverError, match="in use by another run"):
            driver.do("to_parquet", **asked)
