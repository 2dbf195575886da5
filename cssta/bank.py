"""The frames that a stream remembers, each encoded once, when first asked for.

(A frame that is there twice, as it was given and with its hole filled in part, is two.)

Shapes: N frames of a batch, R references, C feature channels at h = H' / 4 and w = W' / 4.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

import numpy as np
import torch
from torch import Tensor

from cssta.inpainting import Encoded
from cssta.pixels import to_tensors

Encode = Callable[[Tensor, Tensor], Encoded]


class Remembered:
    """One frame: pixels (H, W, 3) and mask bool (H, W) as given, and its encoding if it has one."""

    def __init__(self, number: int, pixels: np.ndarray, mask: np.ndarray) -> None:
        self.number, self.pixels, self.mask = number, pixels, mask
        self.has_hole = bool(mask.any())
        self.as_target: Encoded | None = None  # until it has been completed
        self.features: Tensor | None = None  # (1, C, h, w), in half precision
        self.feature_mask: Tensor | None = None  # (1, 1, h, w)

    def same_as(self, pixels: np.ndarray, mask: np.ndarray) -> bool:
        """Whether these are its very pixels and mask."""
        return np.array_equal(self.pixels, pixels) and np.array_equal(self.mask, mask)


class Bank:
    """Remembered frames by number."""

    def __init__(self, encode: Encode, device: torch.device, half: torch.dtype) -> None:
        self.frames: dict[int, Remembered] = {}
        self._encode, self._device, self._half = encode, device, half

    def add(self, number: int, pixels: np.ndarray, mask: np.ndarray) -> Remembered:
        """Remember a frame, or recognise it."""
        known = self.frames.get(number)
        if known is None or not known.same_as(pixels, mask):
            known = self.frames[number] = Remembered(number, pixels, mask)
        return known

    def encode(self, numbers: Iterable[int], batch: int) -> None:
        """Make sure that these frames are encoded, so many at a time."""
        missing = [n for n in sorted(set(numbers)) if self.frames[n].features is None]
        for start in range(0, len(missing), batch):
            part = [self.frames[n] for n in missing[start : start + batch]]
            pixels = [to_tensors(frame.pixels, frame.mask, self._device) for frame in part]
            encoded = self._encode(
                torch.cat([p for p, _ in pixels]), torch.cat([m for _, m in pixels])
            )
            for row, frame in enumerate(part):
                # Copies: a view would keep the whole batch.
                one = slice(row, row + 1)
                frame.features = encoded.features[one].to(self._half, copy=True)
                frame.feature_mask = encoded.feature_masks[one].clone()
                if frame.has_hole:
                    merged = encoded.frames[one].clone()
                    frame.as_target = Encoded(
                        merged,  # (the coarse stage's own output is no longer needed)
                        merged,
                        encoded.masks[one].clone(),
                        encoded.features[one].clone(),
                        frame.feature_mask,
                    )

    def target(self, numbers: list[int]) -> Encoded:
        """These frames as one batch."""
        rows = [vars(self.frames[number].as_target).values() for number in numbers]
        return Encoded(*(torch.cat(column) for column in zip(*rows, strict=True)))

    def references(self, numbers: list[int]) -> tuple[Tensor, Tensor]:
        """Features (R, C, h, w) and masks (R, 1, h, w), R >= 1."""
        frames = [self.frames[number] for number in numbers]
        return (
            torch.cat([frame.features for frame in frames]),
            torch.cat([frame.feature_mask for frame in frames]),
        )

    def keep(self, numbers: Collection[int]) -> None:
        """Forget all others."""
        self.frames = {n: frame for n, frame in self.frames.items() if n in numbers}
