from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cssta.references import ReferencePlan, frames_with_hole

plans = st.builds(
    ReferencePlan,
    far=st.integers(0, 9),
    near=st.lists(st.integers(1, 5), max_size=3, unique=True).map(tuple),
)


@given(plans, st.integers(1, 5000))
def test_far_references_cover_the_whole_clip_evenly(plan, length):
    chosen = plan.spread(length)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(plan.far, length)
    assert all(0 <= index < length for index in chosen)
    if chosen:
        gaps = np.diff([-chosen[0] - 1, *chosen, 2 * length - 1 - chosen[-1]])
        assert gaps.max() <= 2 * length / len(chosen) + 2
        assert chosen[0] - (length - 1 - chosen[-1]) in (-1, 0, 1), "no end is favoured"


@given(plans, st.integers(1, 200), st.data())
def test_a_target_sees_its_neighbours_and_never_itself(plan, length, data):
    target = data.draw(st.integers(0, length - 1))
    chosen = plan.for_targets([target], length)
    near = {target + s * offset for offset in plan.near for s in (-1, 1)}
    wanted = {i for i in near if 0 <= i < length} | set(plan.spread(length))
    assert chosen == sorted(wanted - {target})


def test_a_batch_shares_what_each_of_its_targets_needs():
    plan = ReferencePlan(far=2, near=(3,))
    together = plan.for_targets([10, 11], 100)
    assert together == [7, 8, 13, 14, 25, 75]
    assert set(together) >= {*plan.for_targets([10], 100), *plan.for_targets([11], 100)}


def test_six_references_by_default():
    assert len(ReferencePlan().for_targets([50], 100)) == 6


@pytest.mark.parametrize("length", [1, 2])
def test_short_clips(length):
    assert ReferencePlan().for_targets([0], length) == list(range(1, length))


def test_frames_with_hole():
    masks = np.zeros((4, 2, 3), bool)
    masks[1, 0, 0] = masks[3] = True
    assert frames_with_hole(masks) == [1, 3]
    assert frames_with_hole(masks[:1]) == []
