"""What is publicly known of the service's behaviour, and the check of a service against it.

``behaviour.yaml`` holds the facts; its first lines explain the format. A fact is a few calls, each
with what the response has to contain. Nothing here knows which service it talks to.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from string import Template
from typing import Any, Final, Literal, NamedTuple

from google.protobuf import json_format

from clarigrpc import Client
from clarigrpc._config.addresses import Target
from clarigrpc._contract import methods
from clarigrpc._descriptor_pool import POOL
from clarigrpc.errors import ApiError

Verdict = Literal["as described", "differs", "not checked"]

# Of services elsewhere; the tests of the published clients use both.
_PUBLIC_PICTURE = "https://samples.clarifai.com/dog2.jpeg"
_NOTHING_THERE = "http://example.com/non-existing.jpg"

_SECONDS = 120.0  # for a resource to get ready, on a service with other users
_MAX_PAUSE = 2.0  # seconds between two polls
_LONGEST_TEXT = 200  # characters of a value in a difference
_SELECTOR = re.compile(r"\.?([^.\[\]]+)|\[([^\]]*)\]")
_NOTHING: Final = object()


class BehaviourError(ValueError):
    """The file of facts is wrong: an unknown method, field, expectation or name."""


@dataclass(frozen=True)
class BehaviourStep:
    """A call.

    Attributes:
        call: Method of the service.
        request: Its request as proto3 JSON, with ``$names`` to be filled in.
        expect: Path into the response, and what has to be there.
        save: Name for later steps, and the path of its value in the response.
        until: Whether to repeat the call until it answers as expected.
        repeat: Field of the request whose only item is to be sent this many times.
        wrong_key: Whether to call with a key that does not exist.
        once: Whether the first answer counts, also one that asks to call again.
    """

    call: str
    request: Mapping[str, Any] = field(default_factory=dict)
    expect: Mapping[str, Any] = field(default_factory=dict)
    save: Mapping[str, str] = field(default_factory=dict)
    until: bool = False
    repeat: Mapping[str, int] = field(default_factory=dict)
    wrong_key: bool = False
    once: bool = False


@dataclass(frozen=True)
class Preparation:
    """Resources that several facts use: made once, and deleted at the end."""

    steps: tuple[BehaviourStep, ...]
    cleanup: tuple[BehaviourStep, ...] = ()
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Fact:
    """One thing that is known of the service.

    Attributes:
        id: Its name.
        area: Heading that it stands under.
        claim: What the service does, in a sentence.
        sources: Where that is said, as (text, address) pairs.
        interpretation: What the sources leave open and how it is read here; "" for nothing.
        writes: Whether checking it changes the app.
        needs: Names of the preparations that it uses.
        steps: The calls that check it.
        cleanup: The calls that delete what they made.
    """

    id: str
    area: str
    claim: str
    sources: tuple[tuple[str, str], ...]
    steps: tuple[BehaviourStep, ...]
    cleanup: tuple[BehaviourStep, ...] = ()
    interpretation: str = ""
    writes: bool = False
    needs: tuple[str, ...] = ()


class Difference(NamedTuple):
    """A place where a response is not as described."""

    call: str
    path: str
    expected: str
    found: str


class FactResult(NamedTuple):
    """How a service does on a fact. ``reason`` says why it was not checked."""

    fact: Fact
    verdict: Verdict
    differences: tuple[Difference, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class BehaviourFacts:
    """The content of ``behaviour.yaml``."""

    facts: tuple[Fact, ...]
    preparations: Mapping[str, Preparation]
    media: Mapping[str, str]


@cache
def load_facts() -> BehaviourFacts:
    """Read ``behaviour.yaml``.

    Raises:
        BehaviourError: It is wrong.
    """
    import yaml

    text = files(__package__).joinpath("behaviour.yaml").read_text("utf-8")
    tree = yaml.safe_load(text)
    preparations = {
        name: Preparation(
            _steps(entry["steps"]), _steps(entry.get("cleanup")), tuple(entry.get("needs", ()))
        )
        for name, entry in tree["preparations"].items()
    }
    facts = [
        _fact(area, entry, tree["sources"], preparations)
        for area, entries in tree["facts"].items()
        for entry in entries
    ]
    return BehaviourFacts(tuple(facts), preparations, tree["media"])


def _fact(
    area: str,
    entry: Mapping[str, Any],
    sources: Mapping[str, Mapping[str, str]],
    preparations: Mapping[str, Preparation],
) -> Fact:
    known = dict(entry)
    cited = known.pop("source")
    needs = tuple(known.pop("needs", ()))
    if unknown := set(needs) - preparations.keys():
        raise BehaviourError(f"{entry['id']} needs {', '.join(sorted(unknown))}, which is unknown")
    try:
        return Fact(
            area=area,
            sources=tuple(_source(text, sources) for text in cited),
            steps=_steps(known.pop("steps")),
            cleanup=_steps(known.pop("cleanup", None)),
            needs=needs,
            **known,
        )
    except TypeError as error:
        raise BehaviourError(f"{entry.get('id')}: {error}") from None


def _source(text: str, sources: Mapping[str, Mapping[str, str]]) -> tuple[str, str]:
    """``grpc tests/client/test_auth.py`` -> what the reader sees, and where it leads."""
    key, _, place = text.partition(" ")
    source = sources[key]
    return (f"{source['title']}: {place}" if place else source["title"]), source["url"] + place


def _steps(entries: Sequence[Mapping[str, Any]] | None) -> tuple[BehaviourStep, ...]:
    steps = tuple(BehaviourStep(**entry) for entry in entries or ())
    for step in steps:
        try:
            methods.lookup(step.call)
        except KeyError:
            raise BehaviourError(f"the service has no method {step.call}") from None
    return steps


class ServiceCheck:
    """Checks a service against facts. Close it to delete what it made.

    Args:
        client: A client of the service. Facts that write do so in its default app.
        stranger: Makes a client with a key that does not exist.
        picture_url: Address of an image that the service can fetch.
        missing_url: Address that the service can reach and where nothing is (HTTP 404).
        seconds: How long to wait for a resource to get ready.
    """

    def __init__(
        self,
        client: Client,
        *,
        stranger: Callable[[], Client],
        picture_url: str,
        missing_url: str,
        seconds: float = _SECONDS,
    ) -> None:
        self._client = client
        self._stranger = stranger
        self._seconds = seconds
        self._all = load_facts()
        run = f"conformance-{uuid.uuid4().hex[:8]}"
        self._names: dict[str, str] = {
            **self._all.media,
            "run": run,
            "absent": f"absent-{run}",
            "picture_url": picture_url,
            "missing_url": missing_url,
            "user": client.settings.user_id,
            "app": client.settings.app_id,
        }
        self._prepared: dict[str, str] = {}  # name -> why it failed, "" if it did not
        self._cleanup: list[tuple[BehaviourStep, dict[str, str]]] = []

    def check(self, fact: Fact) -> FactResult:
        """Check one fact."""
        for need in fact.needs:
            if reason := self._prepare(need):
                return FactResult(fact, "not checked", reason=f"{need}: {reason}")
        names = dict(self._names)
        try:
            for step in fact.steps:
                if found := self._run(step, names):
                    # The later steps build upon it.
                    return FactResult(fact, "differs", tuple(found))
        except _UnansweredCall as error:
            return FactResult(fact, "not checked", reason=str(error))
        finally:
            self._undo(fact.cleanup, names)
        return FactResult(fact, "as described")

    def close(self) -> None:
        """Delete what the preparations made. What is gone already is no error."""
        while self._cleanup:
            step, names = self._cleanup.pop()
            self._undo((step,), names)

    def _prepare(self, name: str) -> str:
        """Make what a preparation makes, once; why that failed, or ""."""
        if name not in self._prepared:
            self._prepared[name] = self._try_to_prepare(self._all.preparations[name])
        return self._prepared[name]

    def _try_to_prepare(self, preparation: Preparation) -> str:
        for need in preparation.needs:
            if reason := self._prepare(need):
                return reason
        self._cleanup += [(step, self._names) for step in reversed(preparation.cleanup)]
        try:
            for step in preparation.steps:
                for call, path, _, found in self._run(step, self._names):
                    return f"{call}: {path} is {found}"
        except _UnansweredCall as error:
            return str(error)
        return ""

    def _undo(self, steps: Iterable[BehaviourStep], names: dict[str, str]) -> None:
        for step in steps:
            with suppress(_UnansweredCall):
                self._run(step, names)

    def _run(self, step: BehaviourStep, names: dict[str, str]) -> list[Difference]:
        """Call, and keep what later steps need; where the response is not as expected."""
        try:
            request = _request(step, names)
            wanted = _filled(step.expect, names)
        except KeyError as error:
            # What an earlier response should have had.
            return [Difference(step.call, f"${error.args[0]}", "a value", "nothing")]
        end = time.monotonic() + (self._seconds if step.until else 0)
        pause = 0.05
        while True:
            response = self._call(step, request)
            found = _differences(step.call, response, wanted)
            if not found or time.monotonic() + pause > end:
                break
            time.sleep(pause)
            pause = min(2 * pause, _MAX_PAUSE)
        for name, path in step.save.items():
            if (value := find(response, path)) is not _NOTHING:
                names[name] = str(value)
        return found

    def _call(self, step: BehaviourStep, request: Any) -> dict[str, Any]:
        """The response as proto3 JSON, all fields of its messages included."""
        if step.once:
            return _answer(self._client.with_options(retry=False), step.call, request)
        if not step.wrong_key:
            return _answer(self._client, step.call, request)
        with self._stranger() as client:
            return _answer(client, step.call, request)


class _UnansweredCall(Exception):
    """The call ended without a response."""


def _answer(client: Client, method: str, request: Any) -> dict[str, Any]:
    try:
        with warnings.catch_warnings():
            # Facts of deprecated fields send them.
            warnings.simplefilter("ignore", DeprecationWarning)
            response = getattr(client.v2, method)(request)
    except ApiError as error:
        if error.response is None:
            raise _UnansweredCall(str(error)) from error
        response = error.response
    return json_format.MessageToDict(
        response,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
        descriptor_pool=POOL,
    )


def _differences(
    call: str, response: Mapping[str, Any], wanted: Mapping[str, Any]
) -> list[Difference]:
    found = [
        Difference(call, path, expectation_text(value), _text(at))
        for path, value in wanted.items()
        if not fits(at := find(response, path), value)
    ]
    for difference in found:
        if difference.path == "status.code":
            # The rest of the response follows from it.
            status = response["status"]
            why = ": ".join(filter(None, (status["description"], status["details"])))
            return [difference._replace(found=f"{difference.found} ({why})")]
    return found


def _request(step: BehaviourStep, names: Mapping[str, str]) -> Any:
    row = methods.lookup(step.call)
    tree = _filled(step.request, names)
    for name, times in step.repeat.items():
        tree[name] = tree[name] * times
    try:
        return json_format.ParseDict(tree, row.request_class()(), descriptor_pool=POOL)
    except json_format.ParseError as error:
        raise BehaviourError(f"{row.request_name}: {error}") from None


def _filled(tree: Any, names: Mapping[str, str]) -> Any:
    """The tree with a value for every ``$name`` in its strings."""
    if isinstance(tree, str):
        return Template(tree).substitute(names)
    if isinstance(tree, Mapping):
        return {_filled(key, names): _filled(value, names) for key, value in tree.items()}
    if isinstance(tree, Sequence):
        return [_filled(item, names) for item in tree]
    return tree


def find(tree: Any, path: str) -> Any:
    """The value at a path like ``outputs[0].data.concepts[*].name``; _NOTHING if there is none.

    ``[id=cat]`` selects the item with this field, ``[*]`` the values of all items.

    Raises:
        BehaviourError: It is no path.
    """
    at = tree
    end = 0
    for match in _SELECTOR.finditer(path):
        if match.start() != end:
            raise BehaviourError(f"not a path: {path}")
        end = match.end()
        name, index = match.groups()
        if name is not None:
            at = at.get(name, _NOTHING) if isinstance(at, Mapping) else _NOTHING
        elif not isinstance(at, list):
            return _NOTHING
        elif index == "*":
            return [value for item in at if (value := find(item, path[end:])) is not _NOTHING]
        elif "=" in index:
            key, _, wanted = index.partition("=")
            at = next((item for item in at if item.get(key) == wanted), _NOTHING)
        else:
            at = at[int(index)] if int(index) < len(at) else _NOTHING
        if at is _NOTHING:
            return _NOTHING
    if end != len(path):
        raise BehaviourError(f"not a path: {path}")
    return at


def _contains(found: Any, wanted: Any) -> bool:
    if isinstance(found, str):
        return str(wanted).lower() in found.lower()
    return isinstance(found, list) and any(fits(item, wanted) for item in found)


def _is_number(found: Any) -> bool:
    return isinstance(found, (int, float)) and not isinstance(found, bool)


_EXPECTATIONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "one_of": lambda found, wanted: any(fits(found, value) for value in wanted),
    "not": lambda found, wanted: not fits(found, wanted),
    "contains": _contains,
    "lacks": lambda found, wanted: not _contains(found, wanted),
    "matches": lambda found, wanted: isinstance(found, str) and bool(re.search(wanted, found)),
    "count": lambda found, wanted: isinstance(found, list) and len(found) == wanted,
    "count_at_least": lambda found, wanted: isinstance(found, list) and len(found) >= wanted,
    "at_least": lambda found, wanted: _is_number(found) and found >= wanted,
    "at_most": lambda found, wanted: _is_number(found) and found <= wanted,
    "each": lambda found, wanted: (
        isinstance(found, list) and all(fits(item, wanted) for item in found)
    ),
    "filled": lambda found, wanted: (found is not _NOTHING and found not in ("", [], {})) is wanted,
}
"""Name of an expectation -> whether a value fits it."""


def fits(found: Any, wanted: Any) -> bool:
    """Whether a value of a response is as expected.

    Raises:
        BehaviourError: There is no such expectation.
    """
    if isinstance(wanted, Mapping):
        if unknown := wanted.keys() - _EXPECTATIONS.keys():
            raise BehaviourError(f"unknown expectation: {', '.join(sorted(unknown))}")
        return all(_EXPECTATIONS[name](found, value) for name, value in wanted.items())
    if isinstance(wanted, int) and isinstance(found, str):
        return found == str(wanted)  # JSON has integers of 64 bits as strings
    if isinstance(wanted, float) and _is_number(found):
        return bool(abs(found - wanted) < 1e-6)
    return found is not _NOTHING and bool(found == wanted)


def expectation_text(wanted: Any) -> str:
    """An expectation in words: ``SUCCESS``, ``count at least 1``."""
    if isinstance(wanted, Mapping):
        return ", ".join(
            "present"
            if (name, it) == ("filled", True)
            else "absent"
            if (name, it) == ("filled", False)
            else f"{name.replace('_', ' ')} {expectation_text(it)}"
            for name, it in wanted.items()
        )
    if isinstance(wanted, list):
        return " or ".join(map(expectation_text, wanted))
    return _text(wanted)


def _text(value: Any) -> str:
    """A value of a response, as in a table."""
    if value is _NOTHING:
        return "nothing"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return (f"{text[:_LONGEST_TEXT]}…" if len(text) > _LONGEST_TEXT else text) or '""'


@contextmanager
def fetchable_addresses(service: Target) -> Iterator[tuple[str, str]]:
    """Addresses of a picture and of nothing, for the service to fetch from."""
    if not service.is_loopback:
        yield _PUBLIC_PICTURE, _NOTHING_THERE
        return
    picture = base64.b64decode(load_facts().media["picture"])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path.startswith("/picture.png")
            body = picture if found else b""
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        thread = threading.Thread(target=web.serve_forever, daemon=True)
        thread.start()
        try:
            root = f"http://127.0.0.1:{web.server_port}"
            yield f"{root}/picture.png", f"{root}/missing.png"
        finally:
            web.shutdown()
            thread.join()
