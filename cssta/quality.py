"""How a completed video looks where no truth is known: its seams and its flicker.

Both measures compare the hole with its surroundings in the same frames, so that a busy video is not
held to what a calm one shows; about 1 is invisible, 2 is twice as bad as the surroundings.

Shapes: H and W frame size; h and w those of the part around a hole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import cv2
import numpy as np

from cssta.flow import backward_flow

CONTOURS = (3, 5, 7, 9)  # pixels from the hole at which its surroundings are looked at
CELL = 16  # pixels: a seam is what stays the same along the edge over about this length
LEAST_PAIRS = 4  # pixel pairs of a cell whose mean says something
SEAM_FLOOR = 0.5  # levels of 255 that nobody sees
FLOW_SIDE = 320  # pixels of the longer side of what flow is estimated on
LEAST_SIDE = 32  # and of the shorter: smaller, OpenCV's quick flow reads beyond its memory
MARGIN = 40  # pixels around the holes that flow is estimated on
RING = 12  # pixels around the holes, at flow's scale, that they are compared with
BLUR = 9  # pixels: over so many, brightness flickers and texture does not
CAP = 10.0  # levels: what is occluded or lost by the flow weighs no more
FINE_FLOOR, COARSE_FLOOR = 1.0, 0.5  # levels that nobody sees
STRETCH = 24  # frames at least that are judged together

FIGURES = ("seam", "warping", "self_test")
LIMITS = {"seam": 1.8, "warping": 1.8, "self_test": 10.0}
"""Strict limits (`judge`): completions on real footage pass, what jumps to the eye does not."""
BROKEN = {"seam": 3.0, "warping": 3.0}
"""Lax limits: what is beyond them is hardly ever anything but broken.

