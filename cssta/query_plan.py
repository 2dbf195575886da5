"""Which pixels of the targets take part in attention, for a block of hole pixels (eq. 1).

Shapes: T target frames, R references, Q queries, P hole pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cssta.diagonal_sum import Geometry, Rows


@dataclass
class Plan:
    """Everything that depends on the masks alone, for one block of hole pixels."""

    geometry: Geometry
    pixels: Rows  # P: hole pixels whose output is wanted
    queries: Rows  # Q: centres of the patches that cover them
    patches: Rows  # all pixels of those patches
    counts: Tensor  # (P,) in-frame patches that cover each hole pixel: 4, 6 or 9 for 3x3
    forbidden: dict[int, list[slice]]  # by reference: rows of queries that may not look at it

    @classmethod
    def of(cls, positions: Tensor, geometry: Geometry, frames: int, allowed: Tensor | None) -> Plan:
        """Plan for hole pixels at `positions` (padded, flat, over all `frames`).

        `allowed`: bool (T, R), which reference each frame may use; None: all.
        """
        device = positions.device
        total = frames * geometry.cells
        inside = (
            geometry.pad(
                torch.ones(1, 1, geometry.height, geometry.width, dtype=torch.bool, device=device)
            )
            .flatten()
            .repeat(frames)
        )
        horizontal = geometry.offsets(1, device)
        vertical = geometry.offsets(geometry.stride, device)
        pixels = Rows(positions, total)
        around = pixels.spread(vertical).spread(horizontal).positions
        queries = Rows(around[inside[around]], total)
        offsets = (vertical[:, None] + horizontal).flatten()
        counts = inside[positions[:, None] + offsets].sum(dim=1)
        patches = queries.spread(vertical).spread(horizontal)
        forbidden: dict[int, list[slice]] = {}
        if allowed is not None:
            frame = queries.positions // geometry.cells
            edges = torch.searchsorted(frame, torch.arange(frames + 1, device=device)).tolist()
            for t, reference in (~allowed).nonzero().tolist():
                if edges[t] < edges[t + 1]:
                    forbidden.setdefault(reference, []).append(slice(edges[t], edges[t + 1]))
        return cls(geometry, pixels, queries, patches, counts, forbidden)
