"""A test of its own for every video: is what is hidden on purpose found again?

Shapes: T frames; H and W frame size.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np

from cssta.quality import levels

PLACES = 64  # offsets tried for the synthetic hole
LEAST_SHARE = 0.25  # of the mask that must fall on visible pixels


class Completes(Protocol):
    """What the self-test needs of a model; `cssta.Inpainter` is one."""

    def inpaint(self, frames: np.ndarray, masks: np.ndarray) -> np.ndarray:
        """Frames uint8 or uint16 (T, H, W, 3), masks bool (T, H, W), True = hole -> like frames."""


def self_test(
    inpainter: Completes, frames: np.ndarray, masks: np.ndarray, seed: int
) -> float | None:
    """How well visible pixels are found again: PSNR in dB over a synthetic hole.

    The mask is moved to a place, drawn by `seed`, that is visible, and completed there too. Costs
    a completion of `frames` (T, H, W, 3), a few from one scene; masks bool (T, H, W). None where
    there is no hole or no room for another like it.
    """
    moved = _moved(masks, np.random.default_rng(seed)) if masks.any() else None
    if moved is None:
        return None
    result = inpainter.inpaint(frames, masks | moved)
    errors = levels(result[moved]) - levels(frames[moved])
    square = float(np.square(errors).mean(dtype=np.float64))
    return 10 * math.log10(255**2 / max(square, 1e-5))


def _moved(masks: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """The masks moved by one offset to where most of them is in view and was no hole."""
    height, width = masks.shape[1:]
    area = np.count_nonzero(masks)
    best, most = None, max(1, math.ceil(LEAST_SHARE * area))
    for _ in range(PLACES):
        down, across = int(rng.integers(1 - height, height)), int(rng.integers(1 - width, width))
        moved = np.zeros_like(masks)
        to = moved[:, max(0, down) : height + min(0, down), max(0, across) : width + min(0, across)]
        start = max(0, -down), max(0, -across)
        to[:] = masks[:, start[0] : start[0] + to.shape[1], start[1] : start[1] + to.shape[2]]
        moved &= ~masks
        seen = np.count_nonzero(moved)
        if seen >= most:
            best, most = moved, seen + 1
        if seen > 0.9 * area:
            break
    return best
