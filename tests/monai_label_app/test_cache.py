"""What many ask for at once is made once, and memory is bounded."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from monai_label_app.web.cache import Cache


def test_what_many_ask_for_at_once_is_made_once_while_others_go_on() -> None:
    cache: Cache[str] = Cache(4)
    started, may_end = threading.Event(), threading.Event()
    made = []

    def slow() -> str:
        made.append("slow")
        started.set()
        assert may_end.wait(20)
        return "slow"

    with ThreadPoolExecutor(9) as pool:
        waiting = [pool.submit(cache.get, "slow", slow) for _ in range(8)]
        assert started.wait(20)
        assert pool.submit(cache.get, "quick", lambda: "quick").result(20) == "quick"
        assert not any(one.done() for one in waiting)
        may_end.set()
        assert {one.result(20) for one in waiting} == {"slow"}
    assert made == ["slow"]


def test_the_latest_stay_and_others_are_made_anew() -> None:
    cache: Cache[int] = Cache(2)
    made = []

    def ask(key: int) -> int:
        def make() -> int:
            made.append(key)
            return 10 * key

        return cache.get(key, make)

    assert [ask(key) for key in (1, 2, 1, 3, 1, 2)] == [10, 20, 10, 30, 10, 20]
    assert made == [1, 2, 3, 2]


def test_an_error_is_told_and_not_kept() -> None:
    cache: Cache[int] = Cache(2)
    with pytest.raises(ValueError, match="broken"):
        cache.get("one", lambda: int("broken"))
    assert cache.get("one", lambda: 1) == 1
