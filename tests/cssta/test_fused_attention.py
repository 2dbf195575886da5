from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from cssta.attention import hole_region_attention
from cssta.fused_attention import attend, attend_learning
from cssta.unfold_attention import unfold_attention


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("queries, keys", [(1, 1), (64, 64), (63, 65), (100, 700), (3, 2000)])
@pytest.mark.parametrize("scale", [1, -30])
def test_it_is_softmax_attention(dtype, queries, keys, scale):
    torch.manual_seed(0)
    query, key, value = (torch.randn(n, 24).to(dtype) for n in (queries, keys, keys))
    query = (query * scale / 24).to(dtype)
    output, log_sum = attend(query, key, value)
    scores = query.double() @ key.double().T
    tolerance = 1e-4 if dtype == torch.float32 else 3e-2
    assert output.shape == (queries, 24) and output.dtype == dtype
    assert torch.allclose(output.double(), scores.softmax(1) @ value.double(), atol=tolerance)
    assert torch.allclose(log_sum.double(), scores.logsumexp(1), atol=tolerance)


def test_all_keys_count_however_low_their_scores():
    query, value = torch.full((5, 8), -50.0).bfloat16(), torch.arange(24.0).view(3, 8).bfloat16()
    output, log_sum = attend(query, torch.full((3, 8), 50.0).bfloat16(), value)
    assert torch.allclose(output.float(), torch.arange(8.0, 16.0).expand(5, 8), atol=0.1)
    assert torch.allclose(log_sum, torch.tensor(-20000.0 + 1.0986), rtol=1e-3)


def test_few_sizes_occur(monkeypatch):
    seen = set()
    plain = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu

    class Watched:
        @staticmethod
        def _scaled_dot_product_flash_attention_for_cpu(query, keys, *rest, **options):
            seen.add((query.shape[2] % 64, keys.shape[2] % 64))
            return plain(query, keys, *rest, **options)

    monkeypatch.setattr(torch.ops, "aten", Watched)
    for size in range(1, 200, 13):
        attend(*(torch.randn(n, 8).bfloat16() for n in (size, 2 * size, 2 * size)))
    assert seen == {(0, 0)}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("queries, keys", [(1, 1), (64, 64), (63, 65), (100, 700), (3, 2000)])
def test_gradients_are_those_of_softmax_attention(dtype, queries, keys):
    torch.manual_seed(0)
    inputs = [torch.randn(n, 24).to(dtype) for n in (queries, keys, keys)]
    inputs[0] *= 0.4
    weight = torch.randn(queries, 24, dtype=torch.float64)
    leaves = [x.clone().requires_grad_() for x in inputs]
    output = attend_learning(*leaves)
    assert output.shape == (queries, 24) and output.dtype == dtype
    (weight * output).sum().backward()
    exact = [x.double().requires_grad_() for x in inputs]
    expected = (exact[0] @ exact[1].T).softmax(1) @ exact[2]
    (weight * expected).sum().backward()
    tolerance = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 4e-2}[dtype]
    pairs = [(output, expected), *((x.grad, y.grad) for x, y in zip(leaves, exact, strict=True))]
    for ours, theirs in pairs:
        assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max().clamp_min(1)


class Sizes(TorchDispatchMode):
    """Queries and keys that fused attention was called with, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, set[tuple[int, int]]] = {"forward": set(), "backward": set()}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function)
        if "_scaled_dot_product_flash_attention_for_cpu" in name:
            query, keys = args[1:3] if "backward" in name else args[:2]
            size = query.shape[2], keys.shape[2]
            self.seen["backward" if "backward" in name else "forward"].add(size)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("part", ["unfold", "hole-region"])
def test_few_sizes_occur_in_training(part):
    with Sizes() as sizes, torch.autocast("cpu", torch.bfloat16):
        for size in range(1, 160, 13):
            hole = (torch.arange(12 * 14) < size).view(1, 1, 12, 14)
            targets = torch.randn(1, 4, 12, 14, requires_grad=True)
            if part == "unfold":
                hidden = (torch.arange(12 * 14) < size // 3).view(1, 1, 12, 14)
                output, _ = unfold_attention(targets, targets.detach(), hole, hidden, scale=9.0)
            else:
                output = hole_region_attention(targets, hole, scale=9.0)
            output.float().square().sum().backward()
    for seen in sizes.seen.values():
        assert len(seen) > 2
        assert all(queries % 64 == keys % 64 == 0 for queries, keys in seen)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("keys, first, last", [(9, 0, 1), (1600, 600, 1600), (1600, 0, 700)])
def test_hidden_keys_might_as_well_be_missing(dtype, keys, first, last):
    torch.manual_seed(0)
    # Transposed, as unfolding makes them.
    query, key, value = (torch.randn(24, n).to(dtype).T for n in (17, keys, keys))
    visible = torch.zeros(keys, dtype=torch.bool)
    visible[first:last] = True
    output, log_sum = attend(query, key, value, visible)
    expected, expected_sum = attend(query, key[first:last], value[first:last])
    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-5
    assert torch.allclose(output, expected, atol=tolerance)
    assert torch.allclose(log_sum, expected_sum, atol=tolerance)
