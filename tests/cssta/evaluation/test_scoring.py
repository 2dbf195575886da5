"""Scores of sequences, and their means in both ways."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from cssta.evaluation.scoring import SequenceScore, hide, mean, score_sequence, timed


@pytest.fixture
def clip() -> tuple[np.ndarray, np.ndarray]:
    frames = np.random.default_rng(0).integers(0, 256, (3, 32, 40, 3), np.uint8)
    masks = np.zeros((3, 32, 40), bool)
    masks[:2, 8:16, 8:20] = True
    return frames, masks


def test_composited_and_equal_to_scikit_image(clip):
    frames, masks = clip
    result = 255 - frames  # wrong everywhere; only the hole may count
    score = score_sequence("a", "m", result, frames, masks, digest="d", window=7, seconds=2.0)
    merged = np.where(masks[..., None], result, frames)
    psnr = [peak_signal_noise_ratio(frames[t], merged[t], data_range=255) for t in (0, 1)]
    ssim = [
        structural_similarity(frames[t], merged[t], channel_axis=-1, data_range=255, win_size=7)
        for t in (0, 1)
    ]
    inside = [
        peak_signal_noise_ratio(frames[t][masks[t]], result[t][masks[t]], data_range=255)
        for t in (0, 1)
    ]
    assert score.psnr == pytest.approx(np.mean(psnr), abs=1e-6)
    assert score.ssim == pytest.approx(np.mean(ssim), abs=1e-6)
    assert score.hole_psnr == pytest.approx(np.mean(inside), abs=1e-6)
    assert (score.frames, score.holes, score.seconds) == (3, 2, 2.0)
    assert score.hole_ratio == pytest.approx(96 / (32 * 40))
    assert score.warping_error > 0


def test_a_static_video_that_is_completed_alike_does_not_flicker():
    frames = np.repeat(np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8), 4, 0)
    masks = np.zeros((4, 64, 64), bool)
    masks[:, 20:40, 20:40] = True
    result = np.where(masks[..., None], np.uint8(90), frames)
    score = score_sequence("a", "m", result, frames, masks, digest="d", window=7)
    assert score.warping_error == 0 and math.isnan(score.seconds)
    result[2, 20:40, 20:40] = 141  # 51 / 255 = 0.2 up and down again: 0.04 twice of three
    score = score_sequence("a", "m", result, frames, masks, digest="d", window=7)
    assert score.warping_error == pytest.approx(1000 * 0.08 / 3)


def test_methods_are_not_shown_what_they_have_to_find(clip):
    frames, masks = clip
    seen = {}

    def complete(given, holes):
        seen["frames"] = given
        return given

    timed(complete, frames, masks)
    assert (seen["frames"][masks] == 127).all()
    assert (seen["frames"][~masks] == frames[~masks]).all()
    assert (hide(frames, masks) == seen["frames"]).all()


def score(holes: int, value: float, method: str = "m") -> SequenceScore:
    return SequenceScore("s", method, 10, holes, 0.1, "d", value, value, value, value, value)


def test_pooled_over_frames_or_over_sequences():
    scores = [score(9, 20.0), score(1, 30.0), score(0, math.nan)]
    pooled, plain = mean(scores, pooled=True), mean(scores, pooled=False)
    assert pooled.psnr == pooled.ssim == pooled.warping_error == pytest.approx(21)
    assert plain.psnr == plain.hole_psnr == pytest.approx(25)
    assert (pooled.sequences, pooled.frames) == (2, 10)
    assert pooled.seconds == plain.seconds == pytest.approx(25)  # per video, always


def test_single_frames_have_no_warping_error_but_all_else():
    scores = [replace(score(1, 20.0), warping_error=math.nan), score(1, 30.0)]
    assert mean(scores, pooled=False).warping_error == 30
    assert math.isnan(mean([score(0, math.nan)], pooled=True).psnr)


def test_means_of_several_methods_or_none_are_refused():
    for scores in ([score(1, 1.0, "a"), score(1, 1.0, "b")], []):
        with pytest.raises(ValueError, match="one method"):
            mean(scores, pooled=True)
