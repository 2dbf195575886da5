from __future__ import annotations

import pytest
import torch

from cssta.fused_attention import attend


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
