"""The facts of ``behaviour.yaml``: each of them on the local server, over both fronts."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from clarigrpc import Client, v2
from clarigrpc._config.addresses import parse_base
from clarigrpc._contract import methods
from clarigrpc.cli import behaviour
from clarigrpc.cli.behaviour import (
    BehaviourStep,
    Fact,
    ServiceCheck,
    fetchable_addresses,
    load_facts,
)
from clarigrpc.local import LocalServer
from tests.waiting import until

FACTS = load_facts()

# Facts that the local server does not follow, and why. One that it follows again has to go.
DIFFERENT = {
    "output-info-elsewhere": "its models show their concepts wherever they are",
}

_NAME = re.compile(r"\$\{?([a-z_]+)")
_GIVEN = {"run", "absent", "picture_url", "missing_url", "user", "app"}
_DESCRIPTOR_OF_STRUCT = "google.protobuf.Struct"


@pytest.fixture(scope="module")
def behaving_server() -> Iterator[LocalServer]:
    with LocalServer(rest_port=0) as running:
        yield running


@pytest.fixture(scope="module", params=["grpc", "rest"])
def check(request: pytest.FixtureRequest, behaving_server: LocalServer) -> Iterator[ServiceCheck]:
    """A check of the local server over one of its fronts."""
    server = behaving_server
    base = server.base if request.param == "grpc" else server.rest_base
    assert base is not None

    def connect(pat: str = server.pat) -> Client:
        return Client(
            base=base,
            transport=request.param,
            pat=pat,
            user_id=server.user_id,
            app_id=server.app_id,
        )

    with connect() as client, fetchable_addresses(parse_base(base)) as (picture, missing):
        check = ServiceCheck(
            client,
            stranger=lambda: connect("0" * 32),
            picture_url=picture,
            missing_url=missing,
            seconds=30,
        )
        yield check
        check.close()
        # What is deleted is listed until the server's thread has taken it away.
        until(lambda: not list(client.inputs.list()))


@pytest.mark.parametrize("fact", FACTS.facts, ids=lambda fact: str(fact.id))
def test_the_local_server_behaves_so(check: ServiceCheck, fact: Fact) -> None:
    result = check.check(fact)
    if fact.id in DIFFERENT:
        assert result.verdict != "as described", f"take {fact.id} out of DIFFERENT"
    else:
        assert (result.verdict, result.differences, result.reason) == ("as described", (), "")


def test_names_are_unique_and_known() -> None:
    names = [fact.id for fact in FACTS.facts]
    assert len(names) == len(set(names))
    assert DIFFERENT.keys() <= set(names)
    assert all(re.fullmatch(r"[a-z0-9-]+", name) for name in names)


@pytest.mark.parametrize("fact", FACTS.facts, ids=lambda fact: str(fact.id))
def test_a_fact_says_where_it_is_from_and_whether_it_writes(fact: Fact) -> None:
    assert fact.claim.endswith(".")
    assert fact.sources
    assert not fact.interpretation or fact.interpretation.endswith(".")
    steps = [*fact.steps, *fact.cleanup, *_prepared(fact.needs)]
    assert fact.writes or all(methods.lookup(step.call).idempotent for step in steps)
    assert not fact.writes or any(not methods.lookup(step.call).idempotent for step in steps)


@pytest.mark.parametrize("fact", FACTS.facts, ids=lambda fact: str(fact.id))
def test_paths_and_names_of_a_fact_exist(fact: Fact) -> None:
    known = {*_GIVEN, *FACTS.media}
    for step in (*_prepared(fact.needs), *fact.steps, *fact.cleanup):
        assert set(_NAME.findall(str((step.request, step.expect)))) <= known, step
        known |= step.save.keys()
        for path in (*step.expect, *step.save.values()):
            _resolve(step, path)


def test_codes_are_written_by_their_first_name() -> None:
    """Not by an alias: a response is compared by names."""
    for fact in FACTS.facts:
        for step in (*_prepared(fact.needs), *fact.steps):
            for path, value in step.expect.items():
                if path.endswith("status.code"):
                    for name in re.findall(r"[A-Z][A-Z_]+", str(value)):
                        assert v2.StatusCode.Name(v2.StatusCode.Value(name)) == name


def test_media_are_what_they_are_called() -> None:
    assert FACTS.media["picture"].startswith("iVBORw0KGgo")  # PNG
    assert FACTS.media["clip"].startswith("R0lGODlh")  # GIF


@pytest.mark.parametrize(
    ("found", "wanted", "fits"),
    [
        ("SUCCESS", "SUCCESS", True),
        ("SUCCESS", {"one_of": ["FAILURE", "SUCCESS"]}, True),
        ("SUCCESS", {"one_of": ["FAILURE"]}, False),
        ("SUCCESS", {"not": "SUCCESS"}, False),
        ("a Duplicate id", {"contains": "duplicate"}, True),
        (["a", "b"], {"contains": "b"}, True),
        (["a", "b"], {"lacks": "b"}, False),
        (["a", "b"], {"count": 2}, True),
        (["a"], {"count_at_least": 2}, False),
        (["a"], {"each": {"matches": "^a"}}, True),
        (["a", "c"], {"each": {"matches": "^a"}}, False),
        (0.45000001, 0.45, True),
        (0.5, {"at_least": 0.4, "at_most": 0.45}, False),
        (True, {"at_least": 0}, False),
        ("", {"filled": False}, True),
        ("x", {"filled": False}, False),
        ([], {"filled": True}, False),
    ],
)
def test_expectations(found: object, wanted: object, fits: bool) -> None:
    assert behaviour.fits(found, wanted) is fits


def test_paths() -> None:
    tree = {"hits": [{"id": "a", "n": {"k": 1}}, {"id": "b", "n": {"k": 2}}], "code": "X"}
    find = behaviour.find
    assert find(tree, "code") == "X"
    assert find(tree, "hits[1].n.k") == 2
    assert find(tree, "hits[id=b].n.k") == 2
    assert find(tree, "hits[*].n.k") == [1, 2]
    for absent in ("hits[2].id", "hits[id=c].id", "none.k", "code[0]", "code.k"):
        assert behaviour.fits(find(tree, absent), {"filled": False})
        assert not behaviour.fits(find(tree, absent), {"filled": True})
    with pytest.raises(behaviour.BehaviourError, match="not a path"):
        find(tree, "code]")
    with pytest.raises(behaviour.BehaviourError, match="unknown expectation: is"):
        behaviour.fits(1, {"is": 1})


def _prepared(needs: tuple[str, ...]) -> list[BehaviourStep]:
    """The steps of preparations, in order."""
    steps: list[BehaviourStep] = []
    for need in needs:
        preparation = FACTS.preparations[need]
        steps += [*_prepared(preparation.needs), *preparation.steps, *preparation.cleanup]
    return steps


def _resolve(step: BehaviourStep, path: str) -> None:
    """Fail if the response of the call has no such field."""
    message = methods.lookup(step.call).response_class().DESCRIPTOR
    for name, index in re.findall(r"([\w-]+)((?:\[[^\]]*\])*)", path):
        if message.full_name == _DESCRIPTOR_OF_STRUCT:
            return
        field = message.fields_by_name.get(name)
        assert field is not None, f"{step.call}: {path}: no {name} in {message.name}"
        repeated = field.is_repeated
        assert not index or repeated, f"{step.call}: {path}: {name} is no list"
        if field.message_type is not None:
            message = field.message_type
