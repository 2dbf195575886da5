from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cssta.attention import inter_frame_attention
from cssta.unfold_attention import unfold_attention


@settings(max_examples=60, deadline=None)
@given(
    targets=st.integers(1, 3),
    references=st.integers(0, 4),
    height=st.integers(1, 8),
    width=st.integers(1, 8),
    patch=st.sampled_from([1, 3, 5]),
    hole=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    hidden=st.sampled_from([0.0, 0.1, 1.0]),
    choose=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_equals_patch_attention(
    targets, references, height, width, patch, hole, hidden, choose, seed
):
    rng = torch.Generator().manual_seed(seed)
    own = torch.randn(targets, 3, height, width, dtype=torch.float64, generator=rng)
    bank = torch.randn(references, 3, height, width, dtype=torch.float64, generator=rng)
    holes = torch.rand(targets, 1, height, width, generator=rng) < hole
    hiding = (torch.rand(references, 1, height, width, generator=rng) < hidden).double()
    allowed = torch.rand(targets, references, generator=rng) < 0.6 if choose else None
    arguments = dict(scale=12.0, patch_size=patch, allowed=allowed, track_entropy=True)
    result, entropy = unfold_attention(own, bank, holes, hiding, **arguments)
    expected, expected_entropy = inter_frame_attention(own, bank, holes, hiding, **arguments)
    assert result.shape == expected.shape
    assert torch.allclose(result, expected, rtol=1e-9, atol=1e-12)
    assert torch.allclose(entropy, expected_entropy, atol=1e-5, equal_nan=True)


def test_gradients_equal_those_of_patch_attention():
    rng = torch.Generator().manual_seed(0)
    own = torch.randn(2, 4, 6, 7, dtype=torch.float64, generator=rng)
    bank = torch.randn(3, 4, 6, 7, dtype=torch.float64, generator=rng)
    holes = torch.rand(2, 1, 6, 7, generator=rng) < 0.5
    hiding = (torch.rand(3, 1, 6, 7, generator=rng) < 0.05).double()
    gradients = []
    for function in (unfold_attention, inter_frame_attention):
        leaves = [t.clone().requires_grad_() for t in (own, bank, torch.tensor(9.0).double())]
        output, _ = function(*leaves[:2], holes, hiding, scale=leaves[2])
        gradients.append(torch.autograd.grad((output**2).sum(), leaves))
    for one, two in zip(*gradients, strict=True):
        assert torch.allclose(one, two, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("budget", [1, 20_000, 2**30])
def test_streamed_references_give_the_same_result(budget):
    rng = torch.Generator().manual_seed(0)
    own = torch.randn(2, 4, 7, 9, dtype=torch.float64, generator=rng)
    bank = torch.randn(5, 4, 7, 9, dtype=torch.float64, generator=rng)
    holes = torch.rand(2, 1, 7, 9, generator=rng) < 0.5
    hiding = (torch.rand(5, 1, 7, 9, generator=rng) < 0.05).double()
    hiding[1] = 1  # a part in which nothing is seen
    allowed = torch.tensor([[1, 1, 0, 1, 1], [0, 1, 0, 0, 0]]).bool()
    expected, _ = inter_frame_attention(own, bank, holes, hiding, scale=12.0, allowed=allowed)
    with torch.no_grad():
        result, _ = unfold_attention(
            own, bank, holes, hiding, scale=12.0, allowed=allowed, budget=budget
        )
    assert torch.allclose(result, expected, rtol=1e-9, atol=1e-12)


def test_references_stored_in_half_precision():
    rng = torch.Generator().manual_seed(0)
    own, bank = torch.randn(1, 4, 7, 9, generator=rng), torch.randn(3, 4, 7, 9, generator=rng)
    holes, hiding = torch.ones(1, 1, 7, 9, dtype=torch.bool), torch.zeros(3, 1, 7, 9)
    for dtype in (torch.bfloat16, torch.float16):
        stored = bank.to(dtype)
        with torch.no_grad():
            result, _ = unfold_attention(own, stored, holes, hiding, scale=12.0)
            expected, _ = unfold_attention(own, stored.float(), holes, hiding, scale=12.0)
        assert result.dtype == torch.float32 and torch.equal(result, expected)
