"""A model with methods of every shape, for workers in this process and in others."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from clarigrpc import runner


class Toolbox:
    """What tests call. ``log`` has what happened inside."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.batches: list[list[str]] = []
        self.produced = 0
        self.most_seconds = 60.0
        self.started = threading.Event()
        self.release = threading.Event()

    def predict(self, text: str) -> str:
        """Says it loudly."""
        return text.upper()

    async def reverse(self, text: str) -> str:
        await asyncio.sleep(0)
        return text[::-1]

    def generate(self, text: str) -> Iterator[str]:
        yield from text

    async def spell(self, text: str) -> AsyncIterator[str]:
        for letter in text:
            await asyncio.sleep(0)
            yield letter

    async def spell_slowly(self, text: str) -> AsyncIterator[str]:
        for letter in text:
            self.produced += 1
            await asyncio.sleep(0.003)
            yield letter

    def stream(self, words: Iterator[str], prefix: str = "") -> Iterator[str]:
        for word in words:
            yield prefix + word

    async def converse(self, words: AsyncIterator[str], prefix: str = "") -> AsyncIterator[str]:
        async for word in words:
            yield prefix + word

    def total(self, values: Iterator[int]) -> int:
        return sum(values)

    def fail(self, text: str) -> str:
        raise ValueError(f"no luck with {text}")

    def exits(self, text: str) -> str:
        raise SystemExit(text)

    async def exits_later(self, text: str) -> str:
        await asyncio.sleep(0)
        raise SystemExit(text)

    def exits_after(self, text: str) -> Iterator[str]:
        yield text
        raise SystemExit(text)

    @runner.batched
    def exits_in_batch(self, text: list[str]) -> list[str]:
        raise SystemExit(text[0])

    def fail_after(self, text: str, count: int) -> Iterator[str]:
        yield from text[:count]
        raise ValueError("no further")

    def nothing(self, text: str) -> Iterator[str]:
        yield from ()

    def slow(self, text: str, seconds: float) -> str:
        """Blocks, as work on a processor does. Makes the file that it is given the path of."""
        self.log.append(f"slow {text}")
        if text.startswith("/"):
            Path(text).touch()
        self.started.set()
        time.sleep(min(seconds, self.most_seconds))
        return text

    async def endless(self, text: str) -> str:
        """Runs until it is cancelled, or released."""
        self.started.set()
        try:
            while not self.release.is_set():
                await asyncio.sleep(0.02)
        except asyncio.CancelledError:
            self.log.append(f"cancelled {text}")
            raise
        return text

    def count_for_ever(self, text: str) -> Iterator[int]:
        number = 0
        try:
            while True:
                yield number
                number += 1
        finally:
            self.log.append(f"closed {text}")

    def flood(self, text: str) -> Iterator[str]:
        try:
            while True:
                self.produced += 1
                yield text * (1 << 20)
        finally:
            self.log.append("closed flood")

    @runner.batched
    def lengths(self, text: list[str]) -> list[int]:
        self.batches.append(text)
        if "bad" in text:
            raise ValueError("bad text")
        return [len(one) for one in text]
