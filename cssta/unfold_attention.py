"""Eq. 1 by unfolding every patch, through PyTorch's own fused attention.

It does patch_size ** 2 times the multiplications of `cssta.patch_attention` and is exact all the
same. Where a matrix unit makes multiplications nearly free but memory is slow (bfloat16 on a CPU
with AMX), that is the better trade for training; elsewhere the benchmark compares with it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

ENTROPY_ROWS = 256  # queries whose scores are held at once to measure their entropy


def unfold_attention(
    targets: Tensor,
    references: Tensor,
    hole: Tensor,
    reference_masks: Tensor,
    *,
    scale: float | Tensor,
    patch_size: int = 3,
    allowed: Tensor | None = None,
    track_entropy: bool = False,
) -> tuple[Tensor, Tensor]:
    """Arguments and results as `cssta.attention.inter_frame_attention`."""
    pad = patch_size // 2
    mask = hole.float()
    near = F.max_pool2d(mask, patch_size, 1, pad).flatten(1) > 0.5
    touched = F.max_pool2d((reference_masks > 0.5).float(), patch_size, 1, pad)
    visible = touched.flatten(1) < 0.5
    queries = F.unfold(targets, patch_size, padding=pad).transpose(1, 2)
    values = F.unfold(references, patch_size, padding=pad).transpose(1, 2)
    keys = values / values.norm(dim=2, keepdim=True).clamp_min(1e-6)
    count = F.fold(
        torch.ones_like(queries[:1].transpose(1, 2)), targets.shape[2:], patch_size, padding=pad
    )
    half = torch.is_autocast_enabled(targets.device.type)
    dtype = torch.get_autocast_dtype(targets.device.type) if half else targets.dtype
    outputs, entropies = [], [targets.new_zeros(0)]
    for t in range(len(targets)):
        seen = visible if allowed is None else visible & allowed[t, :, None]
        mixed = torch.zeros_like(queries[t])
        if near[t].any() and seen.any():
            query = queries[t][near[t]]
            query = scale * query / query.norm(dim=1, keepdim=True).clamp_min(1e-6)
            parts = (query, keys[seen], values[seen])
            result = F.scaled_dot_product_attention(
                *(part.to(dtype)[None, None] for part in parts), scale=1.0
            )
            if track_entropy:
                entropies.append(_entropy(query.detach(), keys[seen].detach()))
            index = near[t].nonzero().squeeze(1)
            mixed = mixed.index_copy(0, index, result[0, 0].to(mixed.dtype))
        outputs.append(mixed)
    folded = F.fold(
        torch.stack(outputs).transpose(1, 2), targets.shape[2:], patch_size, padding=pad
    )
    return folded / count * mask, torch.cat(entropies).nanmean()


def _entropy(queries: Tensor, keys: Tensor) -> Tensor:
    """Of each query's softmax over all keys, in nats: (Q, C), (K, C) -> (Q,)."""
    parts = [(part @ keys.T).float().log_softmax(dim=1) for part in queries.split(ENTROPY_ROWS)]
    return torch.cat([-(part.exp() * part).sum(dim=1) for part in parts])
