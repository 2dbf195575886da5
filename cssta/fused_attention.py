"""PyTorch's fused attention on a CPU, in sizes that recur.

In half precision PyTorch compiles a kernel for every size of a block's rest and keeps it for ever:
holes that move have ever other numbers of queries and keys, and a process would grow with every
frame. Rounded up, there are only a few dozen.

Shapes: Q queries and K keys, D channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

ROUND = 64  # queries and keys


def attend(
    query: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Softmax of `query @ keys.T` over `values`, not differentiable.

    `query` (Q, D), `keys` and `values` (K, D), K >= 1, all of one type; `visible` bool (K,), which
    of them count, at least one; None: all -> (Q, D) and the logarithms of the softmax's sums (Q,),
    float32.
    """
    count, length = len(query), len(keys)
    query, keys, values, mask = _rounded(query, keys, values)
    if visible is not None:
        mask = query.new_zeros(1, 1, 1, len(keys)) if mask is None else mask
        mask[..., :length].masked_fill_(~visible, float("-inf"))
    # The public function keeps the normaliser to itself; this one trusts that rows are contiguous.
    query, keys, values = (x.contiguous() for x in (query, keys, values))
    output, log_sum = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query[None, None], keys[None, None], values[None, None], attn_mask=mask, scale=1.0
    )
    return output[0, 0, :count], log_sum[0, 0, :count]


def attend_learning(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """As `attend`, but differentiable, on any device, all keys visible: (Q, D).

    The arguments' types may differ under autocast, which then decides.
    """
    count, mask = len(query), None
    if query.device.type == "cpu":
        query, keys, values, mask = _rounded(query, keys, values)
    parts = (part[None, None] for part in (query, keys, values))
    return F.scaled_dot_product_attention(*parts, attn_mask=mask, scale=1.0)[0, 0, :count]


def _rounded(
    query: Tensor, keys: Tensor, values: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Queries, keys and values in sizes that recur, and a mask that hides the keys so added."""
    half, length = query.dtype in (torch.bfloat16, torch.float16), len(keys)
    if half or torch.is_autocast_enabled("cpu"):
        query, keys, values = (F.pad(x, (0, 0, 0, -len(x) % ROUND)) for x in (query, keys, values))
    if len(keys) == length:
        return query, keys, values, None
    mask = query.new_zeros(1, 1, 1, len(keys))
    mask[..., length:] = float("-inf")
    return query, keys, values, mask
