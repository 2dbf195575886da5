"""A slow, obvious implementation of eq. 1 to 3: explicit unfold, softmax and overlap count."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def oracle_attention(
    target: Tensor,
    references: Tensor,
    target_mask: Tensor,
    reference_masks: Tensor,
    patch_size: int = 3,
    scale: float | Tensor = 10.0,
    allowed: Tensor | None = None,
) -> Tensor:
    """Arguments and result as `cssta.attention.cssta_attention`.

    `allowed`: bool (B, R), which references each target may use; None: all.
    """
    if allowed is None:
        allowed = torch.ones(references.shape[:2], dtype=torch.bool)
    each = zip(target, references, target_mask, reference_masks, allowed, strict=True)
    return torch.stack([_one(*one, patch_size, scale) for one in each])


def oracle_clip(
    targets: Tensor,
    references: Tensor,
    target_masks: Tensor,
    reference_masks: Tensor,
    *,
    allowed: Tensor | None = None,
    patch_size: int = 3,
    scale: float | Tensor = 10.0,
) -> Tensor:
    """Arguments and `S_att` as `cssta.attention.attend_clip`."""
    shared = [x.expand(len(targets), *x.shape) for x in (references, reference_masks)]
    return oracle_attention(targets, shared[0], target_masks, shared[1], patch_size, scale, allowed)


def _one(target, references, target_mask, reference_masks, allowed, patch_size, scale):
    channels, height, width = target.shape
    pad = patch_size // 2

    def unfold(maps):  # (N, C, H, W) -> (N, H W, C k k)
        return F.unfold(maps, patch_size, padding=pad).transpose(1, 2)

    queries = unfold(target[None])[0]
    inter = torch.zeros_like(target)
    if len(references):
        values = unfold(references).flatten(0, 1)
        hidden = unfold((reference_masks > 0.5).to(target.dtype)).flatten(0, 1).sum(dim=1) > 0
        hidden |= ~allowed.repeat_interleave(height * width)
        cosine = _unit(queries) @ _unit(values).T
        logits = (scale * cosine).masked_fill(hidden, float("-inf"))
        weights = torch.zeros_like(logits) if hidden.all() else logits.softmax(dim=1)
        mixed = (weights @ values).T[None]
        total = F.fold(mixed, (height, width), patch_size, padding=pad)
        count = F.fold(torch.ones_like(mixed), (height, width), patch_size, padding=pad)
        inter = (total / count)[0]

    inside = (target_mask > 0.5).flatten()
    hole = torch.zeros(channels, height * width, dtype=target.dtype)
    if inside.any():
        blocks = target.flatten(1)[:, inside].T
        hole[:, inside] = ((scale * _unit(blocks) @ _unit(blocks).T).softmax(dim=1) @ blocks).T
    mask = (target_mask > 0.5).to(target.dtype)
    return (inter + hole.view_as(target) * mask) * mask


def _unit(rows):
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-6)
