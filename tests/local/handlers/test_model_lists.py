"""What the lists of models and of their versions can be filtered and sorted by."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from clarigrpc import v2
from clarigrpc.local import LocalServer
from tests.local.conftest import PUBLIC, Raw, ok
from tests.local.handlers.test_model_training import add, create, image, trained, wants
from tests.local.pictures import digit


@pytest.fixture(scope="module")
def raw() -> Iterator[Raw]:
    """An app with three models; ``few`` and ``many`` are trained, on two and on four inputs."""
    with LocalServer() as server, grpc.insecure_channel(server.address) as channel:
        raw = Raw(server, v2.V2Stub(channel))
        add(
            raw,
            [
                (f"{number}-{n}", image(digit(number, n)), {f"is-{number}": 1.0})
                for number in (0, 1)
                for n in range(2)
            ],
        )
        models = [
            v2.Model(
                id="few",
                model_type_id="visual-classifier",
                description="Knows noughts",
                toolkits=["sklearn"],
                use_cases=["digits"],
                languages=["en"],
                creator="me",
                source=v2.Model.HOSTED,
                license_type=v2.LicenseType.OPEN_SOURCE,
            ),
            v2.Model(id="many", model_type_id="embedding-classifier", toolkits=["numpy"]),
            v2.Model(id="none", model_type_id="any-to-any", description="Nothing yet, no digits"),
        ]
        for model in models:
            ok(raw("PostModels", v2.PostModelsRequest(models=[model])))
        version = wants("is-0")
        version.license = "MIT"
        trained(raw, "few", version)
        trained(raw, "many")
        yield raw


def ids(raw: Raw, **fields: Any) -> list[str]:
    own = v2.UserAppIDSet(user_id="me", app_id=raw.server.app_id)
    fields.setdefault("user_app_id", own)
    request = v2.ListModelsRequest(**fields)
    return [model.id for model in ok(raw("ListModels", request)).models]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"model_type_id": "any-to-any"}, {"none"}),
        ({"trained_only": True}, {"few", "many"}),
        ({"input_fields": ["image"]}, {"few", "many"}),
        ({"input_fields": ["image", "text"]}, {"many"}),
        ({"output_fields": ["concepts"]}, {"few", "many"}),
        ({"output_fields": ["embeddings"]}, set()),
        ({"license": "MIT"}, {"few"}),
        ({"license_type": v2.LicenseType.OPEN_SOURCE}, {"few"}),
        ({"featured_only": True}, set()),
        ({"starred_only": True}, set()),
        ({"toolkits": ["numpy", "sklearn"]}, {"few", "many"}),
        ({"use_cases": ["digits"]}, {"few"}),
        ({"languages": ["en", "de"]}, {"few"}),
        ({"bookmark": True}, set()),
        ({"source": 1}, {"few"}),
        ({"creator": "me"}, {"few"}),
        ({"min_replicas": 1}, set()),
        ({"visibility": v2.Visibility(gettable=v2.Visibility.PRIVATE)}, {"few", "many", "none"}),
        ({"visibility": v2.Visibility(gettable=v2.Visibility.PUBLIC)}, set()),
        ({"search": "nought"}, {"few"}),
        ({"search": "nothing digits"}, {"none"}),
        ({"query": "noughts nothing"}, {"few", "none"}),
        ({"query": "-noughts"}, {"many", "none"}),
        ({"name": "f*w"}, {"few"}),
        ({"name": "local-user"}, set()),
        ({"name": "local-user", "filter_by_user_id": True}, {"few", "many", "none"}),
        ({"show_replicas": True, "additional_fields": ["all"]}, {"few", "many", "none"}),
        ({"trained_only": True, "toolkits": ["numpy"]}, {"many"}),
    ],
)
def test_filters(raw: Raw, fields: dict[str, Any], expected: set[str]) -> None:
    assert set(ids(raw, **fields)) == expected


def test_versions_name_their_model(raw: Raw) -> None:
    version = ok(raw("GetModel", v2.GetModelRequest(model_id="few"))).model.model_version
    assert ids(raw, model_version_ids=[version.id, "unknown"]) == ["few"]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("sort_by_name", ["none", "many", "few"]),
        ("sort_by_num_inputs", ["many", "few", "none"]),
        ("sort_by_created_at", ["none", "many", "few"]),
        ("sort_by_modified_at", ["none", "many", "few"]),
    ],
)
def test_orders(raw: Raw, key: str, expected: list[str]) -> None:
    assert ids(raw, **{key: True}) == expected
    assert ids(raw, **{key: True}, sort_ascending=True) == expected[::-1]
    assert ids(raw, **{key: True}, page=2, per_page=2) == expected[2:]


def test_public_models_are_listed_unless_a_user_or_an_app_is_named(raw: Raw) -> None:
    public = set(ids(raw, user_app_id=PUBLIC))
    own = {"few", "many", "none"}
    nobody = v2.UserAppIDSet()
    assert set(ids(raw, user_app_id=nobody)) == own | public
    assert set(ids(raw, user_app_id=nobody, dont_fetch_from_main=True)) == own
    assert set(ids(raw, user_app_id=nobody, search="few")) == {"few"}
    assert len(ids(raw, user_app_id=nobody, per_page=2)) == 2
    key = raw.with_key(raw.server.api_key)
    assert set(ids(key, user_app_id=nobody)) == own | public
    assert set(ids(raw, user_app_id=v2.UserAppIDSet(user_id="me"))) == own


def test_the_most_relevant_comes_first(raw: Raw) -> None:
    assert ids(raw, search="n", sort_by_relevance=True)[0] == "none"
    assert len(ids(raw, sort_by_star_count=True)) == 3


def test_public_models_by_what_they_take(raw: Raw) -> None:
    assert {"color-recognition", "face-detection", "image-embedding"} <= set(
        ids(raw, user_app_id=PUBLIC, input_fields=["image"])
    )
    assert set(ids(raw, user_app_id=PUBLIC, output_fields=["embeddings"])) == {
        "general-image-embedding",
        "image-embedding",
        "text-embedding",
    }
    assert ids(raw, user_app_id=PUBLIC, output_fields=["regions[...].data.concepts"]) == [
        "face-detection"
    ]


def test_versions_by_the_concepts_that_they_predict(raw: Raw) -> None:
    create(raw, "m")
    one, both = trained(raw, "m", wants("is-0")), trained(raw, "m", wants("is-0", "is-1"))

    def versions(**fields: Any) -> list[str]:
        request = v2.ListModelVersionsRequest(model_id="m", **fields)
        return [v.id for v in ok(raw("ListModelVersions", request)).model_versions]

    assert versions() == [both.id, one.id]
    assert versions(concept_ids=["is-1"]) == [both.id]
    assert versions(concept_ids=["is-0"], sort_by_num_inputs=True) == [both.id, one.id]
    assert versions(concept_ids=["is-2"]) == []
    assert versions(min_replicas=1) == []
    ok(raw("DeleteModel", v2.DeleteModelRequest(model_id="m")))
