from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cssta.membrane import fill_smoothly, match_surroundings


def problem(height: int, width: int, seed: int, hole: float = 0.7):
    rng = torch.Generator().manual_seed(seed)
    frames = torch.rand(2, 3, height, width, generator=rng) * 2 - 1
    masks = (torch.rand(2, 1, height, width, generator=rng) < hole).float()
    return frames, masks


sizes = st.integers(1, 37)


@settings(max_examples=60, deadline=None)
@given(sizes, sizes, st.integers(0, 1000))
def test_fills_from_what_is_visible_and_nothing_else(height, width, seed):
    frames, masks = problem(height, width, seed)
    filled = fill_smoothly(frames, masks)
    seen = masks.expand_as(frames) < 0.5
    assert torch.equal(filled[seen], frames[seen])
    other = torch.where(seen, frames, 100.0)
    assert torch.equal(fill_smoothly(other, masks), filled)
    for image, visible in zip(filled.transpose(1, 2), seen.transpose(1, 2), strict=True):
        colours = image[visible] if visible.any() else torch.zeros(1)
        assert image.min() >= colours.min() - 1e-5
        assert image.max() <= colours.max() + 1e-5


@settings(max_examples=30, deadline=None)
@given(sizes, sizes, st.integers(0, 1000))
def test_one_colour_stays_one_colour(height, width, seed):
    _, masks = problem(height, width, seed, hole=0.9)
    masks[:, :, height // 2, width // 2] = 0
    frames = torch.tensor([0.3, -0.8, 0.1]).view(1, 3, 1, 1).expand(2, -1, height, width)
    assert torch.allclose(fill_smoothly(frames, masks), frames, atol=1e-5)


def test_a_frame_that_is_all_hole_is_grey():
    assert not fill_smoothly(torch.ones(1, 3, 9, 12), torch.ones(1, 1, 9, 12)).any()


def test_the_middle_of_a_wide_hole_leans_to_its_nearer_side():
    frames, masks = torch.full((1, 1, 64, 64), -1.0), torch.ones(1, 1, 64, 64)
    frames[..., 56:] = 1
    masks[..., :8] = masks[..., 56:] = 0
    row = fill_smoothly(frames, masks)[0, 0, 32]
    assert row[12] < -0.3 < 0.3 < row[51]
    assert (row.diff() >= -1e-6).all()


def test_a_single_visible_pixel_colours_a_large_frame():
    frames, masks = torch.full((1, 1, 2048, 2048), 0.5), torch.ones(1, 1, 2048, 2048)
    masks[..., 700, 1300] = 0
    filled = fill_smoothly(frames, masks)
    assert torch.allclose(filled, frames, atol=1e-5)


def test_a_colour_cast_of_the_whole_output_is_taken_out_of_the_hole():
    frames = torch.rand(2, 3, 40, 56) * 2 - 1
    masks = torch.zeros(2, 1, 40, 56)
    masks[..., 10:30, 12:50] = 1
    cast = torch.tensor([0.2, -0.1, 0.05])[:, None, None]
    torch.testing.assert_close(match_surroundings(frames + cast, frames, masks), frames)


def test_where_everything_is_visible_or_nothing_is_there_is_nothing_to_match():
    frames = torch.rand(2, 3, 12, 9) * 2 - 1
    output = torch.rand_like(frames)
    nothing, everything = torch.zeros(2, 1, 12, 9), torch.ones(2, 1, 12, 9)
    torch.testing.assert_close(match_surroundings(output, frames, nothing), frames)
    torch.testing.assert_close(match_surroundings(output, frames, everything), output)


def test_no_step_shows_where_the_hole_begins():
    ramp = torch.linspace(-1, 1, 64).view(1, 1, 64, 1).expand(1, 1, 64, 64)
    masks = torch.zeros(1, 1, 64, 64)
    masks[..., 13:45, 9:50] = 1
    filled = fill_smoothly(ramp, masks)
    slope = 2 / 63
    steps = torch.cat([filled[0, 0, 12:14].diff(dim=0), filled[0, 0, 44:46].diff(dim=0)])
    assert (steps[:, 9:50] - slope).abs().max() < 0.4 * slope
    sideways = filled[0, 0, 13:45].diff(dim=1)[:, [8, 49]]
    assert sideways.abs().max() < 0.2 * slope
