"""Where a video cuts from one shot to another, found as its frames come by.

Frames are compared as thumbnails of 32 pixels in CIELAB: camera and object motion hardly change
them, another shot does. Only what is visible in both frames counts: a hole may hold anything, a
caption that appears included, and must not look like a cut. That is why this is not PySceneDetect,
whose detectors take whole frames; its idea of judging a change by those around it is kept.

A cut is a change well above the changes around it that lasts: flashes of one or two frames come
back to the same shot. Dissolves and fades are no cuts.
"""

from __future__ import annotations

from array import array
from collections import deque

import cv2
import numpy as np

SIDE = 32  # pixels of a thumbnail's longer side
REACH = 3  # frames back to which a frame is compared, so that a flash of two is seen through
AROUND = 4  # frames on either side whose changes are the measure
# (mean difference per channel out of 255, times the changes around): either pair makes a cut. On
# 70 real clips camera motion reaches 16 at 1.7 times; splices of them start at 18 and 2.4 times.
CUTS = ((15.0, 2.0), (8.0, 5.0))
LEAST_VISIBLE = 0.02  # of the picture; with less in common, two frames cannot be told apart


class CutDetector:
    """Takes frames in order, remembers a few thumbnails and one row of numbers per frame."""

    def __init__(self) -> None:
        self._recent: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=REACH)
        # Of each frame against the ones 1, 2, ... REACH before; inf where there are none.
        self._changes = array("f")

    def add(self, pixels: np.ndarray, mask: np.ndarray) -> None:
        """The next frame, RGB uint8 (h, w, 3), and its holes, bool (h, w); any size, always one.

        Sizes of 4 times SIDE and more give the same result as the full frame.
        """
        frame = _thumbnail(pixels, mask)
        changes = [_change(earlier, frame) for earlier in reversed(self._recent)]
        self._changes.extend(changes + [np.inf] * (REACH - len(changes)))
        self._recent.append(frame)

    def cuts(self) -> list[int]:
        """Numbers of the frames with which a new shot begins, in order; never 0."""
        count = len(self._changes) // REACH
        padded = self._changes + array("f", [np.inf] * REACH**2)
        changes = np.frombuffer(padded, np.float32).reshape(-1, REACH)
        steps = changes[:count, 0]
        return [number for number in range(1, count) if self._is_cut(number, changes, steps)]

    @staticmethod
    def _is_cut(number: int, changes: np.ndarray, steps: np.ndarray) -> bool:
        # Every pair of frames across the cut differs: 1 to 3 before against the first of the new
        # shot, and the last of the old one against the first 3 after.
        across = [*changes[number], *(changes[number + i, i] for i in range(1, REACH))]
        lasting = min(across)
        before = steps[max(1, number - AROUND) : number]
        after = steps[number + 1 : number + 1 + AROUND]
        around = np.sort(np.concatenate([before, after]))[::-1]
        if len(around) > 1:
            # Without the largest, which may be another cut, and without the lower half, which may
            # be repeated frames (film at 24 shown at 30 or 60).
            around = around[1 : 1 + len(around) // 2]
        usual = max(1.0, float(around.mean())) if len(around) else 1.0
        return any(lasting >= least and lasting >= times * usual for least, times in CUTS)


def _thumbnail(pixels: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """CIELAB (n, 3) float and the visible share (n,) of each of the thumbnail's pixels."""
    height, width = mask.shape
    scale = SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    seen = (~mask).astype(np.float32)
    total = cv2.resize(pixels * seen[..., None], size, interpolation=cv2.INTER_AREA)
    share = cv2.resize(seen, size, interpolation=cv2.INTER_AREA)
    rgb = total / np.maximum(share, 1e-6)[..., None]
    lab = cv2.cvtColor(np.rint(rgb).astype(np.uint8), cv2.COLOR_RGB2LAB)
    return lab.reshape(-1, 3).astype(np.float32), share.ravel()


def _change(earlier: tuple[np.ndarray, np.ndarray], later: tuple[np.ndarray, np.ndarray]) -> float:
    """Mean difference per channel, over what is visible in both."""
    common = np.minimum(earlier[1], later[1])
    if common.mean() < LEAST_VISIBLE:
        return 0.0
    return float(common @ np.abs(earlier[0] - later[0]).mean(axis=1) / common.sum())
