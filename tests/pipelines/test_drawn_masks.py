"""Masks by seed: the same by whatever way, in bounded memory, forth and back."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from cssta.masks import freeform_masks
from pipelines.drawn_masks import DrawnMasks


def test_short_videos_have_the_masks_of_their_seed():
    drawn = DrawnMasks(3, 12, 40, 50, (0.1, 0.2))
    expected = freeform_masks(np.random.default_rng(3), 12, 40, 50, ratio=(0.1, 0.2))
    assert (np.stack(list(drawn.masks())) == expected).all()
    assert (np.stack(list(drawn.masks(4, 9))) == expected[4:9]).all()
    assert (drawn.pick([7])[7] == expected[7]).all()


def test_long_videos_have_them_forth_and_back():
    drawn = DrawnMasks(3, 20, 40, 50, (0.1, 0.2), most_bytes=5 * 40 * 50)
    masks = list(drawn.masks())
    order = [0, 1, 2, 3, 4, 3, 2, 1]
    for index, mask in enumerate(masks):
        assert (mask == masks[order[index % 8]]).all()


def test_one_mask_may_be_all_there_is():
    drawn = DrawnMasks(3, 3, 40, 50, (0.1, 0.2), most_bytes=1)
    assert len(list(drawn.masks())) == 3


@pytest.mark.parametrize("seed", range(4))  # (of which some have one mask that stays)
def test_drawing_takes_no_more_memory_than_is_said(seed: int):
    most = 40 * 120 * 160
    DrawnMasks(seed, 2, 120, 160, (0.1, 0.2))
    tracemalloc.start()
    try:
        DrawnMasks(seed, 10**6, 120, 160, (0.1, 0.2), most_bytes=most)
        assert tracemalloc.get_traced_memory()[1] < 1.5 * most
    finally:
        tracemalloc.stop()
