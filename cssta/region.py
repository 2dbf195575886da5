"""The part of the frame that is completed: the holes and what surrounds them.

All work is done per pixel (convolutions) or per pair of a hole and a reference pixel (attention),
so its cost goes with the area.
"""

from __future__ import annotations

import numpy as np

Region = tuple[int, int, int, int]
"""A box (y0, y1, x0, x1), in pixels; y1 and x1 are the first beyond it."""

ALIGN = 16  # pixels, so that few sizes occur and features lie as they would in the whole frame
CONTEXT = 96  # pixels at least around the holes,
SHARE = 0.25  # or this much of the frame's shorter side, or of the box's longer
WORTHWHILE = 0.8  # share of the frame's area below which a crop is chosen


def crop_region(box: Region, height: int, width: int) -> Region | None:
    """The crop for holes that all lie in `box`; None where the whole frame costs hardly more."""
    y0, y1, x0, x1 = box
    margin = max(CONTEXT, int(SHARE * max(min(height, width), y1 - y0, x1 - x0)))
    y0, y1 = _widen(y0, y1, margin, height)
    x0, x1 = _widen(x0, x1, margin, width)
    area = (y1 - y0) * (x1 - x0)
    return (y0, y1, x0, x1) if area <= WORTHWHILE * height * width else None


def hole_box(masks: np.ndarray) -> Region | None:
    """The box around all holes of bool (T, H, W); None where there is none."""
    rows = np.flatnonzero(masks.any(axis=(0, 2)))
    columns = np.flatnonzero(masks.any(axis=(0, 1)))
    if not len(rows):
        return None
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _widen(start: int, stop: int, margin: int, size: int) -> tuple[int, int]:
    start = max(0, start - margin) // ALIGN * ALIGN
    return start, min(size, -(-(stop + margin) // ALIGN) * ALIGN)
