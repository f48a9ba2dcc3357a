"""Items that are made ahead in a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from itertools import count

import pytest

from monai_label_app.ahead import ahead


@pytest.mark.parametrize("length", [0, 1, 3, 20])
def test_all_items_come_in_their_order(length):
    assert list(ahead(iter(range(length)), 4)) == list(range(length))


def test_the_next_is_made_while_the_last_is_worked_on():
    made = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        made.set()
        yield 2

    with closing(ahead(items(), 1)) as taken:
        assert next(taken) == 1
        assert made.wait(10), "nobody has asked for it yet"


def test_an_error_comes_in_its_place():
    def items() -> Iterator[int]:
        yield from (1, 2)
        raise ConnectionError("the PACS is down")

    taken, before = ahead(items(), 4), []
    with pytest.raises(ConnectionError, match="the PACS is down"):
        for item in taken:
            before.append(item)
    assert before == [1, 2]


def test_closed_it_makes_no_more():
    made: list[int] = []

    def items() -> Iterator[int]:
        for item in count():
            made.append(item)
            yield item

    threads = threading.active_count()
    with closing(ahead(items(), 3)) as taken:
        next(taken)
    assert len(made) <= 4
    assert threading.active_count() == threads
