"""Derived UIDs: valid, steady, and different wherever anything differs."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from report.uids import derive

parts = st.lists(st.text(max_size=8), max_size=4)


@given(st.text(max_size=8), parts)
def test_a_derived_uid_is_a_uuid_under_2_25(kind, made_of):
    uid = derive(kind, *made_of)
    assert uid.is_valid
    assert uid.startswith("2.25.")
    assert int(uid.split(".")[2]) < 2**128
    assert uid == derive(kind, *made_of)


@given(st.tuples(st.text(max_size=4), parts), st.tuples(st.text(max_size=4), parts))
def test_what_differs_in_any_part_has_another_uid(one, other):
    assume(one != other)
    assert derive(one[0], *one[1]) != derive(other[0], *other[1])


def test_neighbouring_parts_do_not_run_into_each_other():
    assert len({derive("a", "b", "c"), derive("a", "bc"), derive("ab", "c"), derive("a", "", "bc")}) == 4


def test_a_uid_stays_what_it_was_in_earlier_releases():
    # Results that lie in archives today must be found again tomorrow.
    assert derive("heatmap", "1.2.3", 1) == "2.25.95959223235091038101985322138015208543"
