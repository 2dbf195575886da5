"""Baselines: they never see the hole, change nothing else, and find what there is to find."""

from __future__ import annotations

import numpy as np
import pytest

from cssta.evaluation.baselines import aligned_copy, flow_guided, nearest_visible, telea
from cssta.metrics import psnr

ALL = (telea, nearest_visible, aligned_copy, flow_guided)


@pytest.fixture(scope="module")
def scene() -> tuple[np.ndarray, np.ndarray]:
    """A camera panning over texture by 3 pixels a frame, with a hole that stands still."""
    import cv2

    rng = np.random.default_rng(1)
    wide = cv2.GaussianBlur(rng.integers(0, 256, (96, 200, 3), np.uint8), (0, 0), 2)
    wide = cv2.normalize(wide, None, 0, 255, cv2.NORM_MINMAX)
    frames = np.stack([wide[:, 3 * t : 3 * t + 128] for t in range(10)])
    masks = np.zeros(frames.shape[:3], bool)
    masks[:, 40:56, 56:70] = True
    return frames, masks


@pytest.mark.parametrize("method", ALL)
def test_only_the_hole_changes_and_what_it_held_does_not_matter(method, scene):
    frames, masks = scene[0][:6], scene[1][:6].copy()
    masks[3] = False
    results = []
    for hidden in (0, 255):
        given = np.where(masks[..., None], np.uint8(hidden), frames)
        kept = given.copy()
        result = method(given, masks)
        assert (given == kept).all(), "the input was written into"
        assert result.dtype == np.uint8 and (result[~masks] == frames[~masks]).all()
        results.append(result)
    assert (results[0] == results[1]).all()


def test_nearest_takes_the_nearest_frame_that_sees_the_pixel():
    frames = np.stack([np.full((8, 8, 3), 10 * t, np.uint8) for t in range(6)])
    masks = np.zeros((6, 8, 8), bool)
    masks[1:4, 2, 2] = True  # seen in 0 and 4
    masks[3:, 5, 5] = True  # never again after 2
    masks[:, 7, 0] = True  # never
    result = nearest_visible(np.where(masks[..., None], np.uint8(255), frames), masks)
    assert [int(v) for v in result[1:4, 2, 2, 0]] == [0, 0, 40]  # frame 2: the earlier of two
    assert [int(v) for v in result[3:, 5, 5, 0]] == [20, 20, 20]
    assert (result[:, 7, 0, 0] == 10 * np.arange(6)).all(), "Telea, where no frame sees it"


def test_what_follows_the_camera_finds_the_true_pixels(scene):
    frames, masks = scene
    hidden = np.where(masks[..., None], np.uint8(127), frames)
    scores = {m.__name__: psnr(m(hidden, masks), frames, masks).mean() for m in ALL}
    assert scores["aligned_copy"] > 30 and scores["flow_guided"] > 28, scores
    # (The hole stands still: without following the camera there is nothing to be found.)
    assert scores["nearest_visible"] == scores["telea"] < 24, scores


def test_a_scene_without_features_falls_back():
    frames = np.full((3, 32, 32, 3), 80, np.uint8)
    masks = np.zeros((3, 32, 32), bool)
    masks[:, 10:20, 10:20] = True
    hidden = np.where(masks[..., None], np.uint8(0), frames)
    for method in ALL:
        assert np.abs(method(hidden, masks).astype(int) - 80).max() <= 3, method.__name__


def test_single_frames():
    frames = np.full((1, 32, 32, 3), 80, np.uint8)
    masks = np.zeros((1, 32, 32), bool)
    masks[0, 10:20, 10:20] = True
    for method in ALL:
        assert method(frames, masks).shape == frames.shape
