from __future__ import annotations

import math

import numpy as np
import pytest

from cssta.video import VideoError, open_source
from cssta.video.boxes import Box, BoxMasks
from tests.cssta.media import clip, make_video


@pytest.fixture(scope="module")
def info(tmp_path_factory):
    path = tmp_path_factory.mktemp("boxes") / "a.mp4"
    return open_source(make_video(path, clip(10, 48, 64), fps=5, rotation=90)).info


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("1,2,30,40", Box(1, 2, 30, 40)),
        ("-5, 0, 10, 10", Box(-5, 0, 10, 10)),
        ("1,2,3,4@0.5-2", Box(1, 2, 3, 4, 0.5, 2.0)),
        ("1,2,3,4@.5-", Box(1, 2, 3, 4, 0.5, math.inf)),
        ("1,2,3,4@-2.", Box(1, 2, 3, 4, 0.0, 2.0)),
    ],
)
def test_boxes_are_read(text, box):
    assert Box.parse(text) == box


@pytest.mark.parametrize(
    "text", ["", "1,2,3", "1,2,3,4,5", "1,2,0,4", "a,b,c,d", "1,2,3,4@", "1,2,3,4@-", "1,2,3,4@2-1"]
)
def test_what_is_no_box_is_refused(text):
    with pytest.raises(ValueError):
        Box.parse(text)


def test_a_box_is_drawn_upright_in_its_time(info):
    boxes = (Box(4, 50, 8, 6), Box(-3, -3, 5, 5, start=0.4, end=0.8))
    masks = list(BoxMasks(boxes, info).masks(0, 10))
    assert masks[0].shape == (64, 48)
    for number, mask in enumerate(masks):
        expected = np.zeros((64, 48), bool)
        expected[50:56, 4:12] = True
        if 2 <= number <= 4:  # 0.4, 0.6 and 0.8 seconds
            expected[:2, :2] = True
        np.testing.assert_array_equal(mask, expected)
    picked = BoxMasks(boxes, info).pick([3, 9])
    assert (picked[3] == masks[3]).all() and (picked[9] == masks[9]).all()


def test_a_still_box_is_one_array(info):
    masks = list(BoxMasks((Box(1, 1, 2, 2),), info).masks(0, 10))
    assert all(mask is masks[0] for mask in masks)


@pytest.mark.parametrize("box", [Box(48, 0, 5, 5), Box(0, 64, 5, 5), Box(-5, 0, 5, 5)])
def test_a_box_outside_the_picture_is_refused(info, box):
    with pytest.raises(VideoError, match="48x64") as caught:
        BoxMasks((box,), info)
    assert caught.value.reason == "mask-size"
