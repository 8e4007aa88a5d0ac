"""The tables of the page about models that follow from the models themselves, in Markdown.

``python -m clarigrpc.local.service.model_tables docs/local-models.md`` writes them into the page.
"""

from __future__ import annotations

import sys
from pathlib import Path

from clarigrpc.local.engine.builtin_models import PUBLIC_WORKFLOWS, BuiltinModel, builtin_models
from clarigrpc.local.models.image_crop import ImageCrop
from clarigrpc.local.models.image_tagger import IMAGE_TAGS, ImageTagger
from clarigrpc.local.models.text_tagger import TEXT_TAGS, TextTagger

_BEGIN = (
    "% Begin: written by `python -m clarigrpc.local.service.model_tables docs/local-models.md`."
)
_END = "% End."


def _stand_ins() -> list[BuiltinModel]:
    return [
        made
        for made in builtin_models().values()
        if (made.other_ids or made.version_ids or isinstance(made.runtime, ImageTagger))
        and not isinstance(made.runtime, ImageCrop)  # does what the hosted one does
    ]


def _models() -> str:
    rows = ["| Id | Type | Stands in for | Tags |", "| --- | --- | --- | --- |"]
    for made in _stand_ins():
        model, runtime = made.model, made.runtime
        tags = "-"
        if isinstance(runtime, ImageTagger):
            tags = ", ".join(dict.fromkeys(tag.group for tag in runtime.tags))
        elif isinstance(runtime, TextTagger):
            tags = "those of texts"
        what = model.name.removeprefix("Local stand-in: ")
        rows.append(f"| `{model.id}` | `{model.model_type_id}` | {what} | {tags} |")
    return "\n".join(rows)


def _other_ids() -> str:
    rows = ["| Id | Means | Of the model |", "| --- | --- | --- |"]
    for made in _stand_ins():
        for ids, what in ((made.other_ids, "the model"), (made.version_ids, "a version")):
            rows += [f"| `{one}` | {what} | `{made.model.id}` |" for one in ids]
    return "\n".join(rows)


def _workflows() -> str:
    rows = ["| Workflow | Models |", "| --- | --- |"]
    for name, nodes in PUBLIC_WORKFLOWS.items():
        rows.append(f"| `{name}` | {', '.join(f'`{node.model}`' for node in nodes)} |")
    return "\n".join(rows)


def _image_tags() -> str:
    rows = ["| Group | Tag | Value |", "| --- | --- | --- |"]
    rows += [f"| {tag.group} | `{tag.id}` | {tag.meaning} |" for tag in IMAGE_TAGS]
    return "\n".join(rows)


def _text_tags() -> str:
    rows = ["| Tag | Value |", "| --- | --- |"]
    rows += [f"| `{tag.id}` | {tag.meaning} |" for tag in TEXT_TAGS]
    return "\n".join(rows)


def written(page: str) -> str:
    """The page with its tables as they have to be.

    Raises:
        ValueError: It does not have the places for them.
    """
    tables = (_models(), _other_ids(), _workflows(), _image_tags(), _text_tags())
    parts = page.split(_BEGIN)
    if len(parts) != len(tables) + 1 or any(_END not in part for part in parts[1:]):
        raise ValueError(f"the page must have {len(tables)} times {_BEGIN!r} and then {_END!r}")
    text = parts[0]
    for table, part in zip(tables, parts[1:], strict=True):
        text += f"{_BEGIN}\n\n{table}\n\n{_END}{part.partition(_END)[2]}"
    return text


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(written(path.read_text(encoding="utf-8")), encoding="utf-8")
