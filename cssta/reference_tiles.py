"""Keys and values of all references, read a few at a time: nothing here is as large as they are.

The references' padded maps, one after the other, are one flat axis of columns. A tile is a stretch
of it. A patch reaches `halo` columns beyond its centre, always within its own reference's border.

Shapes: R references, C channels, L columns of a group of references.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from cssta.diagonal_sum import Geometry


@dataclass
class Group:
    """Some whole references as columns."""

    references: slice
    columns: Tensor  # (L, C): padded pixels
    key_scale: Tensor  # (L,): 1 / |patch|
    bias: Tensor  # (L,): 0 at visible keys, minus infinity elsewhere


class ReferenceTiles:
    """Reads `features` (R, C, H, W) group by group, to the device and type of the queries.

    The features may be of lower precision and elsewhere, also in pinned or memory-mapped memory.
    """

    def __init__(
        self,
        features: Tensor,
        masks: Tensor,
        geometry: Geometry,
        dtype: torch.dtype,
        device: torch.device,
        limit: int,
    ) -> None:
        """`masks` (R, 1, H, W), 1 = hole; `limit`: values that a group should hold at most."""
        self.features, self.masks, self.geometry = features, masks, geometry
        self.dtype, self.device = dtype, device
        count = len(features)
        size = max(1, limit // (geometry.cells * max(1, features.shape[1])))
        self.groups = [slice(i, min(i + size, count)) for i in range(0, count, size)]
        self.halo = geometry.half * (geometry.stride + 1)
        self._last: Group | None = None

    def read(self, references: slice) -> Group:
        """One of `groups`; the last one read is remembered."""
        if self._last is None or self._last.references != references:
            self._last = None
            maps = self.features[references].to(self.device, self.dtype, non_blocking=True)
            masks = self.masks[references].to(self.device, non_blocking=True)
            visible = visible_patches(masks, self.geometry).flatten()
            columns = self.geometry.pad(maps).contiguous()
            scale = norm_inverse(columns, self.geometry).flatten()
            bias = torch.zeros_like(scale).masked_fill_(~visible, float("-inf"))
            self._last = Group(references, columns.flatten(0, 1), scale, bias)
        return self._last

    def forget(self) -> None:
        """Give the last group's memory back."""
        self._last = None

    def tiles(self, references: slice, width: int) -> list[slice]:
        """A group's columns in stretches of about `width`."""
        length = (references.stop - references.start) * self.geometry.cells
        parts = max(1, round(length / max(1, width)))
        edges = [length * i // parts for i in range(parts + 1)]
        return [slice(a, b) for a, b in pairwise(edges) if a < b]

    def around(self, tile: slice, length: int) -> slice:
        """The columns that patches centred in a tile reach."""
        return slice(max(0, tile.start - self.halo), min(length, tile.stop + self.halo))


def norm_inverse(columns: Tensor, geometry: Geometry) -> Tensor:
    """1 / max(|patch|, 1e-6) at every padded cell: (N, cells, C) -> (N, cells)."""
    square = torch.linalg.vector_norm(columns, dim=2).square()
    total = box_sum(square.view(len(columns), 1, -1, geometry.stride), geometry)
    # The root is taken of a clamped sum, whose gradient is zero rather than infinite at zero.
    return total.flatten(1).clamp_min(1e-12).rsqrt()


def norm_inverse_gradient(grad: Tensor, group: Group, geometry: Geometry) -> Tensor:
    """Gradient (L, C) at the columns, from that at `key_scale` (L,)."""
    # d (s ** -0.5) = -0.5 s ** -1.5, and d s = 2 x summed over the patch.
    alive = group.key_scale < 9.99e5  # not where the norm was clamped
    at_sum = torch.where(alive, -grad * group.key_scale**3, 0)
    maps = at_sum.view(-1, 1, geometry.cells // geometry.stride, geometry.stride)
    return group.columns * box_sum(maps, geometry).view(-1, 1)


def box_sum(maps: Tensor, geometry: Geometry) -> Tensor:
    """Sum over every patch, zeros around: (N, 1, H, W) -> the same."""
    return F.avg_pool2d(maps, 2 * geometry.half + 1, 1, geometry.half, divisor_override=1)


def visible_patches(masks: Tensor, geometry: Geometry) -> Tensor:
    """(R, 1, H, W) -> bool (R, cells): in-frame keys with no in-frame hole pixel in their patch."""
    touched = F.max_pool2d((masks > 0.5).float(), 2 * geometry.half + 1, 1, geometry.half) > 0.5
    return geometry.pad(~touched).squeeze(2)
