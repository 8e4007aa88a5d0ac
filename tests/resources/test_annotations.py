"""Annotations, filters, tracks."""

from __future__ import annotations

import pytest

from clarigrpc import errors, query, v2
from tests.both import Both
from tests.resources.conftest import add_inputs


def about(input_id: str, annotation_id: str, *concepts: str) -> v2.Annotation:
    data = v2.Data(concepts=[v2.Concept(id=one, value=1) for one in concepts])
    return v2.Annotation(id=annotation_id, input_id=input_id, data=data)


async def test_annotations(both: Both) -> None:
    c = both.client
    await add_inputs(both, "i", "j")
    made = await both.run(c.annotations.create, about("i", "a", "dog"))
    assert (made.id, made.input_id) == ("a", "i")
    await both.run(
        c.annotations.create_many, [about("i", "b", "cat"), about("j", "x"), about("j", "y")]
    )
    found = await both.run(c.annotations.get, "i", "a")
    assert [one.id for one in found.data.concepts] == ["dog"]
    listed = await both.collect(c.annotations.list(input_ids=["i"]))
    assert {one.id for one in listed} == {"a", "b", "input-level-i"}
    merged = await both.run(c.annotations.patch, about("i", "a", "puppy"), action="merge")
    assert {one.id for one in merged.data.concepts} == {"dog", "puppy"}
    removed = await both.run(c.annotations.patch, about("i", "a", "dog"), action="remove")
    assert {one.id for one in removed.data.concepts} == {"puppy"}
    (whole,) = await both.run(
        c.annotations.patch_many, [about("i", "a", "fox")], action="overwrite"
    )
    assert {one.id for one in whole.data.concepts} == {"fox"}
    with pytest.raises(errors.InvalidArgumentError, match="input_id of an annotation"):
        await both.run(c.annotations.patch, about("j", "a", "fox"))
    workers = await both.collect(c.annotations.workers())
    assert [one.user.id for one in workers] == [c.settings.user_id]
    hits = await both.collect(c.search.annotations(query.has_concept("fox")))
    assert [one.annotation.id for one in hits] == ["a"]
    await both.run(c.annotations.delete, "i", "a")
    with pytest.raises(errors.NotFoundError):
        await both.run(c.annotations.get, "i", "a")
    await both.run(c.annotations.delete_many, [("i", "b"), ("j", "x")])
    own = {"input-level-i", "input-level-j"}
    assert {one.id for one in await both.collect(c.annotations.list())} == {"y", *own}
    await both.run(c.annotations.delete_many, input_ids=["j"])
    assert {one.id for one in await both.collect(c.annotations.list())} == own
    with pytest.raises(errors.InvalidArgumentError, match="either"):
        await both.run(c.annotations.delete_many)


async def test_filters(both: Both) -> None:
    c = both.client
    search = query.search(query.has_concept("dog"))
    wanted = v2.AnnotationFilter(id="dogs", search=search)
    assert (await both.run(c.annotations.filters.create, wanted)).id == "dogs"
    await both.run(c.annotations.filters.create_many, [v2.AnnotationFilter(id="x", search=search)])
    found = await both.run(c.annotations.filters.get, "dogs")
    assert found.search.query.filters[0].annotation.data.concepts[0].id == "dog"
    other = query.search(query.has_concept("cat"))
    await both.run(
        c.annotations.filters.patch,
        v2.AnnotationFilter(id="dogs", search=other),
        action="overwrite",
    )
    (changed,) = await both.run(
        c.annotations.filters.patch_many,
        [v2.AnnotationFilter(id="x", search=other)],
        action="overwrite",
    )
    assert changed.search.query.filters[0].annotation.data.concepts[0].id == "cat"
    assert len(await both.collect(c.annotations.filters.list())) == 2
    await both.run(c.annotations.filters.delete, "x")
    assert [one.id for one in await both.collect(c.annotations.filters.list())] == ["dogs"]


async def test_tracks(both: Both) -> None:
    c = both.client
    await add_inputs(both, "i")
    track = v2.AnnotationTrack(
        id="t", input_id="i", concept=v2.Concept(id="dog"), start_frame_nr=0, end_frame_nr=9
    )
    made = await both.run(c.annotations.tracks("i").create, track)
    assert made.id == "t"
    track.id = "u"
    await both.run(c.annotations.tracks("i").create_many, [track])
    track.end_frame_nr = 5
    changed = await both.run(c.annotations.tracks("i").patch, track, action="overwrite")
    assert changed.end_frame_nr == 5
    await both.run(c.annotations.tracks("i").patch_many, [track], action="overwrite")
    found = await both.collect(c.annotations.tracks("i").list(ids=["u"]))
    assert [one.end_frame_nr for one in found] == [5]
    await both.run(c.annotations.tracks("i").delete, ["t", "u"])
    assert await both.collect(c.annotations.tracks("i").list()) == []
