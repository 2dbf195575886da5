"""Scores of one sequence by one method, and their means."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cssta.evaluation.methods import Complete
from cssta.evaluation.perceptual import Perception
from cssta.metrics import Move, score_clip, warping_error

METRICS = ("psnr", "ssim", "hole_psnr", "warping_error", "lpips")
HIDDEN = np.uint8(127)  # what a method sees where it has to find something


@dataclass(frozen=True)
class SequenceScore:
    """Of one sequence: `holes` of its `frames` have a hole, which covers `hole_ratio` of these.

    `psnr` and `hole_psnr` in dB and `ssim` are means over frames with a hole, whole composited
    frame or its hole. `warping_error` is the hole's, 1000 times mean squares in [0, 1]. Nan where
    nothing could be scored. `seconds`: the method's own time; nan for results from a folder.
    `lpips`: like `ssim`, less is better; nan without weights.
    """

    sequence: str
    method: str
    frames: int
    holes: int
    hole_ratio: float
    masks: str
    psnr: float
    ssim: float
    hole_psnr: float
    warping_error: float
    seconds: float
    lpips: float = math.nan

    @property
    def seconds_per_frame(self) -> float:
        """Of all its frames, with a hole or without."""
        return self.seconds / self.frames if self.frames else math.nan


def composite(result: np.ndarray, truth: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """The result inside the holes, the truth outside: uint8 (T, H, W, 3)."""
    return np.where(masks[..., None], result, truth)


def hide(frames: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Frames without what has to be found."""
    return np.where(masks[..., None], HIDDEN, frames)


def timed(complete: Complete, frames: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, float]:
    """The completed clip and the seconds that it took."""
    hidden = hide(frames, masks)
    started = time.perf_counter()
    result = complete(hidden, masks)
    return result, time.perf_counter() - started


def score_sequence(
    sequence: str,
    method: str,
    result: np.ndarray,
    truth: np.ndarray,
    masks: np.ndarray,
    *,
    digest: str,
    window: int,
    seconds: float = math.nan,
    perception: Perception | None = None,
    moves: Sequence[Move] | None = None,
) -> SequenceScore:
    """Score a result, uint8 (T, H, W, 3), against the truth; composited first.

    `digest`: of the masks; `window`: SSIM's; `perception`: for LPIPS; `moves`: `movement(truth)`,
    where it is known already. Raises ValueError if shapes or types disagree.
    """
    merged = composite(result, truth, masks)
    scored = score_clip(merged, truth, masks, window=window)
    flicker = warping_error(merged, truth, masks, moves)
    flicker = flicker[np.isfinite(flicker)]
    lpips = perception.lpips if perception else None
    return SequenceScore(
        sequence=sequence,
        method=method,
        frames=len(truth),
        holes=scored["frames"],
        hole_ratio=scored["hole_ratio"],
        masks=digest,
        psnr=scored["psnr"],
        ssim=scored["ssim"],
        hole_psnr=scored["hole_psnr"],
        warping_error=1000 * float(flicker.mean()) if flicker.size else math.nan,
        seconds=seconds,
        lpips=math.nan if lpips is None else lpips(merged, truth, masks),
    )


@dataclass(frozen=True)
class Mean:
    """Of one method over all sequences; `pooled`: over all frames, else of the sequences' means."""

    method: str
    pooled: bool
    sequences: int
    frames: int
    hole_ratio: float
    psnr: float
    ssim: float
    hole_psnr: float
    warping_error: float
    lpips: float
    seconds: float
    seconds_per_frame: float


def mean(scores: Sequence[SequenceScore], *, pooled: bool) -> Mean:
    """The mean of one method's scores; sequences without a hole count nowhere.

    Seconds are per video, or per frame of all videos, always. Raises ValueError for scores
    of several methods, or of none.
    """
    methods = {score.method for score in scores}
    if len(methods) != 1:
        raise ValueError(f"a mean is of one method, not of {sorted(methods)}")
    scored = [score for score in scores if score.holes]

    def average(key: str) -> float:
        values = np.array([getattr(score, key) for score in scored], float)
        weights = np.array([score.holes if pooled else 1 for score in scored], float)
        there = np.isfinite(values)
        return float(np.average(values[there], weights=weights[there])) if there.any() else math.nan

    timed_ = [score for score in scores if math.isfinite(score.seconds)]
    seconds, frames = (sum(getattr(s, key) for s in timed_) for key in ("seconds", "frames"))
    return Mean(
        methods.pop(),
        pooled,
        len(scored),
        sum(score.holes for score in scored),
        average("hole_ratio"),
        *(average(key) for key in METRICS),
        seconds / len(timed_) if timed_ else math.nan,
        seconds / frames if frames else math.nan,
    )
