from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from cssta.diagonal_sum import Geometry
from cssta.reference_tiles import ReferenceTiles, norm_inverse


@pytest.mark.parametrize("patch", [1, 3, 5])
def test_norms_of_patches(patch):
    maps = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    geometry = Geometry(5, 7, patch // 2)
    expected = 1 / F.unfold(maps, patch, padding=patch // 2).norm(dim=1)
    padded = norm_inverse(geometry.pad(maps), geometry).view(2, -1, geometry.stride)
    inside = padded[:, geometry.half :, geometry.half :][:, :5, :7]
    assert torch.allclose(inside.flatten(1), expected, rtol=1e-12)


def test_a_dead_patch_has_a_finite_norm_and_no_gradient():
    maps = torch.zeros(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    geometry = Geometry(4, 4, 1)
    result = norm_inverse(geometry.pad(maps), geometry)
    assert torch.equal(result, torch.full_like(result, 1e6))
    result.sum().backward()
    assert not maps.grad.any()


def tiles(count: int, limit: int, dtype: torch.dtype = torch.float32) -> ReferenceTiles:
    features = torch.randn(count, 2, 4, 5).to(dtype)
    masks = torch.zeros(count, 1, 4, 5)
    masks[:, :, 0, 0] = 1
    geometry = Geometry(4, 5, 1)
    return ReferenceTiles(features, masks, geometry, torch.float32, torch.device("cpu"), limit)


@pytest.mark.parametrize("limit", [1, 2 * 2 * 42, 10**6])
def test_groups_are_all_references_in_order(limit):
    made = tiles(5, limit)
    assert [i for group in made.groups for i in range(5)[group]] == list(range(5))
    columns = torch.cat([made.read(group).columns for group in made.groups])
    assert torch.equal(columns, made.geometry.pad(made.features).flatten(0, 1))


@pytest.mark.parametrize("width", [1, 10, 42, 50, 1000])
def test_tiles_are_all_columns_in_order(width):
    made = tiles(3, 10**6)
    (group,) = made.groups
    stretches = made.tiles(group, width)
    assert [i for tile in stretches for i in range(tile.start, tile.stop)] == list(range(3 * 42))
    assert max(tile.stop - tile.start for tile in stretches) < 2 * max(width, 1) + 1


def test_hidden_keys_and_the_border_are_excluded():
    made = tiles(1, 10**6)
    bias = made.read(made.groups[0]).bias.view(6, 7)
    seen = torch.zeros(6, 7, dtype=torch.bool)
    seen[1:5, 1:6] = True
    seen[1:3, 1:3] = False  # patches that touch the hole in the corner
    assert torch.equal(bias == 0, seen) and torch.equal(bias.isneginf(), ~seen)


def test_features_are_read_at_the_precision_of_the_work():
    made = tiles(2, 1, torch.bfloat16)
    assert made.features.dtype == torch.bfloat16
    assert made.read(made.groups[1]).columns.dtype == torch.float32
