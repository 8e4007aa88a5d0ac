"""Training and evaluation on the command line, versions of datasets, workflows from files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clarigrpc import v2
from clarigrpc.local import LocalServer
from tests.cli.conftest import Result, Run, one_line
from tests.local.conftest import png

Code = v2.StatusCode


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    """Two labelled pictures, in a dataset."""
    with LocalServer() as running:
        with running.client() as client:
            client.datasets.create("pictures")
            for color in ("red", "blue"):
                one = v2.Input(id=color, data=v2.Data(image=v2.Image(base64=png(color))))
                one.data.concepts.add(id=color, value=1)
                one.dataset_ids.append("pictures")
                client.inputs.create(one)
            client.inputs.wait(["red", "blue"])
        yield running


def _fields(result: Result) -> dict[str, Any]:
    assert (result.code, result.err) == (0, "")
    found: dict[str, Any] = json.loads(result.out)
    return found


def test_from_a_dataset_to_an_evaluation(cli: Run) -> None:
    version = _fields(cli("datasets", "version", "pictures", "v1", "--description", "all"))
    assert (version["id"], version["description"]) == ("v1", "all")
    assert version["status"]["code"] == "DATASET_VERSION_READY"
    made = _fields(cli("models", "create", "colors", "--type", "visual-classifier"))
    assert made["model_type_id"] == "visual-classifier"
    train = ("models", "train", "colors", "--dataset", "pictures/v1")
    trained = _fields(cli(*train, "--concept", "red", "--concept", "blue"))
    assert trained["status"]["code"] == "MODEL_TRAINED"
    assert trained["train_info"]["dataset"]["version"]["id"] == "v1"
    evaluation = _fields(cli("models", "evaluate", "colors", "--dataset", "pictures/v1"))
    assert evaluation["status"]["code"] == "MODEL_EVALUATED"
    assert evaluation["model"]["model_version"]["id"] == trained["id"]
    assert evaluation["summary"]["macro_avg_recall"] == 1
    named = ("--version-id", trained["id"], "--id", "mine", "--no-wait")
    started = _fields(cli("models", "evaluate", "colors", "--dataset", "pictures", *named))
    assert started["id"] == "mine"


def test_a_training_that_fails(cli: Run) -> None:
    assert cli("models", "create", '{"id": "bad"}', "--type", "visual-classifier").code == 0
    assert cli("datasets", "create", "none", "--description", "nothing in it").code == 0
    failed = cli("models", "train", "bad", "--dataset", "none")
    assert (failed.code, failed.out) == (1, "")
    assert "label" in one_line(failed.err)
    refused = cli("models", "train", "bad", "--param", "no_such_parameter=[1]")
    assert "no_such_parameter" in one_line(refused.err)
    for wrong in (("--param", "x"), ("--dataset", "a/b/c"), ("--dataset", "a/")):
        assert cli("models", "train", "bad", *wrong).code == 2


def test_a_bar_on_a_terminal(
    cli: Run, server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("models", "create", "shown", "--type", "visual-classifier").code == 0
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "140")
    with server.faults.during(train_seconds=0.3):
        result = cli("models", "train", "shown", "--json")
    assert json.loads(result.out)["status"]["code"] == "MODEL_TRAINED"
    assert "training of version" in result.err
    assert "100%" in result.err
    assert "training of version" not in cli("models", "train", "shown", "--quiet").err


WORKFLOW = """
workflow:
  id: from-yaml
  nodes:
    - id: colors
      model:
        model_id: color-recognition
        user_id: clarifai
        app_id: main
        model_version_id: {version}
    - id: texts
      model: {{id: text-sentiment, user_id: clarifai, app_id: main}}
"""


def test_workflows_from_files(cli: Run, tmp_path: Path) -> None:
    public = _fields(cli("models", "get", "clarifai/main/color-recognition"))
    version = public["model_version"]["id"]
    file = tmp_path / "workflow.yaml"
    file.write_text(WORKFLOW.format(version=version))
    made = _fields(cli("workflows", "create", f"@{file}", "--description", "two models"))
    assert (made["id"], made["description"]) == ("from-yaml", "two models")
    assert [node["model"]["id"] for node in made["nodes"]] == [
        "color-recognition",
        "text-sentiment",
    ]
    assert made["nodes"][0]["model"]["model_version"]["id"] == version
    file.write_text(
        "workflow: {id: w, nodes: [{id: n, model: {model_id: m, model_type_id: image-crop}}]}"
    )
    refused = cli("workflows", "create", f"@{file}")
    assert refused.code == 2
    assert "model_type_id: make it first" in refused.err
    for content in ("{workflow: 1}", "{workflow: {id: w}, more: 1}"):
        file.write_text(content)
        assert cli("workflows", "create", f"@{file}").code == 2
    file.write_text("{id: w, nodes: [1]}")
    assert cli("workflows", "create", f"@{file}").code == 1


def test_a_training_that_takes_too_long(cli: Run, server: LocalServer) -> None:
    assert cli("models", "create", "slow", "--type", "visual-classifier").code == 0
    with server.faults.during(train_seconds=30):
        at_once = _fields(cli("models", "train", "slow", "--no-wait"))
        assert at_once["status"]["code"] == "MODEL_QUEUED_FOR_TRAINING"
        late = cli("models", "train", "slow", "--timeout", "2")
    assert late.code == 1
    assert "has not ended after 2 s" in one_line(late.err)
