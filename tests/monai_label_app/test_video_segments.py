"""What is seen long enough is a segment whatever is around it, and what flashes up is none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from monai_label_app.video.sampling import Samples
from monai_label_app.video.segments import BRIDGED, LEAST, SEEN, Span, spans

CLASSES = ("polyps", "normal-cecum", "esophagitis")
STEP = 0.1
NOTHING = [np.nan] * 3


def samples(probabilities: list[list[float]]) -> Samples:
    values = np.array(probabilities, np.float32)
    count = len(values)
    seen = ~np.isnan(values).any(axis=1)
    return Samples(
        np.arange(count) * STEP,
        np.arange(count) + 1,
        np.arange(count) * STEP,
        np.where(seen, "clear", "dark"),
        np.full(count, 0.6, np.float32),
        values,
    )


def cut(*parts: tuple[list[float], int]) -> list[Span]:
    return spans(samples([row for row, count in parts for _ in range(count)]), CLASSES, STEP)


def rows(count: int) -> st.SearchStrategy[NDArray[np.float32]]:
    share = st.lists(st.floats(0.01, 1), min_size=3, max_size=3)
    row = st.one_of(share.map(lambda row: (np.array(row) / sum(row)).tolist()), st.just(NOTHING))
    return st.lists(row, min_size=count, max_size=count)


@given(rows(12), rows(12), st.integers(LEAST, 6), st.floats(SEEN + 0.01, 1), st.sampled_from(range(3)))
def test_a_class_in_three_samples_in_a_row_is_seen_whatever_is_around_it(before, after, count, chance, label):
    lesion = [(1 - chance) / 2] * 3
    lesion[label] = chance
    found = spans(samples([*before, *[lesion] * count, *after]), CLASSES, STEP)
    start, end = len(before) * STEP, (len(before) + count) * STEP
    over = [one for one in found if one.label == CLASSES[label] and one.start < start + 0.01 and one.end > end - 0.01]
    assert len(over) == 1
    assert over[0].peak >= np.float32(chance) - 1e-6


@given(rows(24))
def test_segments_are_apart_in_order_and_within_the_video(video):
    found = spans(samples(video), CLASSES, STEP)
    times = [time for one in found for time in (one.start, one.end)]
    assert times == sorted(times)
    assert all(0 <= time <= len(video) * STEP + 1e-9 for time in times)
    assert all(one.end - one.start >= LEAST * STEP - 1e-9 and one.peak >= one.mean for one in found)


POLYP, CECUM, UNSURE = [0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.4, 0.3, 0.3]


def test_edges_are_those_of_the_class():
    assert [
        (one.label, round(one.start, 6), round(one.end, 6)) for one in cut((CECUM, 20), (POLYP, 4), (CECUM, 20))
    ] == [
        ("normal-cecum", 0.0, 2.0),
        ("polyps", 2.0, 2.4),
        ("normal-cecum", 2.4, 4.4),
    ]


def test_a_segment_begins_with_its_first_frame_and_ends_with_the_next_one():
    late = samples([CECUM] * 20 + [POLYP] * 4 + [CECUM] * 20)
    late = replace(late, frame_times=np.maximum(0, late.times - 0.03))  # shown already when they are looked at
    edges = [(round(one.start, 6), round(one.end, 6)) for one in spans(late, CLASSES, STEP)]
    assert edges == [(0.0, 1.97), (1.97, 2.37), (2.37, 4.4)]


def test_what_flashes_up_is_no_segment_and_divides_none():
    for count in (1, 2):
        (only,) = cut((CECUM, 20), (POLYP, count), (CECUM, 20))
        assert (only.label, only.start) == ("normal-cecum", 0.0)


def test_a_short_gap_in_which_nothing_is_seen_is_bridged_and_a_long_one_is_not():
    short, long = int(BRIDGED / STEP), int(BRIDGED / STEP) + 2
    for gap in (NOTHING, UNSURE):
        assert len(cut((POLYP, 10), (gap, short), (POLYP, 10))) == 1
        assert len(cut((POLYP, 10), (gap, long), (POLYP, 10))) == 2


def test_nothing_seen_is_no_segment():
    assert cut((NOTHING, 30)) == cut((UNSURE, 30)) == cut((POLYP, 2)) == []
