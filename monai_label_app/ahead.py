"""Take the next items of an iterator in a thread, while the last ones are worked on."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


def ahead(items: Iterator[T], count: int) -> Generator[list[T], None, None]:
    """The same items in the same order, ``count`` of them taken before they are asked for.

    To be closed where it is not asked to its end: it waits for the item that is being made, and makes no other.

    Yields:
        As many as are there, at least one and at most ``count``: nobody waits for a batch to be full.

    Raises:
        Exception: as ``items`` raises it, in its place.
    """
    end: Any = object()
    with ThreadPoolExecutor(1, "ahead") as thread:
        take = partial(next, items, end)
        taken = deque(thread.submit(take) for _ in range(count))
        try:
            while (first := taken.popleft().result()) is not end:
                batch = [first]
                while taken and taken[0].done() and not taken[0].exception() and taken[0].result() is not end:
                    batch.append(taken.popleft().result())
                taken.extend(thread.submit(take) for _ in batch)
                yield batch
        finally:
            thread.shutdown(cancel_futures=True)
