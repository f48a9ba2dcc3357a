"""Take the next items of an iterator in a thread, while the last ones are worked on."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


def ahead(items: Iterator[T], count: int) -> Generator[T, None, None]:
    """The same items in the same order, ``count`` of them taken before they are asked for.

    To be closed where it is not asked to its end: it waits for the item that is being made, and makes no other.

    Raises:
        Exception: as ``items`` raises it, in its place.
    """
    end: Any = object()
    with ThreadPoolExecutor(1, "ahead") as thread:
        take = partial(next, items, end)
        taken = deque(thread.submit(take) for _ in range(count))
        try:
            while (item := taken.popleft().result()) is not end:
                taken.append(thread.submit(take))
                yield item
        finally:
            thread.shutdown(cancel_futures=True)
