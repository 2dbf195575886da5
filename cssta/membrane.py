"""A smooth first guess for a hole of any size: colours diffused in from its border (pull-push).

The networks see a bounded surrounding; without this, the middle of a hole wider than that would
stay as blank as it came in.

Shapes: N frames, C channels, H and W size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Averagings with the neighbours at full size, half size, and below. They take out the steps that
# pull-push leaves at the border of the hole; where cells are few they cost nothing.
RELAXATIONS = (2, 8, 16)


@torch.no_grad()
def fill_smoothly(frames: Tensor, masks: Tensor) -> Tensor:
    """Frames (N, C, H, W) with holes filled from visible pixels only; masks (N, 1, H, W), 1 = hole.

    Visible pixels are averaged down a pyramid, each level counting only what it sees; on the way
    back up every unseen cell takes the colour of the coarser level, and then, several times, the
    mean of its neighbours. Linear in pixels; a frame that is all hole becomes 0.
    """
    weight = 1 - masks
    colour = frames * weight
    levels = []
    while max(colour.shape[2:]) > 1:
        levels.append((colour, weight))
        odd = [0, colour.shape[3] % 2, 0, colour.shape[2] % 2]
        colour = F.avg_pool2d(F.pad(colour, odd), 2)
        weight = F.avg_pool2d(F.pad(weight, odd), 2)
    # One visible pixel of a large frame weighs little: 4e-9 of 16384 x 16384.
    filled = colour / weight.clamp_min(1e-12)
    for level, (colour, weight) in reversed(list(enumerate(levels))):
        height, width = colour.shape[2:]
        coarser = F.interpolate(filled, scale_factor=2, mode="bilinear", align_corners=False)
        coarser = coarser[:, :, :height, :width]
        # `colour` is already weighted by the share of the cell that is seen.
        unseen = 1 - weight
        filled = torch.addcmul(colour, unseen, coarser)
        for _ in range(RELAXATIONS[min(level, len(RELAXATIONS) - 1)]):
            filled = torch.addcmul(colour, unseen, _mean_of_neighbours(filled))
    return filled


def _mean_of_neighbours(x: Tensor) -> Tensor:
    x = F.pad(x, [1] * 4, mode="replicate")
    total = x[:, :, :-2, 1:-1] + x[:, :, 2:, 1:-1]
    total += x[:, :, 1:-1, :-2]
    total += x[:, :, 1:-1, 2:]
    return total.mul_(0.25)


@torch.no_grad()
def match_surroundings(output: Tensor, frames: Tensor, masks: Tensor) -> Tensor:
    """Take a decoder's colour error out of the hole, as far as the visible pixels around tell it.

    `output` (N, C, H, W) is the network's whole image: where `frames` are visible its error is
    known, and the same smooth diffusion carries it inwards. No seam is left at the hole's border.
    Returns `output` plus that correction; a frame that is all hole stays as it is.
    """
    return output + fill_smoothly(frames - output, masks)
