"""A hole painted with patches of what is visible around it, at one scale.

Every patch that touches the hole has a shift to a visible patch like it; every hole pixel becomes
the mean of what the patches over it say. Searching and painting alternate, as in Wexler, Shechtman
and Irani, "Space-Time Completion of Video" (2007); shifts are improved as in Barnes et al.,
"PatchMatch" (2009), all patches at once.

Shapes: H and W image size, n patches that touch the hole. Colours are 0 to 255.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch

RADIUS = 3  # of a patch, in pixels
SIDE = 2 * RADIUS + 1
# A scene lies in layers: ground below, sky above. What is copied from far costs as much as this
# mean squared difference of colours at a distance of the whole height, or width.
STRATA, BESIDE = 40000.0, 2000.0
MOST_SOURCES = 20000  # patches that a search looks at, spread evenly if there are more
CHUNK = 512  # patches searched for together


class Exemplar:
    """An image float32 (H, W, 3), changed in place inside its hole, bool (H, W).

    Attributes:
        y, x: centres of the patches that touch the hole, int64 (n,).
        has_sources: whether any patch is visible whole.
    """

    def __init__(self, image: np.ndarray, hole: np.ndarray) -> None:
        self.image, self.hole = image.astype(np.float32), hole
        square = np.ones((SIDE, SIDE), np.uint8)
        visible = (~hole).view(np.uint8)
        self._valid = cv2.erode(visible, square, borderValue=0).view(bool)
        self.touches = cv2.dilate(hole.view(np.uint8), square).view(bool)
        self.y, self.x = self.touches.nonzero()
        self.sources = np.argwhere(self._valid)
        self.has_sources = len(self.sources) > 0

    def search(self, trust: float = 1.0, only: np.ndarray | None = None) -> np.ndarray:
        """The best shift (n, 2), rows then columns, of each patch, of all there are.

        Args:
            trust: weight of what now stands in the hole, against 1 of what is visible.
            only: bool (n,), the patches that are looked at, whose shifts alone come back.
        """
        y, x = (self.y, self.x) if only is None else (self.y[only], self.x[only])
        every = -(-len(self.sources) // MOST_SOURCES)
        sources = self.sources[::every]
        theirs = torch.from_numpy(self._patches(*sources.T))
        ours = torch.from_numpy(self._patches(y, x))
        doubt = np.where(self._windows(self.hole)[y, x], np.float32(trust), 1)
        weights = torch.from_numpy(np.tile(doubt.reshape(len(y), -1), (1, 3)))
        centres = torch.from_numpy(np.stack([y, x], 1)).float()
        places = torch.from_numpy(sources).float()
        squares = (theirs * theirs).T.contiguous()
        best = []
        for mine, weight, centre in zip(
            ours.split(CHUNK), weights.split(CHUNK), centres.split(CHUNK), strict=True
        ):
            # Weighted squared differences, but for what is the same for all sources.
            cost = weight @ squares - 2 * (weight * mine) @ theirs.T
            cost /= weight.sum(1, keepdim=True)
            away = centre[:, None] - places
            cost += self._far(away[..., 0], away[..., 1])
            best.append(cost.argmin(1))
        found = sources[torch.cat(best).numpy()]
        return (found - np.stack([y, x], 1)).astype(np.int32)

    def cost(self, shifts: np.ndarray) -> np.ndarray:
        """Mean squared difference of each patch to its source, float32 (n,), more from afar.

        Infinite where the source is not visible whole.
        """
        y, x = self.y + shifts[:, 0], self.x + shifts[:, 1]
        inside = (y >= 0) & (y < self.hole.shape[0]) & (x >= 0) & (x < self.hole.shape[1])
        inside[inside] = self._valid[y[inside], x[inside]]
        cost = np.full(len(y), np.inf, np.float32)
        ours = self._patches(self.y[inside], self.x[inside])
        difference = ours - self._patches(y[inside], x[inside])
        cost[inside] = np.einsum("ij,ij->i", difference, difference) / ours.shape[1]
        cost[inside] += self._far(*shifts[inside].T.astype(np.float32))
        return cost

    def improve(
        self,
        shifts: np.ndarray,
        rng: np.random.Generator,
        *,
        rounds: int,
        radius: float,
        gain: float = 1.0,
    ) -> np.ndarray:
        """Try the neighbours' shifts and random ones near one's own; those that are better.

        A shift gives way only to one of less than `gain` times its cost.
        """
        cost = self.cost(shifts)

        def attempt(candidates: np.ndarray) -> None:
            nonlocal shifts, cost
            theirs = self.cost(candidates)
            better = theirs < cost * gain
            shifts = np.where(better[:, None], candidates, shifts)
            cost = np.where(better, theirs, cost)

        for _ in range(rounds):
            for step in ((0, 1), (0, -1), (1, 0), (-1, 0)):
                attempt(self._neighbours(shifts, *step))
            within = radius
            while within >= 1:
                attempt(shifts + np.rint(rng.uniform(-within, within, shifts.shape)).astype(int))
                within /= 2
        for _ in range(rounds):
            if not np.isinf(cost).any():
                break
            drawn = self.sources[rng.integers(len(self.sources), size=len(self.y))]
            lost = np.isinf(cost)[:, None]
            attempt(np.where(lost, drawn - np.stack([self.y, self.x], 1), shifts))
        return shifts.astype(np.int32)

    def paint(
        self, shifts: np.ndarray, cost: np.ndarray | None = None, *, alike: bool = False
    ) -> None:
        """Every hole pixel becomes the mean of what patches say, those of less `cost` more so.

        `alike`: count only patches with the shift of the pixel's own: sharper, with more joints.
        """
        if cost is None:
            cost = np.where(np.isfinite(self.cost(shifts)), 0, np.inf)
        known = np.isfinite(cost)
        if not known.any():
            return
        scale = max(float(np.percentile(cost[known], 75)), 1.0)
        weight = np.zeros(self.hole.shape, np.float32)
        weight[self.y, self.x] = np.where(known, np.exp(-cost / (2 * scale)) + 1e-6, 0)
        field = self.field(shifts)
        y, x = self.hole.nonzero()
        height, width = self.hole.shape
        colours, total = np.zeros((len(y), 3), np.float32), np.zeros(len(y), np.float32)
        for down in range(-RADIUS, RADIUS + 1):
            for across in range(-RADIUS, RADIUS + 1):
                # The patch that has this pixel so far off its centre, and what it says of it.
                at_y, at_x = y - down, x - across
                share = (at_y >= 0) & (at_y < height) & (at_x >= 0) & (at_x < width)
                at_y, at_x = at_y.clip(0, height - 1), at_x.clip(0, width - 1)
                from_y = (y + field[at_y, at_x, 0]).clip(0, height - 1)
                from_x = (x + field[at_y, at_x, 1]).clip(0, width - 1)
                share = weight[at_y, at_x] * (share & ~self.hole[from_y, from_x])
                if alike:
                    share *= np.abs(field[at_y, at_x] - field[y, x]).max(axis=1) <= 1
                colours += share[:, None] * self.image[from_y, from_x]
                total += share
        said = total > 0
        self.image[y[said], x[said]] = colours[said] / total[said, None]

    def field(self, shifts: np.ndarray) -> np.ndarray:
        """Shifts as a map int32 (H, W, 2): elsewhere, that of the nearest patch."""
        return spread(shifts, self.touches)

    def _neighbours(self, shifts: np.ndarray, down: int, across: int) -> np.ndarray:
        grid = np.zeros((*self.hole.shape, 2), np.int32)
        grid[self.y, self.x] = shifts
        y = (self.y + down).clip(0, self.hole.shape[0] - 1)
        x = (self.x + across).clip(0, self.hole.shape[1] - 1)
        return np.where(self.touches[y, x][:, None], grid[y, x], shifts)

    def _far(self, down, across):
        height, width = self.hole.shape
        return STRATA * (down / height) ** 2 + BESIDE * (across / width) ** 2

    def _patches(self, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Patches around centres as rows, float32 (n, 3 * SIDE ** 2)."""
        return self._windows(self.image)[y, x].reshape(len(y), 3 * SIDE**2)

    @staticmethod
    def _windows(image: np.ndarray) -> np.ndarray:
        edges: Sequence[tuple[int, int]] = [(RADIUS, RADIUS)] * 2 + [(0, 0)] * (image.ndim - 2)
        padded = np.pad(image, edges, mode="symmetric")
        return np.lib.stride_tricks.sliding_window_view(padded, (SIDE, SIDE), axis=(0, 1))


def spread(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """A map (H, W, C) of values (n, C) at the pixels of `where`; elsewhere the nearest one's."""
    y, x = where.nonzero()
    outside = (~where).astype(np.uint8)
    kind = {"distanceType": cv2.DIST_L2, "maskSize": 5, "labelType": cv2.DIST_LABEL_PIXEL}
    _, labels = cv2.distanceTransformWithLabels(outside, **kind)
    number = np.zeros(labels.max() + 1, np.int64)
    number[labels[y, x]] = np.arange(len(y))
    return values[number[labels]]
