"""Items that are made ahead in a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from itertools import chain, count

import pytest

from monai_label_app.ahead import ahead


@pytest.mark.parametrize("length", [0, 1, 3, 20])
def test_all_items_come_in_their_order(length):
    batches = list(ahead(iter(range(length)), 4))
    assert [*chain.from_iterable(batches)] == list(range(length))
    assert all(1 <= len(batch) <= 4 for batch in batches)


def test_the_next_is_made_while_the_last_is_worked_on():
    made = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        made.set()
        yield 2

    with closing(ahead(items(), 1)) as taken:
        assert next(taken)[0] == 1
        assert made.wait(10), "nobody has asked for it yet"


def test_what_is_there_does_not_wait_for_what_is_not():
    go_on = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        assert go_on.wait(10)
        yield 2

    with closing(ahead(items(), 4)) as taken:
        assert next(taken) == [1]
        go_on.set()
        assert next(taken) == [2]


def test_an_error_comes_in_its_place():
    def items() -> Iterator[int]:
        yield from (1, 2)
        raise ConnectionError("the PACS is down")

    taken, before = ahead(items(), 4), list[int]()
    with pytest.raises(ConnectionError, match="the PACS is down"):
        for batch in taken:
            before += batch
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
    assert len(made) <= 7
    assert threading.active_count() == threads
