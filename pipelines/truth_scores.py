"""Scores of a video whose masks were drawn, so that what they hide is known."""

from __future__ import annotations

import numpy as np

from cssta.metrics import score_clip

SSIM_WINDOW = 7
SCORES = ("psnr", "ssim", "hole_psnr")


class Scores:
    """Sums of `score_clip` over frames with a hole, where the truth is known."""

    def __init__(self) -> None:
        self.sums = dict.fromkeys((*SCORES, "frames"), 0.0)

    def add(self, result: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> None:
        """Frames (H, W, 3) and mask bool (H, W); what is too small for SSIM adds nothing."""
        if not mask.any() or min(mask.shape) < SSIM_WINDOW:
            return
        if truth.dtype == np.uint16:
            result, truth = ((picture >> 8).astype(np.uint8) for picture in (result, truth))
        score = score_clip(result[None], truth[None], mask[None], window=SSIM_WINDOW)
        for key in SCORES:
            self.sums[key] += float(score[key])
        self.sums["frames"] += 1
