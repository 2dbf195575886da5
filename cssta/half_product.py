"""Matrix products of factors rounded to half precision, whatever their range.

Shapes: M rows, K terms, N columns.
"""

from __future__ import annotations

import torch
from torch import Tensor


def product(a: Tensor, b: Tensor, half: torch.dtype | None) -> Tensor:
    """`a @ b`, (M, K) and (K, N) -> (M, N), all of one type; `half`: what to round the factors to.

    Sums are formed in float32 (on a CPU in the arguments' type) and not rounded.
    """
    if half is None:
        return a @ b
    if half != torch.float16:
        return _sums(a.to(half), b.to(half), a.dtype)
    # Float16 ends at 65504 and at 6e-8: products of plain features leave it, so do gradients. So
    # each row of `a` and column of `b` is divided by a power of two, which is exact, and the result
    # multiplied by it.
    left, rows = _within_one(a, dim=1)
    right, columns = _within_one(b, dim=0)
    return _sums(left, right, a.dtype).mul_(rows).mul_(columns)


def _sums(a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    if a.is_cuda:
        return torch.mm(a, b, out_dtype=torch.float32).to(dtype)
    # In half precision a CPU would round the result, and keep a kernel for every size that occurs.
    return a.to(dtype) @ b.to(dtype)


def _within_one(matrix: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """The matrix in float16, its largest values along `dim` about 1, and what it was divided by."""
    largest = torch.linalg.vector_norm(matrix, torch.inf, dim, keepdim=True)
    exponent = torch.frexp(largest).exponent.clamp(-100, 100)
    power = torch.ldexp(torch.ones_like(largest), exponent)
    return (matrix / power).half(), power
