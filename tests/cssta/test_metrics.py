from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from cssta.metrics import PSNR_CAP, psnr, score_clip, ssim, warping_error
from tests.cssta.media import picture


def clip_pair(
    seed: int, frames: int = 2, height: int = 70, width: int = 91
) -> tuple[np.ndarray, np.ndarray]:
    """A smooth random clip and a noisy version of it."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
    truth = np.stack([cv2.GaussianBlur(frame, (0, 0), 2.0) for frame in truth])
    noisy = truth + rng.normal(0, 12, truth.shape)
    return np.clip(noisy.round(), 0, 255).astype(np.uint8), truth


def left_half(frames: int, height: int, width: int) -> np.ndarray:
    masks = np.zeros((frames, height, width), bool)
    masks[:, :, : width // 2] = True
    return masks


@pytest.mark.parametrize("window", [3, 7, 11, 65])
@pytest.mark.parametrize("seed", [0, 1])
def test_ssim_is_scikit_images(window, seed):
    result, truth = clip_pair(seed)
    expected = [
        structural_similarity(b, a, win_size=window, channel_axis=-1, data_range=255)
        for a, b in zip(result, truth, strict=True)
    ]
    np.testing.assert_allclose(ssim(result, truth, window), expected, rtol=0, atol=1e-6)


def test_ssim_window_is_scikit_images_default():
    result, truth = clip_pair(2)
    expected = [
        structural_similarity(b, a, channel_axis=-1, data_range=255)
        for a, b in zip(result, truth, strict=True)
    ]
    np.testing.assert_allclose(ssim(result, truth), expected, rtol=0, atol=1e-6)


@given(
    clips=hnp.arrays(np.uint8, (2, 1, 9, 12, 3)),
    flat=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_ssim_is_scikit_images_on_flat_and_extreme_frames(clips, flat):
    result, truth = clips
    if flat:
        truth = np.full_like(truth, truth[0, 0, 0, 0])
    expected = structural_similarity(
        truth[0], result[0], win_size=7, channel_axis=-1, data_range=255
    )
    assert ssim(result, truth, 7)[0] == pytest.approx(expected, abs=1e-6)


def test_psnr_is_scikit_images():
    result, truth = clip_pair(3, frames=3)
    expected = [
        peak_signal_noise_ratio(b, a, data_range=255) for a, b in zip(result, truth, strict=True)
    ]
    scores = psnr(result, truth)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-6)


def test_psnr_does_not_wrap_around():
    black, white = np.zeros((1, 8, 8, 3), np.uint8), np.full((1, 8, 8, 3), 255, np.uint8)
    assert psnr(black, white)[0] == pytest.approx(0)
    assert psnr(white, black)[0] == pytest.approx(0)


def test_hole_psnr_sees_the_hole_only():
    result, truth = clip_pair(4)
    masks = left_half(*truth.shape[:3])
    inside = [
        peak_signal_noise_ratio(b[m], a[m], data_range=255)
        for a, b, m in zip(result, truth, masks, strict=True)
    ]
    np.testing.assert_allclose(psnr(result, truth, masks), inside, rtol=0, atol=1e-6)
    outside_broken = np.where(masks[..., None], result, 255 - result)
    np.testing.assert_array_equal(psnr(outside_broken, truth, masks), psnr(result, truth, masks))


def test_hole_psnr_and_frame_psnr_differ_by_the_hole_share():
    result, truth = clip_pair(5)
    masks = left_half(*truth.shape[:3])
    composite = np.where(masks[..., None], result, truth)
    share = masks.mean(axis=(1, 2))
    gap = psnr(composite, truth) - psnr(composite, truth, masks)
    np.testing.assert_allclose(gap, -10 * np.log10(share), atol=1e-9)


def test_identical_is_inf_and_an_empty_hole_is_nan():
    _, truth = clip_pair(6)
    masks = left_half(*truth.shape[:3])
    masks[1] = False
    assert np.isposinf(psnr(truth, truth)).all()
    scores = psnr(truth, truth, masks)
    assert np.isposinf(scores[0])
    assert math.isnan(scores[1])
    np.testing.assert_allclose(ssim(truth, truth), 1)


def test_score_leaves_out_frames_without_a_hole():
    result, truth = clip_pair(7, frames=4)
    masks = left_half(*truth.shape[:3])
    masks[2:] = False
    composite = np.where(masks[..., None], result, truth)  # frames 2 and 3 are exact
    score = score_clip(composite, truth, masks)
    alone = score_clip(composite[:2], truth[:2], masks[:2])
    assert score == alone
    assert score["frames"] == 2
    assert score["capped"] == 0
    assert score["hole_ratio"] == pytest.approx(45 / 91)
    assert score["psnr"] == pytest.approx(psnr(composite[:2], truth[:2]).mean())
    assert score["hole_psnr"] == pytest.approx(psnr(composite, truth, masks)[:2].mean())
    assert score["ssim"] == pytest.approx(ssim(composite[:2], truth[:2]).mean())


def test_score_passes_the_window_on():
    result, truth = clip_pair(8)
    score = score_clip(result, truth, left_half(*truth.shape[:3]), window=65)
    assert score["ssim"] == pytest.approx(ssim(result, truth, 65).mean())


def test_score_caps_an_exact_frame_and_says_so():
    result, truth = clip_pair(9)
    result[0] = truth[0]
    masks = left_half(*truth.shape[:3])
    score = score_clip(result, truth, masks)
    assert score["capped"] == 1
    assert score["psnr"] == pytest.approx((PSNR_CAP + psnr(result, truth)[1]) / 2)
    assert math.isfinite(score["hole_psnr"])


def test_score_without_any_hole_is_nan_over_no_frames():
    _, truth = clip_pair(10)
    score = score_clip(truth, truth, np.zeros(truth.shape[:3], bool))
    assert score["frames"] == 0
    assert math.isnan(score["psnr"]) and math.isnan(score["hole_psnr"])


def test_a_better_result_scores_higher():
    result, truth = clip_pair(11)
    better = ((result.astype(int) + truth) // 2).astype(np.uint8)
    masks = left_half(*truth.shape[:3])
    worse_score, better_score = (score_clip(clip, truth, masks) for clip in (result, better))
    for key in ("psnr", "ssim", "hole_psnr"):
        assert better_score[key] > worse_score[key]


@pytest.mark.parametrize("window", [2, 8, 1, -7])
def test_ssim_refuses_an_odd_request(window):
    _, truth = clip_pair(12)
    with pytest.raises(ValueError, match="odd"):
        ssim(truth, truth, window)


def test_ssim_refuses_a_window_larger_than_the_frame():
    _, truth = clip_pair(12)
    with pytest.raises(ValueError, match="does not fit in 70x91"):
        ssim(truth, truth, 71)


def test_clips_and_masks_that_disagree_are_refused():
    result, truth = clip_pair(13)
    masks = left_half(*truth.shape[:3])
    with pytest.raises(ValueError, match="differ in shape"):
        psnr(result[:1], truth)
    with pytest.raises(ValueError, match="uint8"):
        psnr(result.astype(np.float32), truth)
    with pytest.raises(ValueError, match="masks must be bool"):
        psnr(result, truth, masks[:1])
    with pytest.raises(ValueError, match="masks must be bool"):
        score_clip(result, truth, masks.astype(np.uint8))


def camera_pan(frames: int = 4, height: int = 64, width: int = 80) -> np.ndarray:
    """A textured picture that moves 2 pixels to the left and 1 up per frame."""
    rng = np.random.default_rng(0)
    scene = picture(120, 140) + rng.normal(0, 12, (120, 140, 1)).cumsum(0).cumsum(1) % 40
    scene = np.clip(scene, 0, 255).astype(np.uint8)
    return np.stack([scene[t : t + height, 2 * t : 2 * t + width] for t in range(frames)])


def test_what_stands_still_does_not_flicker():
    still = camera_pan(1).repeat(4, axis=0)
    assert warping_error(still, still).tolist() == [0, 0, 0]
    assert warping_error(still // 3, still).tolist() == [0, 0, 0]
    assert warping_error(still[:1], still[:1]).shape == (0,)


def test_what_moves_with_the_truth_hardly_flickers():
    truth = camera_pan()
    steady = warping_error(truth, truth)
    assert steady.shape == (3,) and steady.max() < 1e-3
    # The same seen as standing still is far worse: the flow is used.
    assert warping_error(truth, truth[:1].repeat(4, axis=0)).min() > 10 * steady.max()


def test_flicker_is_measured_as_its_mean_square():
    truth = camera_pan(1).repeat(3, axis=0)
    result = np.full_like(truth, 100)
    result[1] += 51
    assert warping_error(result, truth) == pytest.approx([0.04, 0.04])
    masks = np.zeros(truth.shape[:3], bool)
    masks[1, :9], masks[2, 5, 5] = True, True
    result[2] = result[1]
    assert warping_error(result, truth, masks) == pytest.approx([0.04, 0])
    result[1, :9] -= 51
    assert warping_error(result, truth, masks) == pytest.approx([0, 0.04])
    assert np.isnan(warping_error(result, truth, masks & False)).all()


def test_what_the_frame_before_does_not_show_is_left_out():
    truth = camera_pan(2)
    result = truth.copy()
    result[1, :, -2:] = 255 - result[1, :, -2:]  # came in from outside the frame
    masks = np.zeros(truth.shape[:3], bool)
    masks[:, :, -1:] = True
    assert np.isnan(warping_error(result, truth, masks)).all()
    assert warping_error(result, truth)[0] < 5e-3


@pytest.mark.parametrize(("right", "down"), [(2, 1), (4, 0), (0, 3)])
def test_a_known_translation_gives_its_analytic_value(right, down):
    """A ramp that stands still in a panning scene: each step is off by slope times the pan."""
    rng = np.random.default_rng(0)
    scene = cv2.GaussianBlur(rng.integers(0, 256, (120, 140, 3), np.uint8), (0, 0), 1.5)
    scene = cv2.normalize(scene, None, 0, 255, cv2.NORM_MINMAX)
    truth = np.stack([scene[down * t :, right * t :][:64, :80] for t in range(3)])
    y, x = np.mgrid[:64, :80]
    ramp = (2 * x + y).astype(np.uint8)[None, ..., None].repeat(3, 0).repeat(3, 3)
    masks = np.zeros(truth.shape[:3], bool)
    masks[:, 16:48, 16:64] = True
    expected = ((2 * right + down) / 255) ** 2
    assert warping_error(ramp, truth, masks) == pytest.approx([expected] * 2, rel=0.02)
