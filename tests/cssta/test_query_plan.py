from __future__ import annotations

import torch

from cssta.diagonal_sum import Geometry
from cssta.query_plan import Plan


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


def test_what_a_target_may_not_see_is_told_by_rows():
    hole = torch.zeros(3, 1, 4, 4, dtype=torch.bool)
    hole[0, 0, 1, 1] = hole[2, 0, 0, 0] = True
    geometry = Geometry(4, 4, 1)
    positions = geometry.pad(hole).flatten().nonzero().squeeze(1)
    allowed = torch.tensor([[1, 0], [0, 0], [0, 1]]).bool()
    made = Plan.of(positions, geometry, 3, allowed)
    # The second frame has no hole, so no rows.
    assert made.forbidden == {1: [slice(0, 9)], 0: [slice(9, 13)]}
