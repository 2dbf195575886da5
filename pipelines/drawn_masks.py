"""Hole masks drawn by seed, for videos without any: the truth behind such holes is known."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from cssta.masks import freeform_masks

MOST_BYTES = 128 * 2**20
"""Of masks drawn at once; a longer video has them forth and back again."""


class DrawnMasks:
    """Stands for a `cssta.video.MaskSource`: bool (H, W) by frame number, in bounded memory."""

    def __init__(
        self,
        seed: int,
        frames: int,
        height: int,
        width: int,
        ratio: tuple[float, float],
        most_bytes: int = MOST_BYTES,
    ) -> None:
        count = min(frames, max(1, most_bytes // (height * width)))
        drawn = freeform_masks(np.random.default_rng(seed), count, height, width, ratio=ratio)
        self._width, self._frames = width, frames
        self._packed = np.packbits(drawn, axis=-1)

    def masks(self, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
        """Masks of frames start to stop - 1 (default: to the end)."""
        return map(self._mask, range(start, self._frames if stop is None else stop))

    def pick(self, indices: Iterable[int]) -> dict[int, np.ndarray]:
        """The masks of these frames."""
        return {index: self._mask(index) for index in indices}

    def _mask(self, index: int) -> np.ndarray:
        count = len(self._packed)
        place = index % max(1, 2 * (count - 1))
        place = place if place < count else 2 * (count - 1) - place
        return np.unpackbits(self._packed[place], axis=-1, count=self._width).astype(bool)
