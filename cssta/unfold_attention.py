"""Eq. 1 by unfolding every patch, through PyTorch's own fused attention.

It does patch_size ** 2 times the multiplications of `cssta.patch_attention` and is exact all the
same. Where a matrix unit makes multiplications nearly free but memory is slow (bfloat16 on a CPU
with AMX), that is the better trade; elsewhere the benchmark compares with it.

Shapes: T targets, R references, C channels, Q queries and K keys, D = C * patch_size ** 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from cssta.fused_attention import attend, attend_learning
from cssta.uncompiled import uncompiled

KEYS_ROUND = 512  # keys of a part, in multiples of this
ENTROPY_ROWS = 256  # queries whose scores are held at once to measure their entropy


@uncompiled
def unfold_attention(
    targets: Tensor,
    references: Tensor,
    hole: Tensor,
    reference_masks: Tensor,
    *,
    scale: float | Tensor,
    patch_size: int = 3,
    allowed: Tensor | None = None,
    budget: int = 2**27,
    track_entropy: bool = False,
) -> tuple[Tensor, Tensor]:
    """Arguments and results as `cssta.attention.inter_frame_attention`.

    On a CPU and without gradients or entropy, references are unfolded a few rows at a time: about
    `budget` bytes of them, however many there are. Otherwise all at once, which is for training on
    small crops and for comparison.
    """
    device, pad = targets.device, patch_size // 2
    half = torch.is_autocast_enabled(device.type)
    wide = torch.promote_types(targets.dtype, references.dtype)
    wide = torch.promote_types(wide, torch.float32)  # norms of stored half-precision features
    dtype = torch.get_autocast_dtype(device.type) if half else targets.dtype
    learning = torch.is_grad_enabled() and (targets.requires_grad or references.requires_grad)
    streamed = device.type == "cpu" and not learning and not track_entropy
    mask = hole.to(targets.dtype)
    near = F.max_pool2d(hole.float(), patch_size, 1, pad).flatten(1) > 0.5
    # A part is there six times in the end: values, keys, those that are seen, and their copies.
    limit = budget // (6 * wide.itemsize) if streamed else None
    keys_of = partial(_keys, references, reference_masks, patch_size, device, wide, limit)
    whole = None if streamed else list(keys_of())
    outputs, entropies = [], [targets.new_zeros(0)]
    for t in range(len(targets)):
        queries = F.unfold(targets[t : t + 1].to(wide), patch_size, padding=pad)[0].T
        mixed = torch.zeros_like(queries)
        index = near[t].nonzero().squeeze(1)
        if len(index):
            query = queries[index]
            query = scale * query / query.norm(dim=1, keepdim=True).clamp_min(1e-6)
            parts = keys_of() if whole is None else whole
            seen = None if allowed is None else allowed[t]
            mix = _streamed if streamed else _fused
            result = mix(query, parts, seen, dtype)
            if result is not None:
                mixed = mixed.index_copy(0, index, result.to(mixed.dtype))
            if track_entropy and whole:
                _, visible, keys, _ = whole[0]
                keys = keys[visible if seen is None else visible & seen[whole[0][0]]]
                entropies.append(_entropy(query.detach(), keys.detach()))
        outputs.append(_fold(mixed, targets.shape[2:], patch_size))
    return torch.stack(outputs).to(targets.dtype) * mask, torch.cat(entropies).nanmean()


Keys = tuple[Tensor, Tensor, Tensor, Tensor]  # reference numbers, visible (K,); keys, values (K, D)


def _keys(
    references: Tensor,
    masks: Tensor,
    patch: int,
    device: torch.device,
    dtype: torch.dtype,
    limit: int | None,
) -> Iterator[Keys]:
    """All references' patches in order, about `limit` values at a time (None: all at once)."""
    count, channels, height, width = references.shape
    pad = patch // 2
    if limit is None:
        rows, group = height, max(1, count)
    else:
        per_row = channels * patch**2 * width
        rows = max(1, min(height, limit // per_row))
        group = max(1, limit // (per_row * height))
    for start in range(0, count, group):
        chunk = references[start : start + group].to(device, dtype)
        numbers = torch.arange(start, start + len(chunk), device=device)
        hidden = (masks[start : start + group].to(device) > 0.5).float()
        visible = F.max_pool2d(hidden, patch, 1, pad) < 0.5
        padded = F.pad(chunk, [pad] * 4)
        for top in range(0, height, rows):
            bottom = min(height, top + rows)
            values = F.unfold(padded[:, :, top : bottom + 2 * pad], patch)
            values = values.transpose(1, 2).flatten(0, 1)
            yield (
                numbers.repeat_interleave((bottom - top) * width),
                visible[:, :, top:bottom].flatten(),
                values / values.norm(dim=1, keepdim=True).clamp_min(1e-6),
                values,
            )


def _fused(query: Tensor, parts, allowed, dtype: torch.dtype) -> Tensor | None:
    """(Q, D) -> (Q, D), differentiable; None where nothing is seen."""
    for numbers, visible, keys, values in parts:  # (one, or none)
        seen = visible if allowed is None else visible & allowed[numbers]
        if seen.any():
            return attend_learning(*(part.to(dtype) for part in (query, keys[seen], values[seen])))
    return None


def _streamed(query: Tensor, parts, allowed, dtype: torch.dtype) -> Tensor | None:
    """As `_fused`, a running softmax over any number of parts."""
    query = query.to(dtype)
    total, level = None, None
    for numbers, visible, keys, values in parts:
        seen = visible if allowed is None else visible & allowed[numbers]
        index = seen.nonzero().squeeze(1)
        if not len(index):
            continue
        # Few sizes, whatever is hidden, so that they reuse each other's memory.
        filled = F.pad(index, (0, -len(index) % KEYS_ROUND))
        counts = torch.arange(len(filled), device=query.device) < len(index)
        output, log_sum = attend(query, keys[filled].to(dtype), values[filled].to(dtype), counts)
        output, log_sum = output.to(values.dtype), log_sum[:, None].to(values.dtype)
        if total is None:
            total, level = output, log_sum
        else:
            higher = torch.logaddexp(level, log_sum)
            total = total * (level - higher).exp() + output * (log_sum - higher).exp()
            level = higher
    return total


def _fold(rows: Tensor, size: tuple[int, int], patch: int) -> Tensor:
    """Patches (H * W, D) back to their places, overlaps averaged: (C, H, W)."""
    pad = patch // 2
    ones = rows.new_ones(1, patch**2, len(rows))
    count = F.fold(ones, size, patch, padding=pad)[0]
    return F.fold(rows.T[None], size, patch, padding=pad)[0] / count


def _entropy(queries: Tensor, keys: Tensor) -> Tensor:
    """Of each query's softmax over all keys, in nats: (Q, D), (K, D) -> (Q,), nan without keys."""
    parts = [(part @ keys.T).float().log_softmax(dim=1) for part in queries.split(ENTROPY_ROWS)]
    entropy = torch.cat([-(part.exp() * part).sum(dim=1) for part in parts])
    return entropy if len(keys) else torch.full_like(entropy, torch.nan)
