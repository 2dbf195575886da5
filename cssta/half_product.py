"""Matrix products of factors rounded to half precision, whatever their range.

Shapes: M rows, K terms, N columns.
"""

from __future__ import annotations

import torch
from torch import Tensor


def product(a: Tensor, b: Tensor, half: torch.dtype | None) -> Tensor:
    """`a @ b`, (M, K) and (K, N) -> (M, N), all of one type; `half`: what to round the factors to.

    Sums are formed in float32; those of bfloat16 factors on a CPU are then rounded as well.
    """
    if half is None:
        return a @ b
    if half == torch.float16:
        return _float16_product(a, b)
    if a.is_cuda:
        return torch.mm(a.to(half), b.to(half), out_dtype=torch.float32).to(a.dtype)
    return (a.to(half) @ b.to(half)).to(a.dtype)


def _float16_product(a: Tensor, b: Tensor) -> Tensor:
    """`a @ b` of factors rounded to float16, whatever their range; added up in float32.

    Float16 ends at 65504 and at 6e-8: products of plain features leave it, so do gradients. So each
    row of `a` and column of `b` is divided by a power of two, which is exact, and the result
    multiplied by it.
    """
    left, rows = _within_one(a, dim=1)
    right, columns = _within_one(b, dim=0)
    if a.is_cuda:
        result = torch.mm(left, right, out_dtype=torch.float32)
    else:  # CPUs would round the result to float16
        result = left.float() @ right.float()
    return result.to(a.dtype).mul_(rows).mul_(columns)


def _within_one(matrix: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """The matrix in float16, its largest values along `dim` about 1, and what it was divided by."""
    largest = torch.linalg.vector_norm(matrix, torch.inf, dim, keepdim=True)
    exponent = torch.frexp(largest).exponent.clamp(-100, 100)
    power = torch.ldexp(torch.ones_like(largest), exponent)
    return (matrix / power).half(), power
