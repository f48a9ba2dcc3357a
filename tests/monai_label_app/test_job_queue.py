"""Servers that share a database of analyses: each is done by one of them, whatever becomes of the others."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from monai_label_app import job_queue
from monai_label_app.job_queue import CANCELLED, DONE, QUEUED, RUNNING, STORING, JobQueue, TooLateError


@pytest.fixture
def servers(tmp_path: Path) -> list[JobQueue]:
    with ThreadPoolExecutor() as pool:  # all make the tables at once
        return list(pool.map(lambda _: JobQueue(f"sqlite:///{tmp_path / 'shared.sqlite'}"), range(4)))


def test_a_study_that_all_are_asked_for_is_one_job_which_one_of_them_does(servers: list[JobQueue]) -> None:
    with ThreadPoolExecutor() as pool:
        asked = list(pool.map(lambda server: server.add("1.2.3", 7), servers))
        taken = [one for one in pool.map(lambda server: server.take(), servers) if one]
    assert len({one.key for one in asked}) == len(taken) == 1
    assert {one.get(asked[0].key).state for one in servers} == {RUNNING}
    assert servers[0].add("1.2.3", 7).key == asked[0].key
    first, second = servers[0].add("1.2.4", 1), servers[1].add("1.2.5", 1)
    assert servers[0].waiting == 2 and servers[0].unended().keys() == {"1.2.3", "1.2.4", "1.2.5"}
    assert [servers[2].take(), servers[3].take()] != [None, None]
    assert first.key != second.key


def test_what_a_server_left_is_begun_anew_by_another(servers: list[JobQueue], monkeypatch: pytest.MonkeyPatch) -> None:
    gone, other, third, _ = servers
    job = gone.add("1.2.3", 7)
    assert gone.take() and gone.change(job.key, done=3)
    assert other.take() is None and other.get(job.key).done == 3
    monkeypatch.setattr(job_queue, "LOST_SECONDS", -1.0)
    again = other.take()
    assert again and (again.key, again.done, again.state) == (job.key, 0, RUNNING)
    assert not gone.change(job.key, state=STORING), "it comes back, and the job is no longer its own"
    monkeypatch.undo()
    other.put_back()
    assert third.get(job.key).state == QUEUED and third.take()
    assert third.take(), "what it did not bring to an end, for its database was away"
    assert third.change(job.key, state=DONE, stored=4, problems=["one was left out"])
    ended = gone.get(job.key)
    assert (ended.state, ended.stored, ended.problems) == (DONE, 4, ("one was left out",))
    assert gone.add("1.2.3", 7).key != job.key


def test_a_job_of_another_server_can_be_cancelled_until_it_is_stored(servers: list[JobQueue]) -> None:
    works, asks, *_ = servers
    job = asks.add("1.2.3", 7)
    works.take()
    assert asks.cancel(job.key).state == CANCELLED
    assert not works.change(job.key, done=5)
    again = asks.add("1.2.3", 7)
    works.take()
    works.change(again.key, state=STORING)
    with pytest.raises(TooLateError):
        asks.cancel(again.key)
    with pytest.raises(LookupError):
        asks.cancel("nothing")
    asks.erase("1.2.3")
    assert asks.of_study("1.2.3") is None
