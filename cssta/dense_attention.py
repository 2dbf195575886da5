"""Eq. 1 and 2 as they are written, for all positions at once: what the benchmark compares with.

Shapes: T targets, R references, C channels, H and W map size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cssta.attention import CSSTALayer, hole_region_attention


class DenseAttention(nn.Module):
    """In place of a `CSSTALayer`: every position is a query, scores of all references at once."""

    def __init__(self, layer: CSSTALayer) -> None:
        super().__init__()
        self.log_scale = layer.log_scale

    def forward(
        self, targets, references, target_masks, reference_masks, allowed=None, budget=0
    ) -> tuple[Tensor, Tensor]:
        """As `CSSTALayer`; the entropy is not measured."""
        scale, size = self.log_scale.exp(), targets.shape[2:]
        references = references.to(targets.dtype)
        values = _unfold(references)  # (R, H W, 9 C)
        visible = F.max_pool2d((reference_masks > 0.5).float(), 3, 1, 1).flatten(1) < 0.5
        outputs = []
        for t, queries in enumerate(_unfold(targets)):
            seen = visible if allowed is None else visible & allowed[t, :, None]
            scores = scale * _unit(queries) @ _unit(values).flatten(0, 1).T
            scores.masked_fill_(~seen.flatten(), float("-inf"))
            weights = scores.softmax(dim=1) if seen.any() else torch.zeros_like(scores)
            mixed = (weights.to(values.dtype) @ values.flatten(0, 1)).T[None]
            count = F.fold(torch.ones_like(mixed), size, 3, padding=1)
            outputs.append(F.fold(mixed, size, 3, padding=1) / count)
        mask = target_masks.to(targets.dtype)
        inter = torch.cat(outputs) * mask
        inside = hole_region_attention(targets, target_masks > 0.5, scale=scale)
        return inter + inside, targets.new_full((), torch.nan)


def score_bytes(height: int, width: int, references: int) -> int:
    """What the scores of one frame take, and their softmax as much again: image size in pixels."""
    positions = -(-height // 4) * -(-width // 4)
    return 2 * 4 * positions * positions * references


def _unfold(maps: Tensor) -> Tensor:
    return F.unfold(maps, 3, padding=1).transpose(1, 2)


def _unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=-1, keepdim=True).clamp_min(1e-6)
