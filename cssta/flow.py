"""Dense optical flow between neighbouring frames (Kroeger et al. 2016: dense inverse search).

On true frames for the temporal loss; across holes for `cssta.propagation`.

Shapes: N frame pairs, H and W image size; flow in pixels, (dx, dy).
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# Below this the estimator's patches do not fit.
SMALLEST = 16
# The quick estimator reads beyond its memory then, and may take the process with it.
SMALLEST_QUICK = 32


def estimate_flow(start: np.ndarray, end: np.ndarray, *, fine: bool = False) -> np.ndarray:
    """Where each pixel of `start` went in `end`, both grey uint8 (H, W) -> float32 (H, W, 2).

    Carefully, where `backward_flow` is quick; `fine`: at full instead of half resolution, for
    over four times the time. Zero for frames with a side under 16 pixels.
    """
    if min(start.shape) < SMALLEST:
        return np.zeros((*start.shape, 2), np.float32)
    estimator = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    estimator.setFinestScale(0 if fine else 1)
    return estimator.calc(start, end, None)


def backward_flow(current: np.ndarray, previous: np.ndarray) -> np.ndarray:
    """Flow from `current` to `previous`, both uint8 (H, W, 3) RGB -> float32 (H, W, 2)."""
    estimator = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (current, previous)]
    height, width = grey[0].shape
    missing = (0, max(0, SMALLEST_QUICK - height), 0, max(0, SMALLEST_QUICK - width))
    if any(missing):
        grey = [cv2.copyMakeBorder(frame, *missing, cv2.BORDER_REPLICATE) for frame in grey]
    return estimator.calc(grey[0], grey[1], None)[:height, :width]


def warp(frames: Tensor, flow: Tensor) -> Tensor:
    """Sample (N, C, H, W) at each pixel plus `flow` (N, 2, H, W); the border is repeated."""
    _, _, height, width = frames.shape
    y, x = torch.meshgrid(
        torch.arange(height, device=frames.device, dtype=frames.dtype),
        torch.arange(width, device=frames.device, dtype=frames.dtype),
        indexing="ij",
    )
    grid_x = (x + flow[:, 0]) * (2 / max(width - 1, 1)) - 1
    grid_y = (y + flow[:, 1]) * (2 / max(height - 1, 1)) - 1
    grid = torch.stack([grid_x, grid_y], dim=-1)
    return F.grid_sample(frames, grid, padding_mode="border", align_corners=True)


def visibility(current: Tensor, previous_warped: Tensor, sharpness: float = 50.0) -> Tensor:
    """How far the flow can be trusted (Lai et al. 2018): exp(-sharpness * squared colour distance).

    Frames (N, 3, H, W) in [-1, 1], taken to [0, 1] first; -> (N, 1, H, W) in (0, 1]. The squares
    are summed over channels: signed differences would cancel.
    """
    distance = ((current - previous_warped) / 2).square().sum(dim=1, keepdim=True)
    return torch.exp(-sharpness * distance)
