"""The smooth first guess: exact where visible, bounded by what is visible, blind to what is not."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cssta.membrane import fill_smoothly


def clip(height: int, width: int, share: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    frames = torch.rand(2, 3, height, width, generator=generator) * 2 - 1
    masks = (torch.rand(2, 1, height, width, generator=generator) < share).float()
    return frames, masks


sizes = st.integers(1, 21)
shares = st.sampled_from([0.0, 0.2, 0.9, 1.0])


@given(height=sizes, width=sizes, share=shares, seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_visible_pixels_stay_and_hidden_ones_do_not_matter(height, width, share, seed):
    frames, masks = clip(height, width, share, seed)
    filled = fill_smoothly(frames, masks)
    torch.testing.assert_close(filled * (1 - masks), frames * (1 - masks))
    other = torch.where(masks.bool(), torch.full_like(frames, 0.77), frames)
    torch.testing.assert_close(fill_smoothly(other, masks), filled)
    # A mean of visible colours can never leave their range.
    assert filled.abs().max() <= frames.abs().max() + 1e-5


@pytest.mark.parametrize("value", [-1.0, 0.3])
def test_a_flat_colour_fills_any_hole_with_itself(value):
    frames = torch.full((1, 3, 50, 70), value)
    masks = torch.zeros(1, 1, 50, 70)
    masks[..., 3:48, 5:69] = 1
    torch.testing.assert_close(fill_smoothly(frames, masks), frames)


def test_a_frame_that_is_all_hole_becomes_mid_grey():
    frames, _ = clip(9, 13, 0.5, seed=0)
    filled = fill_smoothly(frames, torch.ones(2, 1, 9, 13))
    assert torch.equal(filled, torch.zeros_like(filled))


def test_the_middle_of_a_wide_hole_is_near_the_colours_around_it():
    frames = torch.full((1, 1, 128, 128), 0.5)
    frames[..., 16:112, 16:112] = -1  # hidden
    masks = (frames < 0).float()
    assert (fill_smoothly(frames, masks)[..., 64, 64] - 0.5).abs() < 1e-5
