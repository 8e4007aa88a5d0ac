"""``clarigrpc predict``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clarigrpc import v2
from clarigrpc.cli.output import terminal
from clarigrpc.cli.render import outputs_table
from clarigrpc.local import LocalServer
from tests.cli.conftest import Result, Run, one_line

COLORS = ("--model", "clarifai/main/color-recognition")


@pytest.fixture
def no_image(tmp_path: Path) -> Path:
    path = tmp_path / "notes.png"
    path.write_text("no image")
    return path


def test_table(cli: Run, photo: Path) -> None:
    result = cli("predict", str(photo), *COLORS, "--table")
    assert (result.code, result.err) == (0, "")
    row = next(line for line in result.out.splitlines() if "red.png" in line)
    assert "75.0%" in row
    assert "#ff0000" in row
    assert "75.0%  #ff0000  Red" in row
    assert "25.0%  #0000ff  Blue" in result.out


def test_colours_on_a_terminal(cli: Run, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[" not in cli("predict", str(photo), *COLORS, "--table").out
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLORTERM", "truecolor")
    assert "\x1b[48;2;255;0;0m    " in cli("predict", str(photo), *COLORS, "--table").out


def test_json(cli: Run, photo: Path) -> None:
    result = cli("predict", str(photo), str(photo), *COLORS, "--json")
    assert result.code == 0
    lines = [json.loads(line) for line in result.out.splitlines()]
    assert [line["source"] for line in lines] == [str(photo)] * 2
    for line in lines:
        assert line["output"]["status"]["code"] == "SUCCESS"
        assert line["output"]["data"]["colors"][0]["raw_hex"] == "#ff0000"


def test_a_file_that_is_missing_fails_alone(cli: Run, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    missing = [str(tmp_path / "missing.jpg"), str(tmp_path / "empty.png")]
    result = cli("predict", str(photo), *missing, *COLORS, "--table")
    assert result.code == 1
    assert "75.0%  #ff0000  Red" in result.out
    assert "2 of 3 predictions failed" in one_line(result.err)
    assert "missing.jpg" in result.err
    result = cli("predict", missing[0], *COLORS, "--table")
    assert (result.code, result.out) == (1, "")
    assert "no such file" in one_line(result.err)


def test_rest(cli: Run, server: LocalServer, photo: Path) -> None:
    rest = ("--transport", "rest", "--base", str(server.rest_base))
    result = cli("predict", str(photo), *COLORS, *rest, "--table")
    assert result.code == 0
    assert "75.0%  #ff0000  Red" in result.out


def test_owner_as_options(cli: Run, photo: Path) -> None:
    owner = ("--user-id", "clarifai", "--app-id", "main")
    result = cli("predict", str(photo), "--model", "color-recognition", *owner, "--table")
    assert result.code == 0
    assert "75.0%  #ff0000  Red" in result.out


@pytest.mark.parametrize("output", ["--table", "--json"])
def test_good_results_beside_a_failure(cli: Run, photo: Path, no_image: Path, output: str) -> None:
    result = cli("predict", str(no_image), str(photo), *COLORS, output)
    assert result.code == 1
    assert "Red" in result.out
    assert "1 of 2 predictions failed" in one_line(result.err)
    assert "INPUT_UNSUPPORTED_FORMAT" in result.err
    if output == "--json":
        first, second = map(json.loads, result.out.splitlines())
        assert first["source"] == str(no_image)
        assert first["error"]["code"] == "INPUT_UNSUPPORTED_FORMAT"
        assert second["output"]["status"]["code"] == "SUCCESS"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("missing.png", "there is no such file"),
        ("ftp://127.0.0.1/cat.png", "http:// and https:// URLs only"),
    ],
)
def test_wrong_source(cli: Run, source: str, text: str) -> None:
    result = cli("predict", source, *COLORS, "--table")
    assert (result.code, result.out) == (1, "")
    assert text in one_line(result.err)


def test_unknown_model(cli: Run, photo: Path) -> None:
    result = cli("predict", str(photo), "--model", "nosuch")
    assert result.code == 1
    assert "MODEL_DOES_NOT_EXIST" in one_line(result.err)


@pytest.mark.parametrize("model", ["", "/", "a/b", "a//b", "a/b/c/d"])
def test_malformed_model(cli: Run, photo: Path, model: str) -> None:
    result = cli("predict", str(photo), "--model", model)
    assert result.code == 2
    assert "USER/APP/ID" in result.err


@pytest.mark.parametrize("arguments", [(), ("cat.png",), COLORS])
def test_missing_arguments(cli: Run, arguments: tuple[str, ...]) -> None:
    result = cli("predict", *arguments)
    assert result.code == 2
    assert "Missing" in result.err


def test_other_outputs_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    success = v2.Status(code=v2.StatusCode.SUCCESS)
    long = v2.Output(status=success, data=v2.Data(text=v2.Text(raw="word " * 200)))
    embedding = v2.Output(status=success)
    embedding.data.embeddings.add(num_dimensions=512)
    regions = v2.Output(status=success)
    regions.data.regions.add()
    regions.data.parts.add()
    regions.data.parts.add()
    # Neither may a server's answer change the terminal or break the table.
    strange = v2.Output(status=success)
    strange.data.colors.add(raw_hex="[blink]", value=1.0)
    strange.data.concepts.add(name="\x1b[31m[bold]x", value=1.0)
    outputs = [long, embedding, regions, v2.Output(status=success), strange]
    terminal().print(outputs_table((str(n), output) for n, output in enumerate(outputs)))
    out = capsys.readouterr().out
    for text in (
        "word …",
        "embedding with 512 dimensions",
        "1 region",
        "2 parts",
        "(empty)",
        "[blink]",
    ):
        assert text in out
    assert "[bold]x" in out
    assert "\x1b" not in out


def test_colours_are_not_said_twice(capsys: pytest.CaptureFixture[str]) -> None:
    output = v2.Output(status=v2.Status(code=v2.StatusCode.SUCCESS))
    output.data.colors.add(raw_hex="#ff0000", value=0.5).w3c.name = "Red"
    output.data.concepts.add(name="Red", value=0.5)
    terminal().print(outputs_table([("one", output)]))
    assert "Prediction" not in capsys.readouterr().out
    output.data.concepts.add(name="warm", value=0.25)
    terminal().print(outputs_table([("one", output)]))
    out = capsys.readouterr().out
    assert out.count("Red") == 1
    assert "0.250  warm" in out


def _sources(result: Result) -> list[str]:
    assert (result.code, result.err) == (0, "")
    return [json.loads(line)["source"] for line in result.out.splitlines()]


def test_folders_tables_texts_and_standard_input(cli: Run, process: Run, tmp_path: Path) -> None:
    (tmp_path / "texts" / "below").mkdir(parents=True)
    for name in ("b.txt", "below/a.txt", "notes.unknown"):
        (tmp_path / "texts" / name).write_text("a good day")
    (tmp_path / "table.csv").write_text("text,id\nsplendid,one\nawful,two\n")
    model = ("--model", "clarifai/main/text-sentiment")
    words = (str(tmp_path / "texts"), str(tmp_path / "table.csv"), "--text", "fine")
    assert [Path(one).name for one in _sources(cli("predict", *words, *model))] == [
        *("b.txt", "a.txt", "table.csv, line 2", "table.csv, line 3", "text 1")
    ]
    assert _sources(process("predict", "-", *model, stdin="good")) == ["standard input"]
    top = cli("predict", "--text", "fine", *model, "--max-concepts", "1")
    assert len(json.loads(top.out)["output"]["data"]["concepts"]) == 1
    nothing = cli("predict", str(tmp_path / "texts" / "below" / "none"), *model)
    assert nothing.code == 1
    (tmp_path / "empty").mkdir()
    empty = cli("predict", str(tmp_path / "empty"), *model)
    assert (empty.code, empty.out) == (1, "")
    assert "no images, texts, videos or audio" in one_line(empty.err)


def test_a_kind_that_the_name_does_not_tell(cli: Run, tmp_path: Path, photo: Path) -> None:
    path = tmp_path / "picture"
    path.write_bytes(photo.read_bytes())
    assert len(_sources(cli("predict", str(path), *COLORS))) == 1
    assert len(_sources(cli("predict", str(path), *COLORS, "--kind", "image"))) == 1
    wrong = cli("predict", str(path), *COLORS, "--kind", "text")
    assert wrong.code == 1
    assert "Traceback" not in wrong.err
    url = cli("predict", "http://127.0.0.1/a.txt", *COLORS)
    assert url.code == 2


def test_outputs_as_the_model_makes_them(cli: Run) -> None:
    arguments = ("predict", "--text", "one two", "--model", "clarifai/main/text-stream", "--stream")
    shown = cli(*arguments, "--table")
    assert (shown.code, shown.out) == (0, "one two\n")
    lines = [json.loads(line) for line in cli(*arguments, "--json").out.splitlines()]
    assert [line["output"]["data"]["text"]["raw"] for line in lines] == ["one", " two"]
    failed = cli("predict", "--text", "a", "--model", "nosuch", "--stream", "--table")
    assert failed.code == 1
    assert "MODEL_DOES_NOT_EXIST" in one_line(failed.err)


def test_a_name_that_is_no_text(process: Run) -> None:
    result = process("predict", "/tmp/\udcff.png", *COLORS)
    assert result.code == 1
    assert "no such file" in one_line(result.err)
    assert "\\\\xff.png" in result.out


@pytest.mark.parametrize("option", [("--text", "a"), ("--stream",), ("--kind", "text")])
def test_what_does_not_go_with_a_method(cli: Run, option: tuple[str, ...]) -> None:
    assert cli("predict", *COLORS, "--method", "m", *option).code == 2


def test_what_debug_prints(cli: Run, photo: Path, server: LocalServer) -> None:
    result = cli("predict", str(photo), *COLORS, "--debug")
    assert result.code == 0
    assert "PostModelOutputs: OK, SUCCESS after" in result.err
    assert server.pat not in result.err
    streamed = cli(
        *("predict", "--text", "a", "--model", "clarifai/main/text-stream", "--stream", "--debug")
    )
    assert "GenerateModelOutputs: OK after" in streamed.err
    assert cli("predict", str(photo), *COLORS).err == ""


def test_a_text_that_is_none_is_named(cli: Run, photo: Path) -> None:
    found = cli("predict", str(photo), "--kind", "text", "--model", "clarifai/main/text-sentiment")
    assert found.code == 1
    assert f"{photo} is not UTF-8 text" in found.err
