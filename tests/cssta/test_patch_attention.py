from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from cssta.diagonal_sum import Geometry
from cssta.patch_attention import Plan, norm_inverse


@pytest.mark.parametrize("patch", [1, 3, 5])
def test_norms_of_patches(patch):
    maps = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    geometry = Geometry(5, 7, patch // 2)
    expected = 1 / F.unfold(maps, patch, padding=patch // 2).norm(dim=1)
    padded = norm_inverse(maps, geometry, maps.dtype).view(2, -1, geometry.stride)
    inside = padded[:, geometry.half :, geometry.half :][:, :5, :7]
    assert torch.allclose(inside.flatten(1), expected, rtol=1e-12)


def test_a_dead_patch_has_a_finite_norm_and_no_gradient():
    maps = torch.zeros(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    geometry = Geometry(4, 4, 1)
    result = norm_inverse(maps, geometry, maps.dtype)
    assert torch.equal(result, torch.full_like(result, 1e6))
    result.sum().backward()
    assert not maps.grad.any()


def plan(hole: torch.Tensor, patch: int = 3) -> Plan:
    geometry = Geometry(*hole.shape[2:], patch // 2)
    positions = geometry.pad(hole).flatten().nonzero().squeeze(1)
    return Plan.of(positions, geometry, len(hole), None)


def test_pixels_are_covered_by_four_six_or_nine_patches():
    counts = plan(torch.ones(1, 1, 3, 4, dtype=torch.bool)).counts
    assert counts.view(3, 4).tolist() == [[4, 6, 6, 4], [6, 9, 9, 6], [4, 6, 6, 4]]


def test_only_the_hole_and_a_ring_around_it_are_asked_for():
    hole = torch.zeros(2, 1, 9, 9, dtype=torch.bool)
    hole[0, 0, 4, 4] = True
    hole[1, 0, 0, 0] = True
    made = plan(hole)
    assert len(made.pixels.positions) == 2
    assert len(made.queries.positions) == 9 + 4
    assert len(made.patches.positions) == 25 + 16  # the corner's patches reach into the border


def test_one_pixel_patches_need_no_ring():
    hole = torch.zeros(1, 1, 5, 5, dtype=torch.bool)
    hole[..., 2, 2:4] = True
    made = plan(hole, patch=1)
    assert torch.equal(made.queries.positions, made.pixels.positions)
    assert made.counts.tolist() == [1, 1]
