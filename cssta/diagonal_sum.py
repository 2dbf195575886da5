"""Sums along the diagonals of a (query pixels, key pixels) matrix: patches without unfolding.

The similarity of two patches is the sum, over the patch's offsets, of the similarities of the
pixels at those offsets. So the pixels' product is formed once and summed along its diagonals,
instead of unfolding every patch: k * k times fewer multiplications. Folding weighted values back is
the very same sum (the offsets are symmetric), and so are both gradients.

Layout. Every map is padded by k // 2 zeros on each side and flattened with row length `stride`;
then offset (dy, dx) is one flat shift, in rows (query pixels) and in columns (key pixels) alike.

Shapes: N frames, C channels, H and W map size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass
class Geometry:
    """Padded size of one map."""

    height: int
    width: int
    half: int  # patch_size // 2

    @property
    def stride(self) -> int:
        return self.width + 2 * self.half

    @property
    def cells(self) -> int:
        return (self.height + 2 * self.half) * self.stride

    def pad(self, maps: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, cells, C), zeros around."""
        return F.pad(maps, [self.half] * 4).flatten(2).transpose(1, 2)

    def crop(self, rows: Tensor) -> Tensor:
        """(N, cells, C) -> (N, C, H, W), without the border."""
        maps = rows.unflatten(1, (-1, self.stride)).permute(0, 3, 1, 2)
        return maps[:, :, self.half : self.half + self.height, self.half :][..., : self.width]

    def offsets(self, step: int, device: torch.device) -> Tensor:
        """Flat offsets of a patch along one axis: `step` 1 is horizontal, `stride` vertical."""
        return torch.arange(-self.half, self.half + 1, device=device) * step


class Rows:
    """A sorted set of padded pixel positions of all N frames, and where each stands in a matrix.

    The matrix has one row more than the set: the last is zero and stands for every absent pixel.
    """

    def __init__(self, positions: Tensor, total: int) -> None:
        self.positions = positions
        self.total = total
        self.table = torch.full((total,), len(positions), device=positions.device)
        self.table[positions] = torch.arange(len(positions), device=positions.device)

    def __len__(self) -> int:
        return len(self.positions) + 1

    def find(self, positions: Tensor) -> Tensor:
        """Row of each position, the zero row where absent; and the zero row for our own."""
        inside = (positions >= 0) & (positions < self.total)
        rows = self.table[positions.clamp(0, self.total - 1)]
        rows = torch.where(inside, rows, len(self.positions))
        return F.pad(rows, (0, 1), value=len(self.positions))

    def spread(self, offsets: Tensor) -> Rows:
        """The set of all positions within `offsets` of this one."""
        marked = torch.zeros(self.total, dtype=torch.bool, device=self.positions.device)
        near = (self.positions[:, None] + offsets).flatten()
        marked[near[(near >= 0) & (near < self.total)]] = True
        return Rows(marked.nonzero().squeeze(1), self.total)


class DiagonalSum:
    """Sums a (pixel rows, columns) matrix over a patch's offsets, in rows and columns together.

    `y[t, k] = sum over offsets o of x[t + o, k + o]`, first along a row of the patch, then across
    its rows. Columns past the ends count as zero, like rows that are absent.
    """

    def __init__(self, source: Rows, target: Rows, geometry: Geometry) -> None:
        device = source.positions.device
        middle = target.spread(geometry.offsets(geometry.stride, device))
        self.passes = [
            self._shifts(source, middle, geometry.offsets(1, device)),
            self._shifts(middle, target, geometry.offsets(geometry.stride, device)),
        ]

    @staticmethod
    def _shifts(source: Rows, target: Rows, offsets: Tensor) -> list:
        shifts = [(int(d), source.find(target.positions + d)) for d in offsets]
        if source.positions.device.type == "cpu":
            return [(shift, len(rows), _runs(rows, len(source) - 1)) for shift, rows in shifts]
        return [(shift, len(rows), rows) for shift, rows in shifts]

    def __call__(self, x: Tensor) -> Tensor:
        columns = x.shape[1]
        for shifts in self.passes:
            total = x.new_zeros(shifts[0][1], columns)
            for shift, _, rows in shifts:
                first, last = max(0, -shift), min(columns, columns - shift)
                if first >= last:
                    continue
                if isinstance(rows, Tensor):
                    part = x.index_select(0, rows)
                    total[:, first:last] += part[:, first + shift : last + shift]
                else:
                    for start, stop, row in rows:
                        part = x[row : row + stop - start, first + shift : last + shift]
                        total[start:stop, first:last] += part
            x = total
        return x


def _runs(rows: Tensor, absent: int) -> list[tuple[int, int, int]]:
    """Stretches of target rows whose sources follow each other: (first, past the last, source).

    A CPU adds whole stretches in place faster than it gathers rows; absent rows are left out.
    """
    rows = rows.numpy()
    ends = np.flatnonzero(np.diff(rows) != 1) + 1
    starts = np.concatenate([[0], ends])
    stops = np.concatenate([ends, [len(rows)]])
    return [
        (int(a), int(b), int(rows[a]))
        for a, b in zip(starts, stops, strict=True)
        if rows[a] != absent
    ]
