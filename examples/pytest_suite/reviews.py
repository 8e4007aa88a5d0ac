"""What is tested: the moods of reviews, by a model of the service."""

from __future__ import annotations

import asyncio

from clarigrpc import AsyncClient, Client, errors, text


def mood(review: str) -> str:
    """The mood of a review; "unknown" while the service cannot be reached.

    The client is that of the environment: CLARIFAI_PAT and the others.
    """
    with Client() as client:
        try:
            model = client.model("text-sentiment", user_id="clarifai", app_id="main")
            output = model.predict(text(review), timeout=5)
        except (errors.UnavailableError, errors.DeadlineExceededError):
            return "unknown"
    return max(output.data.concepts, key=lambda concept: concept.value).name


async def moods(client: AsyncClient, reviews: list[str]) -> list[str]:
    """The moods of reviews, predicted at the same time."""
    model = client.model("text-sentiment", user_id="clarifai", app_id="main")
    outputs = await asyncio.gather(*(model.predict(text(review)) for review in reviews))
    return [max(one.data.concepts, key=lambda concept: concept.value).name for one in outputs]


def keep(client: Client, reviews: dict[str, str]) -> list[str]:
    """Adds reviews, by id, to the app of a client; returns the ids that were there already."""
    known = [item.id for item in client.inputs.list() if item.id in reviews]
    new = [text(review, id=key) for key, review in reviews.items() if key not in known]
    if new:
        client.inputs.create(new)
    return known
