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

    def shifts(self, step: int) -> list[int]:
        """Flat offsets of a patch along one axis: `step` 1 is horizontal, `stride` vertical."""
        return [step * i for i in range(-self.half, self.half + 1)]

    def offsets(self, step: int, device: torch.device) -> Tensor:
        """`shifts` as a tensor."""
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
        self.half = geometry.half
        self.along = _Pass(source, middle, geometry.shifts(1))
        self.across = _Pass(middle, target, geometry.shifts(geometry.stride))

    def __call__(self, x: Tensor, first: int = 0, last: int | None = None) -> Tensor:
        """`y` at columns `first` to `last` (numbered as `x`'s; they may lie outside of it)."""
        last = x.shape[1] if last is None else last
        reach = self.across.shifts[-1]
        start = max(first - reach, -self.half)
        stop = max(start, min(last + reach, x.shape[1] + self.half))
        middle = self.along(x, start, stop)
        return self.across(middle, first - start, last - start)


class _Pass:
    """The sum over offsets along one axis."""

    def __init__(self, source: Rows, target: Rows, shifts: list[int]) -> None:
        self.shifts = shifts  # (numbers: reading them from a device would wait for it)
        self.rows = [source.find(target.positions + shift) for shift in self.shifts]
        self.stretches = None
        if source.positions.device.type == "cpu":
            self.stretches = _stretches(torch.stack(self.rows).numpy(), len(source) - 1)

    def __call__(self, x: Tensor, first: int, last: int) -> Tensor:
        """Columns `first` to `last` of the sum, numbered as `x`'s."""
        columns = x.shape[1]
        total = x.new_empty(len(self.rows[0]), last - first)
        # Columns for which every shifted column exists are summed without filling in zeros first.
        inner = min(max(first, -self.shifts[0]), last)
        outer = max(inner, min(last, columns - self.shifts[-1]))
        self._add(x, total[:, inner - first : outer - first], inner)
        for begin, end in ((first, inner), (outer, last)):
            if begin < end:
                low, high = begin + self.shifts[0], end + self.shifts[-1]
                a, b = max(0, low), min(columns, high)
                edge = (
                    F.pad(x[:, a:b], (a - low, high - b))
                    if a < b
                    else x.new_zeros(len(x), high - low)
                )
                self._add(edge, total[:, begin - first : end - first], -self.shifts[0])
        return total

    def _add(self, x: Tensor, total: Tensor, first: int) -> None:
        """Set `total` to the sum at columns from `first` on, all of whose terms exist."""
        columns = total.shape[1]
        parts = [x[:, first + shift : first + shift + columns] for shift in self.shifts]
        if self.stretches is None:
            torch.index_select(parts[0], 0, self.rows[0], out=total)
            for part, rows in zip(parts[1:], self.rows[1:], strict=True):
                total += part.index_select(0, rows)
            return
        # A CPU adds whole stretches faster than it gathers rows, and all terms of one stretch
        # while its caches hold it.
        for start, stop, terms in self.stretches:
            target = total[start:stop]
            sources = [parts[term][row : row + stop - start] for term, row in terms]
            if len(sources) > 1:
                torch.add(sources[0], sources[1], out=target)
            elif sources:
                target.copy_(sources[0])
            else:
                target.zero_()
            for source in sources[2:]:
                target += source


def _stretches(rows: np.ndarray, absent: int) -> list[tuple[int, int, list[tuple[int, int]]]]:
    """Stretches of target rows whose sources follow each other at every shift.

    `rows` (shifts, target rows): each one's source. -> (first, past the last, terms); a term is the
    number of a shift and the stretch's first source row. Absent rows are left out.
    """
    # (The absent row may follow on a present one by number.)
    here = rows == absent
    breaks = np.diff(np.where(here, -1, rows), axis=1) != np.where(here[:, 1:], 0, 1)
    breaks |= here[:, 1:] != here[:, :-1]
    ends = np.flatnonzero(breaks.any(axis=0)) + 1
    starts = np.concatenate([[0], ends]).tolist()
    stops = np.concatenate([ends, [rows.shape[1]]]).tolist()
    first = rows[:, starts].T.tolist()
    return [
        (start, stop, [(term, row) for term, row in enumerate(sources) if row != absent])
        for start, stop, sources in zip(starts, stops, first, strict=True)
    ]
