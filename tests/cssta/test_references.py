from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cssta.references import ReferencePlan

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
    chosen = plan.for_target(target, plan.spread(length), range(length))
    near = {target + s * offset for offset in plan.near for s in (-1, 1)}
    wanted = {i for i in near if 0 <= i < length} | set(plan.spread(length))
    assert chosen == sorted(wanted - {target})


def test_six_references_by_default():
    plan = ReferencePlan()
    assert len(plan.for_target(50, plan.spread(100), range(100))) == 6
    for target in range(40, 1000):
        far = plan.gathered(target, 2000)
        assert 3 <= len(far) <= 4 and len(plan.for_target(target, far, range(2000))) <= 6


@pytest.mark.parametrize("length", [1, 2])
def test_short_clips(length):
    plan = ReferencePlan()
    assert plan.for_target(0, plan.spread(length), range(length)) == list(range(1, length))


@given(plans, st.integers(0, 3000), st.integers(1, 40))
def test_what_is_gathered_in_one_pass(plan, target, more):
    chosen = plan.gathered(target, target + more)
    assert len(chosen) <= plan.far and target not in chosen
    assert all(0 <= n < target + more and n <= target + plan.ahead for n in chosen)
    if plan.far > 1 and more > plan.ahead:
        assert max(chosen) > target, "something that is still to come"
    passed = [n for n in chosen if n < target]
    if plan.far and target:
        # Evenly from the whole past; at least half of what there is room for.
        room = plan.far - (plan.far + 2) // 4
        assert len(passed) >= min(target, room // 2)
        assert passed[:1] == [0] and len(set(np.diff(passed))) <= 1


@given(plans, st.integers(0, 3000), st.integers(1, 50))
def test_what_is_no_longer_far_never_is_again(plan, target, later):
    chosen = plan.gathered(target + later, target + later + 1)
    step = plan.step(target)
    assert all(n > target or n % step == 0 for n in chosen)