Ten DAVIS sequences, 16 frames at 432x240, with object holes and a drifting ellipse: of what was
really there 0 of 20 were beyond (3 beyond LIMITS: water and leaves); of grey, black, noise or
another video in the hole all 20, of content from 16 pixels away, 8 frames later or frozen 19, from
4 frames later 18; of a flicker by 20 levels 17, by 10 levels 13; of a tint by 30 levels 9.
"""


class QualityMeter:
    """Watches completed frames pass, in order and in constant memory (one frame is kept).

    Its `sums` are plain numbers: those of a video's segments, kept one by one, make its `quality`.
    """

    def __init__(self) -> None:
        self._sums = dict.fromkeys(SUMS, 0.0)
        self._previous: tuple[np.ndarray, np.ndarray] | None = None

    def add(self, source: np.ndarray, mask: np.ndarray, result: np.ndarray | None) -> None:
        """One more frame: `source` uint8 or uint16 (H, W, 3), `mask` bool (H, W), True = hole.

        `result` like `source`, as completed; None where there was nothing to complete.
        """
        if result is None or not mask.any():
            self._previous = None
            return
        self._sums["frames"] += 1
        self._add_seam(result, mask)
        if self._previous is not None:
            self._add_warping(result, mask, *self._previous)
        self._previous = result, mask

    def sums(self) -> dict[str, float]:
        """What `quality` is made of, for JSON; of frames one after the other they may be added."""
        return dict(self._sums)

    def _add_seam(self, result: np.ndarray, mask: np.ndarray) -> None:
        """Steps across the hole's edge, and across lines around it: their mean along the line.

        Texture has steps as well, but of ever other sign along the edge: they cancel in the mean.
        """
        part = _around(mask, max(CONTOURS) + 3)
        steps, pairs = _steps_along(levels(result[part]), mask[part])
        for name, lines in (("edge", slice(0, 1)), ("near", slice(1, None))):
            self._sums[f"{name}_step"] += float(steps[lines].sum())
            self._sums[f"{name}_pairs"] += float(pairs[lines].sum())

    def _add_warping(
        self, result: np.ndarray, mask: np.ndarray, before: np.ndarray, mask_before: np.ndarray
    ) -> None:
        either = mask | mask_before
        part = _around(either, MARGIN)
        height, width = either[part].shape
        scale = min(1.0, FLOW_SIDE / max(height, width))
        size = tuple(max(LEAST_SIDE, round(side * scale)) for side in (width, height))

        def small(picture: np.ndarray) -> np.ndarray:
            return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)

        now, then = small(levels(result[part])), small(levels(before[part]))
        hole = small(mask[part].astype(np.float32)) > 0.5
        touched = small(either[part].astype(np.float32)) > 0
        wide = cv2.dilate(touched.view(np.uint8), np.ones((2 * RING + 1,) * 2, np.uint8)) > 0
        errors, inside = _flow_errors(now, then)
        for name, where in (("hole", hole & inside), ("ring", wide & ~touched & inside)):
            share = where.astype(np.float32)
            mean = cv2.blur(errors * share[..., None], (BLUR, BLUR))
            mean = mean[where] / cv2.blur(share, (BLUR, BLUR))[where, None]
            self._sums[f"{name}_fine"] += _capped(errors[where])
            self._sums[f"{name}_coarse"] += _capped(mean)
            self._sums[f"{name}_pixels"] += float(np.count_nonzero(where))


SUMS = (
    "frames", "edge_step", "edge_pairs", "near_step", "near_pairs", "hole_fine", "hole_coarse",
    "hole_pixels", "ring_fine", "ring_coarse", "ring_pixels",
)  # fmt: skip


def quality(sums: Iterable[Mapping[str, float] | None]) -> dict[str, float | None]:
    """Of a video, from the sums of its segments in order; of its worst stretch, that is.

    `seam`: how much the picture jumps across the hole's edge, over the same around it. `warping`:
    how much the hole differs from the frame before, warped by optical flow, over the same of its
    ring; the larger of two ratios, pixel by pixel (noise) and averaged over 9x9 (brightness).
    None: there was nothing to measure or to compare with; {}: a segment was not measured.
    """
    if None in (sums := list(sums)):
        return {}
    stretches = list(_stretches(sums))
    found = {"seam": [_seam(part) for part in stretches]}
    found["warping"] = [_warping(part) for part in stretches]
    return {
        key: max((value for value in values if value is not None), default=None)
        for key, values in found.items()
    }


def judge(figures: Mapping[str, float | None], limits: Mapping[str, float | None]) -> list[str]:
    """Which limits are broken, in words; what was not measured or has no limit breaks none.

    `seam` and `warping` must not be above their limit, `self_test` not below. Raises ValueError for
    a limit of anything else.
    """
    broken = []
    for key, limit in limits.items():
        if key not in WORDS:
            raise ValueError(
                f"there is no quality figure {key!r}; limits are of {', '.join(WORDS)}"
            )
        value = figures.get(key)
        if value is None or limit is None:
            continue
        good = value >= limit if key == "self_test" else value <= limit
        if not good:  # (nan is not)
            words, unit, side = WORDS[key]
            broken.append(f"{words}: {key} {value:.2f}{unit} is {side} {limit:g}{unit}")
    return broken


WORDS = {
    "seam": ("the hole's edge shows", "", "above"),
    "warping": ("the hole flickers", "", "above"),
    "self_test": ("a hole made for a test was not found again", " dB", "below"),
}


def _around(mask: np.ndarray, margin: int) -> tuple[slice, slice]:
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    rows = slice(max(0, y - margin), y + height + margin)
    return rows, slice(max(0, x - margin), x + width + margin)


def levels(picture: np.ndarray) -> np.ndarray:
    """As float32 from 0 to 255, whatever the depth."""
    levels = picture.astype(np.float32)
    return levels / 257 if picture.dtype == np.uint16 else levels


def _steps_along(image: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Steps outwards, across the edge of bool (h, w) and each of CONTOURS around it.

    Means are taken of cells, and of each direction apart: what they average looks alike. Returns
    for each line the sum of means, each as often as it has pixel pairs, and the number of pairs.
    """
    height, width = mask.shape
    # In steps along rows and columns, so that a neighbour is at most one further.
    far = cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L1, 3)
    far = np.minimum(far, 255).astype(np.uint8)
    line = np.full(256, -1, np.int8)
    line[[0, *CONTOURS]] = range(1 + len(CONTOURS))
    inside = cv2.erode(mask.view(np.uint8), np.ones((3, 3), np.uint8), borderValue=1)
    y, x = ((line[far] >= 0) & (inside == 0)).nonzero()
    columns, rows = width // CELL + 1, height // CELL + 1
    lines = line[far[y, x]].astype(np.int64)
    totals, counts = np.zeros((2, 1 + len(CONTOURS)))
    for down, across in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        y2, x2 = y + down, x + across
        out = (y2 >= 0) & (y2 < height) & (x2 >= 0) & (x2 < width)
        out[out] = far[y2[out], x2[out]] > far[y[out], x[out]]
        steps = image[y2[out], x2[out]] - image[y[out], x[out]]
        # The pair's upper left pixel says which cell it is in.
        top, left = y[out] + min(0, down), x[out] + min(0, across)
        cells = (lines[out] * rows + top // CELL) * columns + left // CELL
        size = len(totals) * rows * columns
        pairs = np.bincount(cells, minlength=size).reshape(len(totals), -1)
        enough = pairs >= LEAST_PAIRS
        for channel in range(3):
            sums = np.bincount(cells, steps[:, channel], size).reshape(pairs.shape)
            totals += (np.abs(sums) * enough).sum(axis=1) / 3
        counts += (pairs * enough).sum(axis=1)
    return totals, counts


def _flow_errors(now: np.ndarray, then: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`then`, warped to `now`, less `now`, both float32 (h, w, 3); bool (h, w): it was in view."""
    flow = backward_flow(*(np.rint(frame).astype(np.uint8) for frame in (now, then)))
    height, width = now.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    x, y = x + flow[..., 0], y + flow[..., 1]
    warped = cv2.remap(then, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return warped - now, (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)


def _capped(errors: np.ndarray) -> float:
    """Sum over (N, 3) of the absolute error, mean of channels, at most CAP."""
    return float(np.minimum(np.abs(errors).mean(axis=1), CAP).sum(dtype=np.float64))


def _stretches(sums: Iterable[Mapping[str, float]]) -> Iterator[dict[str, float]]:
    """Segments, short ones together with those after them."""
    waiting, last = dict.fromkeys(SUMS, 0.0), None
    for part in sums:
        waiting = {key: waiting[key] + part[key] for key in SUMS}
        if waiting["frames"] >= STRETCH:
            if last is not None:
                yield last
            last, waiting = waiting, dict.fromkeys(SUMS, 0.0)
    yield waiting if last is None else {key: last[key] + waiting[key] for key in SUMS}


def _seam(part: Mapping[str, float]) -> float | None:
    if not part["edge_pairs"] or not part["near_pairs"]:
        return None
    edge, near = (part[f"{key}_step"] / part[f"{key}_pairs"] for key in ("edge", "near"))
    return (edge + SEAM_FLOOR) / (near + SEAM_FLOOR)


def _warping(part: Mapping[str, float]) -> float | None:
    if not part["hole_pixels"] or not part["ring_pixels"]:
        return None
    ratios = []
    for kind, floor in (("fine", FINE_FLOOR), ("coarse", COARSE_FLOOR)):
        hole, ring = (part[f"{key}_{kind}"] / part[f"{key}_pixels"] for key in ("hole", "ring"))
        ratios.append((hole + floor) / (ring + floor))
    return max(ratios)
