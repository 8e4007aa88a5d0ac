"""The pages of the reference that follow the code: ``python docs/reference_pages.py FOLDER``.

Sphinx writes them before it reads the documentation; they are not committed. A page for each domain
of methods, and one for each domain of messages that their fields hold; a page for each resource of
a client, the settings, and the errors by code.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor import EnumDescriptor

from clarigrpc import RetryPolicy, errors, v2
from clarigrpc._contract.methods import Method, lookup, names
from clarigrpc._contract.status_names import code_name
from clarigrpc._resources.sync_async import lazy
from clarigrpc._rpc import statuses
from clarigrpc.cli import describe
from clarigrpc.client import Client
from clarigrpc.local.service import method_coverage
from clarigrpc.types import ClientOptions
from clarigrpc.v2 import _docs
from clarigrpc.v2._index import MODULES

_KINDS = {
    "unary_unary": "one request, one response",
    "unary_stream": "one request, a stream of responses",
    "stream_unary": "a stream of requests, one response",
    "stream_stream": "a stream of requests, a stream of responses",
}
_ARGUMENT = re.compile(r"^        (\w+): (.*(?:\n            .*)*)", re.MULTILINE)
_VARIABLE = re.compile(r" Environment: ([A-Z_, ]+)\.")
_DEFAULT = re.compile(r" ?Default:? ((?:[^.]|\.\w)+)\.$")


def pages() -> dict[str, str]:
    """Path of each page in the folder -> its Markdown."""
    return {
        "settings.md": _settings_page(),
        "error-codes.md": _errors_page(),
        "methods.md": _methods_index(),
        **{f"methods/{domain}.md": _methods_page(domain) for domain in _domains()},
        "messages.md": _messages_index(),
        **{f"messages/{domain}.md": _messages_page(domain) for domain in _messages()},
        **{f"resources/{name}.md": _resource_page(name) for name in resources()},
    }


def write(folder: Path) -> None:
    """Write the pages that have changed, and remove those that are no more."""
    wanted = {folder / name: text for name, text in pages().items()}
    for path in folder.rglob("*.md"):
        if path not in wanted:
            path.unlink()
    for path, text in wanted.items():
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


def resources() -> list[str]:
    """The attributes of a client that are resources, in their order."""
    return [
        name
        for owner in Client.__mro__
        for name, value in vars(owner).items()
        if isinstance(value, lazy)
    ]


def plain(text: str) -> str:
    """A comment as one line of Markdown that shows it as it is."""
    line = " ".join(text.split())
    line = re.sub(r"([\\`*_{}\[\]<>$|~])", r"\\\1", line)
    return re.sub(r"^([-+#]|\d+[.)])", lambda found: "\\" + found[1], line)


def _paragraphs(text: str) -> str:
    return "\n\n".join(map(plain, re.split(r"\n\s*\n", text.strip()))) + "\n"


def _domains() -> dict[str, list[Method]]:
    """The methods by the file of the protos that has their requests."""
    found = defaultdict(list)
    for name in names():
        row = lookup(name)
        found[Path(row.request_class().DESCRIPTOR.file.name).stem.replace("_", "-")].append(row)
    return dict(sorted(found.items()))


def _title(domain: str) -> str:
    return domain.replace("-", " ").capitalize()


def _methods_index() -> str:
    return _index(
        f"All {len(names())} methods",
        "Each is called as `client.v2.NAME(request)`, or from a terminal with "
        "`clarigrpc call NAME`. {doc}`/resources` shows the same work with less to write.",
        "methods",
        {
            domain: [f"[{row.name}](#method-{row.name})" for row in rows]
            for domain, rows in _domains().items()
        },
    )


def _index(title: str, introduction: str, folder: str, links: Mapping[str, list[str]]) -> str:
    """A page about the pages of a folder: the links to what is on them, by their domains."""
    lines = [f"# {title}\n", f"{introduction}\n"]
    for domain, found in links.items():
        lines.append(f"[**{_title(domain)}**]({folder}/{domain}.md): {', '.join(found)}\n")
    toctree = "\n".join(f"{folder}/{domain}" for domain in links)
    lines.append(f"```{{toctree}}\n:hidden:\n\n{toctree}\n```\n")
    return "\n".join(lines)


def _methods_page(domain: str) -> str:
    return f"# Methods: {_title(domain).lower()}\n\n" + "\n".join(map(_method, _domains()[domain]))


def _method(row: Method) -> str:
    facts = describe.as_tree(row)
    lines = [f"(method-{row.name})=\n## {row.name}\n", _paragraphs(facts["description"])]
    if row.deprecated:
        lines.append("**Deprecated.** Today's service advises against it or does not have it.\n")
    addresses = ", ".join(f"`{one}`" for one in facts["http"]) or "none"
    scopes = ", ".join(f"`{one}`" for one in facts["scopes"]) or "none"
    repeated = "after failures that may pass" if row.idempotent else "only if it was not sent"
    lines += [
        f"- Kind: {_KINDS[row.kind]}",
        f"- HTTP: {addresses}",
        f"- Credential: {facts['credential']}",
        f"- Scopes: {scopes}",
        f"- Sent again: {repeated}",
        f"- Local server: {method_coverage.extent(row.name)}\n",
        *_fields("Request", facts["request"]),
        *_fields("Response", facts["response"]),
    ]
    return "\n".join(lines)


def _fields(heading: str, message: Mapping[str, Any]) -> Iterator[str]:
    yield f"**{heading}**: `{message['message']}`\n"
    for field in message["fields"]:
        note = "deprecated. " if field["deprecated"] else ""
        text = f": {note}{plain(field['description'])}" if field["description"] or note else ""
        yield f"- `{field['name']}` ({_linked(field['type'])}){text}"
    yield "" if message["fields"] else "No fields.\n"


def _linked(kind: str) -> str:
    """The type of a field, with a link to the message or enum that it names."""
    known = _types()

    def link(found: re.Match[str]) -> str:
        name = found[0]
        return f"[{name}](#{_anchor(name)})" if name in known else name

    return re.sub(r"\b[A-Z][\w.]*", link, re.sub(r"[<>]", r"\\\g<0>", kind))


def _anchor(name: str) -> str:
    return f"message-{name.replace('.', '-')}"


@functools.cache
def _types() -> dict[str, Any]:
    """What fields hold, by the names that they are shown with: descriptors of messages and enums.

    A request or response of a method is on the page of the method.
    """
    of_methods = {lookup(name).request_name for name in names()}
    of_methods |= {lookup(name).response_name for name in names()}
    found: dict[str, Any] = {}

    def add(name: str, descriptor: Any) -> None:
        if found.setdefault(name, descriptor) is not descriptor:
            raise LookupError(f"two types are called {name}")

    def walk(message: Any) -> None:
        if message.GetOptions().map_entry:
            return
        if message.name not in of_methods or message.containing_type is not None:
            add(describe.name_of(message), message)
        for inner in message.nested_types:
            walk(inner)
        for enum in message.enum_types:
            add(describe.name_of(enum), enum)

    for name in MODULES:
        descriptor = getattr(getattr(v2, name), "DESCRIPTOR", None)  # a stub has none
        if descriptor is None or descriptor.containing_type is not None:
            continue
        if isinstance(descriptor, EnumDescriptor):
            add(descriptor.name, descriptor)
        else:
            walk(descriptor)
    return dict(sorted(found.items()))


@functools.cache
def _messages() -> dict[str, list[str]]:
    """The names of the types by the file of the protos that has them."""
    found = defaultdict(list)
    for name, descriptor in _types().items():
        found[Path(descriptor.file.name).stem.replace("_", "-")].append(name)
    return dict(sorted(found.items()))


def _messages_index() -> str:
    return _index(
        "Messages and enums",
        "What the fields of requests and responses hold, by their names in `clarigrpc.v2`. "
        "{doc}`methods` has the requests and responses themselves.",
        "messages",
        {
            domain: [f"[{name}](#{_anchor(name)})" for name in found]
            for domain, found in _messages().items()
        },
    )


def _messages_page(domain: str) -> str:
    title = f"# Messages: {_title(domain).lower()}\n\n"
    return title + "\n".join(_message(name) for name in _messages()[domain])


def _message(name: str) -> str:
    descriptor = _types()[name]
    lines = [f"({_anchor(name)})=\n## {name}\n"]
    if comment := _docs.DOCS.get(descriptor.name, ""):
        lines.append(_paragraphs(comment))
    if isinstance(descriptor, EnumDescriptor):
        lines += [f"- {one.number} `{one.name}`" for one in descriptor.values]
        return "\n".join(lines) + "\n"
    tree = {"message": name, "fields": describe.fields_of(descriptor)}
    return "\n".join([*lines, *itertools.islice(_fields("", tree), 1, None)])


def _resource_page(name: str) -> str:
    made: Any = inspect.getattr_static(Client, name)
    kind = made.classes[0]
    summary = inspect.cleandoc(made.__doc__ or "")
    return f"""# client.{name}

