from __future__ import annotations

import pytest
import torch

from cssta.half_product import product


@pytest.mark.parametrize("size", [1e-12, 1e-6, 1, 1e6, 1e12])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("half", [None, torch.float16, torch.bfloat16])
def test_products_of_any_range(half, dtype, size):
    rng = torch.manual_seed(0)
    a, b = torch.randn(7, 300, generator=rng), torch.randn(300, 5, generator=rng)
    a[2] *= 1e4  # beside much smaller rows
    b[:, 3] *= 1e-4
    a[4] = 0
    left, right = (a * size).to(dtype), (b * size).to(dtype)
    result = product(left, right, half)
    assert result.dtype == dtype
    expected = (a * size).double() @ (b * size).double()
    terms = (a * size).double().abs() @ (b * size).double().abs()
    assert ((result - expected).abs() <= (2e-2 if half == torch.bfloat16 else 2e-3) * terms).all()


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_only_factors_are_rounded(half):
    rng = torch.manual_seed(0)
    a, b = (torch.randn(5, 100, generator=rng).to(half).float() for _ in range(2))
    assert torch.allclose(product(a, b.T, half), a @ b.T, rtol=0, atol=1e-4)
    assert torch.equal(
        product(2.001 * a, b.T, half), product((2.001 * a).to(half).float(), b.T, half)
    )
