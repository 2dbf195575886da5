"""Following hole pixels along optical flow to the first frame that sees them.

Shapes: n pixels followed; H and W frame size, h and w size of the flow, which may be smaller.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

ROW = 4096  # cv2.remap takes maps of fewer than 32768 columns


@dataclass(frozen=True)
class Step:
    """From one frame to its neighbour: flow float32 (h, w, 2) there and back, in pixels of the
    flow's own size, and the neighbour's frame (H, W, 3) and hole bool (H, W)."""

    there: np.ndarray
    back: np.ndarray
    frame: np.ndarray
    hole: np.ndarray


@dataclass(frozen=True)
class Trace:
    """What was found for each pixel.

    Attributes:
        colours: float32 (n, 3), where seen.
        steps: frames from here to there, float32 (n,); infinite for a pixel that was not seen.
        error: by how many pixels the flows there and back disagreed in all, float32 (n,).
    """

    colours: np.ndarray
    steps: np.ndarray
    error: np.ndarray


def trace(x: np.ndarray, y: np.ndarray, path: Iterable[Step], tolerance: float) -> Trace:
    """Follow pixels at (x, y) along `path` until each is seen or lost.

    A pixel is lost where it leaves the frame or its flows there and back disagree, summed over the
    way, by `tolerance` pixels. The path is consumed only while pixels are on their way.
    """
    x, y = x.astype(np.float32), y.astype(np.float32)
    count = len(x)
    colours = np.zeros((count, 3), np.float32)
    steps = np.full(count, np.inf, np.float32)
    error = np.zeros(count, np.float32)
    alive = np.arange(count)
    for number, step in enumerate(path, 1):
        height, width = step.hole.shape
        scale = np.float32([step.there.shape[1] / width, step.there.shape[0] / height])
        there = _flow_at(step.there, x[alive], y[alive], scale)
        x[alive] += there[:, 0]
        y[alive] += there[:, 1]
        loop = there + _flow_at(step.back, x[alive], y[alive], scale)
        error[alive] += np.hypot(loop[:, 0], loop[:, 1])
        inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
        alive = alive[inside[alive] & (error[alive] < tolerance)]
        hidden = sample(step.hole.astype(np.float32), x[alive], y[alive])[:, 0] > 0
        seen, alive = alive[~hidden], alive[hidden]
        colours[seen] = sample(step.frame, x[seen], y[seen])
        steps[seen] = number
        if not len(alive):
            break
    return Trace(colours, steps, error)


def _flow_at(flow: np.ndarray, x: np.ndarray, y: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Displacement (n, 2) in frame pixels at frame positions; pixel centres are at + 0.5."""
    at_x, at_y = (x + 0.5) * scale[0] - 0.5, (y + 0.5) * scale[1] - 0.5
    return sample(flow, at_x, at_y) / scale


def sample(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bilinear samples float32 (n, C) of (H, W) or (H, W, C) at pixels (x, y); borders repeat."""
    count = len(x)
    channels = 1 if image.ndim == 2 else image.shape[2]
    if not count:
        return np.zeros((0, channels), np.float32)
    rows = -(-count // ROW)
    maps = [np.resize(axis, (rows, min(count, ROW))).astype(np.float32) for axis in (x, y)]
    found = cv2.remap(
        image.astype(np.float32, copy=False),
        *maps,
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return found.reshape(-1, channels)[:count]
