"""Memory for what is dear to make, shared by the threads of a server."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

Made = TypeVar("Made")


class Cache(Generic[Made]):
    """Keeps the ``size`` things that were asked for last.

    What several threads ask for at once is made once, while things under other keys go on being made. An error is told
    to all who wait for it and not kept.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: OrderedDict[Hashable, Future[Made]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What is kept under a key, or else is made."""
        with self._lock:
            found = self._kept.get(key)
            future: Future[Made] = found or Future()
            self._kept[key] = future
            self._kept.move_to_end(key)
            while len(self._kept) > self._size:
                self._kept.popitem(last=False)
        if found is None:
            self._fill(key, future, make)
        return future.result()

    def _fill(self, key: Hashable, future: Future[Any], make: Callable[[], Made]) -> None:
        try:
            future.set_result(make())
        except BaseException as error:
            with self._lock:
                if self._kept.get(key) is future:
                    del self._kept[key]
            future.set_exception(error)
