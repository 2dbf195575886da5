"""How close a completed clip is to the true one: PSNR, SSIM, hole-only PSNR; how steady it is.

T, H, W: frames, height, width. Clips are uint8 (T, H, W, 3) RGB, masks bool (T, H, W), True = hole.
Every function scores frame by frame; `score_clip` averages, and says over how many frames.

A whole-frame PSNR mostly says how small the hole was, so the hole-only PSNR goes beside it. A frame
without a hole is returned untouched: its infinite PSNR says nothing and never enters a mean.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypedDict

import cv2
import numpy as np

from cssta.flow import backward_flow

PSNR_CAP = 100.0  # dB: what a frame as good as exact counts for in a mean
PEAK = 255.0
K1, K2 = 0.01, 0.03  # SSIM's stabilisers
Move = tuple[np.ndarray, np.ndarray]  # flow to the frame before, and where both show the same


class Score(TypedDict):
    """Means over the `frames` of a clip that have a hole; nan where there is none."""

    psnr: float  # dB, whole frame
    ssim: float  # whole frame
    hole_psnr: float  # dB, the hole's pixels
    hole_ratio: float  # the hole's share of the frame, 0 to 1
    frames: int  # how many frames have a hole
    capped: int  # how many of them have a PSNR above PSNR_CAP, inf included, counted as the cap


def score_clip(
    result: np.ndarray, truth: np.ndarray, masks: np.ndarray, *, window: int = 7
) -> Score:
    """Mean scores of a completed clip against the true one, over the frames with a hole.

    `window`: SSIM's side in pixels; video inpainting papers quote 65 at 432x240. Raises ValueError
    if shapes or types disagree, or the window is larger than the frame.
    """
    check_clips(result, truth)
    masks = check_masks(masks, truth)
    holes = masks.any(axis=(1, 2))
    frames = int(holes.sum())
    if frames == 0:
        nan = math.nan
        return Score(psnr=nan, ssim=nan, hole_psnr=nan, hole_ratio=nan, frames=0, capped=0)
    result, truth, masks = result[holes], truth[holes], masks[holes]
    whole = psnr(result, truth)
    inside = psnr(result, truth, masks)
    return Score(
        psnr=float(np.minimum(whole, PSNR_CAP).mean()),
        ssim=float(ssim(result, truth, window).mean()),
        hole_psnr=float(np.minimum(inside, PSNR_CAP).mean()),
        hole_ratio=float(masks.mean()),
        frames=frames,
        capped=int((np.maximum(whole, inside) > PSNR_CAP).sum()),
    )


def psnr(result: np.ndarray, truth: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Peak signal-to-noise ratio of every frame, in dB: float64 (T,).

    With `mask`, over the hole's pixels only; nan for a frame without one. Identical pixels give
    inf. Raises ValueError if shapes or types disagree.
    """
    check_clips(result, truth)
    if mask is not None:
        mask = check_masks(mask, truth)
    errors = np.empty(len(truth))
    for index, (got, want) in enumerate(zip(result, truth, strict=True)):
        squares = np.square(got.astype(np.int32) - want)
        if mask is not None:
            squares = squares[mask[index]]
        errors[index] = squares.mean() if squares.size else math.nan
    with np.errstate(divide="ignore"):
        return 10 * np.log10(PEAK**2 / errors)


def ssim(result: np.ndarray, truth: np.ndarray, window: int = 7) -> np.ndarray:
    """Structural similarity of every frame, mean over pixels and channels: float64 (T,).

    Uniform `window` x `window` with sample covariance, scored where the window fits in the frame:
    scikit-image's `structural_similarity(..., channel_axis=-1, data_range=255, win_size=window)`.
    Raises ValueError if shapes or types disagree, or for an even or too large window.
    """
    check_clips(result, truth)
    _, height, width, _ = truth.shape
    if window < 3 or window % 2 == 0:
        raise ValueError(f"SSIM's window must be an odd number of 3 or more pixels, not {window}")
    if window > min(height, width):
        raise ValueError(
            f"SSIM's window of {window} pixels does not fit in {height}x{width} frames; "
            f"choose a smaller window"
        )
    scores = [frame_ssim(*pair, window) for pair in zip(result, truth, strict=True)]
    return np.array(scores, dtype=np.float64)


