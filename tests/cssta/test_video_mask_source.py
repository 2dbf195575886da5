from __future__ import annotations

import cv2
import numpy as np
import pytest

from cssta.masks import dilate
from cssta.video import Box, MaskSpec, VideoError, open_masks, open_source, write_frame_folder
from tests.cssta.media import clip, make_video

FRAMES, HEIGHT, WIDTH = 6, 48, 64
SHOT = clip(FRAMES, HEIGHT, WIDTH)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("masked") / "a.mp4"
    return open_source(make_video(path, SHOT))


@pytest.fixture
def folder(tmp_path):
    masks = np.zeros((FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    for number in range(FRAMES):
        masks[number, 8:20, 8 * number : 8 * number + 8] = 255
    return write_frame_folder(tmp_path / "m", masks)


def test_masks_are_bool_one_per_frame_and_locked(source, folder):
    masks = open_masks(MaskSpec(folder), source)
    assert masks.length == FRAMES and "above 0" in masks.description
    all_masks = list(masks.masks())
    assert [np.flatnonzero(mask.any(axis=0))[0] // 8 for mask in all_masks] == list(range(6))
    assert all(mask.dtype == bool and mask.shape == (HEIGHT, WIDTH) for mask in all_masks)
    with pytest.raises(ValueError):
        all_masks[0][0, 0] = True
    picked = masks.pick([4, 1])
    assert sorted(picked) == [1, 4]
    np.testing.assert_array_equal(picked[4], all_masks[4])
    np.testing.assert_array_equal(list(masks.masks(2, 4)), all_masks[2:4])


def test_holes_are_inverted_then_grown(source, folder):
    plain = np.stack(list(open_masks(MaskSpec(folder), source).masks()))
    for invert in (False, True):
        spec = MaskSpec(folder, invert=invert, dilate=3)
        found = np.stack(list(open_masks(spec, source).masks()))
        np.testing.assert_array_equal(found, dilate(plain ^ invert, 3))


def test_files_and_boxes_are_united(source, folder):
    spec = MaskSpec(folder, boxes=(Box(0, 40, 64, 4, end=0.05),))
    plain = list(open_masks(MaskSpec(folder), source).masks())
    for number, mask in enumerate(open_masks(spec, source).masks()):
        expected = plain[number].copy()
        expected[40:44] |= number < 2
        np.testing.assert_array_equal(mask, expected)


def test_a_still_mask_is_worked_out_once(source, tmp_path):
    cv2.imwrite(str(tmp_path / "m.png"), np.eye(HEIGHT, WIDTH, dtype=np.uint8) * 255)
    masks = open_masks(MaskSpec(tmp_path / "m.png", dilate=2), source)
    assert masks.length is None
    found = list(masks.masks())
    assert len(found) == FRAMES and all(mask is found[0] for mask in found)


@pytest.mark.parametrize("threshold", [None, 10])
def test_transparent_parts_of_the_video_itself(tmp_path, threshold):
    frames = np.concatenate([SHOT, np.full((*SHOT.shape[:3], 1), 255, np.uint8)], axis=-1)
    frames[:, 16:32, 16:40, 3] = 0
    frames[:, 16:32, 40:48, 3] = 100
    path = make_video(tmp_path / "a.mov", frames, codec="qtrle", pix_fmt="argb")
    source = open_source(path)
    masks = open_masks(MaskSpec(alpha=True, threshold=threshold), source)
    expected = frames[..., 3] <= (127 if threshold is None else threshold)
    np.testing.assert_array_equal(list(masks.masks()), expected)
    np.testing.assert_array_equal(masks.pick([3])[3], expected[3])


def test_what_cannot_be_is_refused(source):
    with pytest.raises(VideoError, match="no alpha channel") as caught:
        open_masks(MaskSpec(alpha=True), source)
    assert caught.value.reason == "format"
    for arguments in ({}, {"alpha": True, "threshold": 255}, {"alpha": True, "dilate": -1}):
        with pytest.raises(ValueError):
            MaskSpec(**arguments)


def test_masks_are_read_one_at_a_time(source, folder):
    masks = open_masks(MaskSpec(folder), source).masks()
    next(masks)
    (folder / "00003.png").unlink()
    next(masks), next(masks)
    with pytest.raises(VideoError) as caught:
        next(masks)
    assert caught.value.reason == "missing"
