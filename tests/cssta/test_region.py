from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cssta.region import CONTEXT, WORTHWHILE, crop_region, hole_box


@given(st.data(), st.integers(1, 2000), st.integers(1, 2000))
def test_a_crop_holds_the_holes_with_context_and_is_worth_it(data, height, width):
    y0, y1 = sorted((data.draw(st.integers(0, height - 1)), data.draw(st.integers(1, height))))
    x0, x1 = sorted((data.draw(st.integers(0, width - 1)), data.draw(st.integers(1, width))))
    region = crop_region((y0, max(y1, y0 + 1), x0, max(x1, x0 + 1)), height, width)
    if region is None:
        return
    top, bottom, left, right = region
    assert 0 <= top <= max(0, y0 - CONTEXT) and min(height, y1 + CONTEXT) <= bottom <= height
    assert 0 <= left <= max(0, x0 - CONTEXT) and min(width, x1 + CONTEXT) <= right <= width
    assert (bottom - top) * (right - left) <= WORTHWHILE * height * width
    assert top % 4 == left % 4 == 0, "features lie as in the whole frame"


def test_a_logo_is_cropped_and_what_fills_most_of_the_frame_is_not():
    assert crop_region((400, 440, 660, 800), 480, 854) is not None
    assert crop_region((60, 420, 100, 700), 480, 854) is None


def test_the_box_around_all_holes():
    masks = np.zeros((3, 9, 8), bool)
    assert hole_box(masks) is None
    masks[0, 2, 7] = masks[2, 5, 1] = True
    assert hole_box(masks) == (2, 6, 1, 8)
    assert hole_box(~(masks & False)) == (0, 9, 0, 8)