{summary} `AsyncClient` has the same methods, to be awaited, or iterated over with `async for`.

```{{eval-rst}}
.. autoclass:: clarigrpc.types.{kind.__name__}
```
"""


def _documented(options: type[Any]) -> dict[str, str]:
    return {name: " ".join(text.split()) for name, text in _ARGUMENT.findall(options.__doc__ or "")}


def _settings_page() -> str:
    lines = [
        "# All settings\n",
        "Arguments of `Client(...)` and `AsyncClient(...)`, all by name. {doc}`/client` explains "
        "the important ones. Those marked with ↻ are also those of "
        "`client.with_options(...)`.\n",
    ]
    changeable = inspect.signature(Client.with_options).parameters
    for field in dataclasses.fields(ClientOptions):
        text = _documented(ClientOptions)[field.name]
        variable = _VARIABLE.search(text)
        text = _VARIABLE.sub("", text)
        default = _DEFAULT.search(text)
        shown = f"`{field.default!r}`"
        if default:
            shown = default[1].replace("``", "`")
            text = text[: default.start()]
        mark = " ↻" if field.name in changeable else ""
        lines.append(f"## {field.name}{mark}\n\n{text.replace('``', '`')}\n")
        lines.append(f"- Type: `{_type(field.type)}`\n- Default: {shown}")
        if variable:
            found = ", ".join(f"`{one}`" for one in variable[1].split(", "))
            lines.append(f"- Environment: {found}")
        lines.append("")
    lines.append("## Retries: RetryPolicy\n\nAttributes of `RetryPolicy`; times in seconds.\n")
    for field in dataclasses.fields(RetryPolicy):
        text = _documented_attributes(RetryPolicy)[field.name].replace("``", "`")
        lines.append(f"- `{field.name}` (`{_type(field.type)}`, default `{field.default}`): {text}")
    return "\n".join(lines) + "\n"


def _documented_attributes(options: type[Any]) -> dict[str, str]:
    found = _documented(options)
    return {field.name: found.get(field.name, "") for field in dataclasses.fields(options)}


def _type(annotation: object) -> str:
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Z])", "", text).replace("typing.", "")


def _errors_page() -> str:
    """Each exception with the statuses that it stands for."""
    lines = [
        "# Errors by code\n",
        "Each exception with the gRPC status codes and V2 status codes that lead to it. "
        "{doc}`/errors` shows how to handle them. A V2 code that is newer than this version of "
        "clarigrpc raises `InternalError`.\n",
    ]
    for kind, raised in statuses.ERROR_CLASSES.items():
        again = "yes" if kind in statuses.RETRYABLE else "no"
        grpc_codes = [code.name for code in grpc.StatusCode if statuses.kind_of_grpc(code) is kind]
        codes = sorted(code for code, one in statuses.STATUS_KINDS.items() if one is kind)
        text = (inspect.getdoc(raised) or "").partition("\n")[0]
        name = raised.__name__
        if raised is errors.ApiError:
            text = "Any other failure, for example of a training."
        lines.append(f"## {name}\n\n{text}\n\n- Worth another try: {again}")
        if grpc_codes:
            lines.append("- gRPC: " + ", ".join(f"`{code}`" for code in grpc_codes))
        named = (f"{code} `{code_name(code)}`" for code in codes)
        lines.append("- V2: " + ", ".join(named) + "\n")
    return "\n".join(lines)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