def frame_ssim(result: np.ndarray, truth: np.ndarray, window: int) -> float:
    """SSIM of one frame (H, W, 3) uint8."""
    x, y = result.astype(np.float64), truth.astype(np.float64)
    edge = window // 2

    def local_mean(picture: np.ndarray) -> np.ndarray:
        return cv2.blur(picture, (window, window))[edge:-edge, edge:-edge]

    mean_x, mean_y = local_mean(x), local_mean(y)
    sample = window**2 / (window**2 - 1)
    squares = sample * (local_mean(x * x + y * y) - mean_x**2 - mean_y**2)
    product = sample * (local_mean(x * y) - mean_x * mean_y)
    c1, c2 = (K1 * PEAK) ** 2, (K2 * PEAK) ** 2
    similarity = (2 * mean_x * mean_y + c1) * (2 * product + c2)
    similarity /= (mean_x**2 + mean_y**2 + c1) * (squares + c2)
    return float(similarity.mean())


def warping_error(
    result: np.ndarray,
    truth: np.ndarray,
    mask: np.ndarray | None = None,
    moves: Sequence[Move] | None = None,
) -> np.ndarray:
    """How much of every frame flickers against the one before (Lai et al. 2018): float64 (T - 1,).

    The frame before is warped by the true clip's optical flow; the error is the mean square of
    what differs, values taken to [0, 1], over the pixels that both frames show (the flow there and
    the flow back agree: Ruder et al. 2016). Often quoted times 1000. With `mask`, over the hole's
    pixels only; nan where none is left. Zero for whatever stands still or moves with the truth.
    `moves`: `movement(truth)`, where several results are scored against one truth. Raises
    ValueError if shapes or types disagree.
    """
    check_clips(result, truth)
    if mask is not None:
        mask = check_masks(mask, truth)
    errors = np.empty(max(0, len(truth) - 1))
    for index, (flow, seen) in enumerate(movement(truth) if moves is None else moves, start=1):
        if mask is not None:
            seen = seen & mask[index]
        warped = _warp(result[index - 1].astype(np.float32), flow)
        squares = np.square((result[index] - warped) / PEAK)[seen]
        errors[index - 1] = squares.mean(dtype=np.float64) if squares.size else math.nan
    return errors


def movement(truth: np.ndarray) -> list[Move]:
    """What `warping_error` has to know of a true clip: one `Move` per frame but the first."""
    return [_flow_and_seen(*pair) for pair in zip(truth[1:], truth[:-1], strict=True)]


def _flow_and_seen(current: np.ndarray, previous: np.ndarray) -> Move:
    """Flow (H, W, 2) from `current` to `previous`, and bool (H, W) where both show the same."""
    flow = backward_flow(current, previous)
    back = _warp(backward_flow(previous, current), flow)
    apart = np.square(flow + back).sum(axis=2)
    lengths = np.square(flow).sum(axis=2) + np.square(back).sum(axis=2)
    height, width = apart.shape
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    x, y = x + flow[..., 0], y + flow[..., 1]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    return flow, inside & (apart <= 0.01 * lengths + 0.5)


def _warp(picture: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Sample (H, W, C) at each pixel plus `flow`."""
    height, width = flow.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return cv2.remap(
        picture,
        x + flow[..., 0],
        y + flow[..., 1],
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )


def check_clips(result: np.ndarray, truth: np.ndarray) -> None:
    """Raise ValueError unless both are uint8 (T, H, W, 3) of one shape."""
    for name, clip in (("result", result), ("truth", truth)):
        if clip.ndim != 4 or clip.shape[-1] != 3 or clip.dtype != np.uint8:
            raise ValueError(
                f"{name} must be uint8 (T, H, W, 3), not {clip.dtype} {tuple(clip.shape)}"
            )
    if result.shape != truth.shape:
        raise ValueError(f"result {result.shape} and truth {truth.shape} differ in shape")


def check_masks(masks: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The masks, once they are known to be bool (T, H, W) like `truth`; else ValueError."""
    if masks.shape != truth.shape[:3] or masks.dtype != bool:
        raise ValueError(
            f"masks must be bool {truth.shape[:3]} like the clip, not {masks.dtype} {masks.shape}"
        )
    return masks
