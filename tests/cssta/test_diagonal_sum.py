from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cssta import diagonal_sum
from cssta.diagonal_sum import DiagonalSum, Geometry, Rows


def dense(positions: torch.Tensor, x: torch.Tensor, total: int) -> torch.Tensor:
    """(rows, columns) with rows at `positions` -> (total, columns), absent rows zero."""
    result = x.new_zeros(total, x.shape[1])
    result[positions] = x[: len(positions)]
    return result


@pytest.mark.parametrize("half", [0, 1, 2])
def test_a_border_comes_and_goes(half):
    maps = torch.randn(2, 3, 4, 5)
    geometry = Geometry(4, 5, half)
    padded = geometry.pad(maps)
    assert padded.shape == (2, geometry.cells, 3)
    assert torch.equal(geometry.crop(padded), maps)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 5),
    width=st.integers(1, 5),
    half=st.integers(0, 2),
    frames=st.integers(1, 2),
    references=st.integers(1, 2),
    seed=st.integers(0, 10_000),
)
def test_sums_over_all_offsets(height, width, half, frames, references, seed):
    rng = torch.Generator().manual_seed(seed)
    geometry = Geometry(height, width, half)
    inside = geometry.pad(torch.ones(frames, 1, height, width)).flatten() > 0
    total, columns = frames * geometry.cells, references * geometry.cells
    wanted = inside & (torch.rand(total, generator=rng) < 0.5)
    target = Rows(wanted.nonzero().squeeze(1), total)
    steps = [geometry.offsets(geometry.stride, "cpu"), geometry.offsets(1, "cpu")]
    source = target.spread(steps[0]).spread(steps[1])
    x = torch.randn(len(source), columns, dtype=torch.float64, generator=rng)
    x[-1] = 0

    result = DiagonalSum(source, target, geometry)(x)

    full = dense(source.positions, x, total)
    # Border columns are no keys; what stands there is never used.
    keys = geometry.pad(torch.ones(references, 1, height, width)).flatten() > 0
    for row, position in enumerate(target.positions.tolist()):
        expected = torch.zeros(columns, dtype=torch.float64)
        for shift in (int(a + b) for a in steps[0] for b in steps[1]):
            if 0 <= position + shift < total:
                first, last = max(0, -shift), min(columns, columns - shift)
                if first < last:
                    moved = full[position + shift, first + shift : last + shift]
                    expected[first:last] += moved
        assert torch.allclose(result[row][keys], expected[keys], atol=1e-12)
    assert not result[-1].any(), "the absent row stays zero"


def test_gathering_rows_equals_adding_whole_stretches(monkeypatch):
    geometry = Geometry(5, 6, 1)
    wanted = geometry.pad(torch.rand(2, 1, 5, 6) < 0.5).flatten()
    target = Rows(wanted.nonzero().squeeze(1), 2 * geometry.cells)
    steps = [geometry.offsets(geometry.stride, "cpu"), geometry.offsets(1, "cpu")]
    source = target.spread(steps[0]).spread(steps[1])
    x = torch.randn(len(source), 3 * geometry.cells, dtype=torch.float64)
    x[-1] = 0
    added = DiagonalSum(source, target, geometry)(x)
    # As on a GPU.
    monkeypatch.setattr(diagonal_sum, "_stretches", lambda rows, absent: None)
    assert torch.equal(DiagonalSum(source, target, geometry)(x), added)


def test_rows_stand_where_the_table_says():
    rows = Rows(torch.tensor([2, 3, 7]), total=9)
    assert len(rows) == 4
    asked = torch.tensor([-1, 0, 2, 3, 6, 7, 8, 9])
    assert rows.find(asked).tolist() == [3, 3, 0, 1, 3, 2, 3, 3, 3]


def test_spread_stays_within_the_frames():
    rows = Rows(torch.tensor([0, 5]), total=7)
    assert rows.spread(torch.tensor([-2, 0, 2])).positions.tolist() == [0, 2, 3, 5]


@pytest.mark.parametrize("half", [0, 1, 2])
def test_a_step_down_is_one_stride(half):
    geometry = Geometry(3, 4, half)
    maps = torch.arange(12.0).view(1, 1, 3, 4)
    flat = geometry.pad(maps)[0, :, 0]
    assert len(flat) == geometry.cells
    first = int((flat == 1).nonzero()) - 1
    assert flat[first + geometry.stride] == maps[0, 0, 1, 0]


@pytest.mark.parametrize("half", [0, 1, 2])
def test_shifts_are_the_offsets_as_numbers(half):
    geometry = Geometry(3, 4, half)
    for step in (1, geometry.stride):
        assert geometry.shifts(step) == geometry.offsets(step, "cpu").tolist()
