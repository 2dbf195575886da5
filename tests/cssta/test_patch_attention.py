from __future__ import annotations

import pytest
import torch

from cssta.attention import attend_clip
from cssta.diagonal_sum import Geometry
from cssta.patch_attention import Setting
from cssta.reference_tiles import ReferenceTiles


def setting(references: int, budget: int, height: int = 40, width: int = 50) -> Setting:
    geometry = Geometry(height, width, 1)
    hole = torch.ones(1, 1, height, width, dtype=torch.bool)
    features = torch.zeros(references, 1, height, width)
    device = torch.device("cpu")
    tiles = ReferenceTiles(features, features, geometry, torch.float32, device, 10**6)
    positions = geometry.pad(hole).flatten().nonzero().squeeze(1)
    return Setting(positions, geometry, 1, tiles, None, 30.0, budget, None, False)


def test_blocks_hold_all_hole_pixels_once():
    made = setting(3, 2**20)
    blocks = [plan.pixels.positions for plan in made.plans()]
    assert len(blocks) > 1
    assert torch.equal(torch.cat(blocks), made.positions)


def test_what_is_kept_and_what_is_worked_on_fit_the_budget_together():
    for budget in (2**20, 2**24, 2**28):
        made = setting(3, budget)
        assert 0 < made.spare + 4 * 4 * made.tile_values <= budget
        assert made.spare >= budget // 2


def test_blocks_are_large_whatever_the_number_of_references():
    few, many = (len(list(setting(count, 2**24).plans())) for count in (20, 2000))
    assert many <= few


@pytest.mark.parametrize("scale", [1e-3, 43.0, 44.0, 1e3, 1e6])
def test_exponentials_neither_vanish_nor_overflow(scale):
    rng = torch.manual_seed(0)
    targets, references = torch.randn(1, 2, 6, 7, generator=rng), torch.randn(2, 2, 6, 7)
    references[1] = -targets[0]  # as far below the bound as a score can be
    hole, nothing = torch.ones(1, 1, 6, 7), torch.zeros(2, 1, 6, 7)
    results = [
        attend_clip(targets.to(dtype), references.to(dtype), hole, nothing, scale=scale)[0]
        for dtype in (torch.float32, torch.float64)
    ]
    assert torch.isfinite(results[0]).all()
    # Logits of a million are known to about a tenth in single precision.
    assert torch.allclose(results[0].double(), results[1], rtol=1e-4 + 1e-7 * scale, atol=1e-4)
    lonely, _ = attend_clip(targets, references[1:], hole, nothing[1:], scale=scale)
    assert torch.isfinite(lonely).all()


def test_a_second_derivative_is_refused_in_words():
    features = torch.randn(1, 2, 4, 4, requires_grad=True)
    hole, nothing = torch.ones(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    result, _ = attend_clip(features, features.detach(), hole, nothing, scale=9.0)
    (gradient,) = torch.autograd.grad(result.square().sum(), features, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
