"""Encoder and decoder, shared in form by IM2IM, the coarse and the refinement stage (Sec. 2.4).

Shapes: N frames, H and W image size (multiples of 4), h = H / 4 and w = W / 4.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cssta.gated import GatedConv, ResidualGatedConv

SCALE = 4  # image pixels per feature pixel, each way


class Encoder(nn.Module):
    """RGB and mask to features at 1/4 scale with `2 * width` channels.

    What RGB holds under the mask is the caller's: a smooth guess for the coarse stage (see
    `cssta.membrane`), the coarse composite for the refinement stage, the image itself in IM2IM.
    """

    def __init__(self, width: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.channels = 2 * width
        self.layers = nn.Sequential(
            GatedConv(4, width, kernel=5, stride=2),
            GatedConv(width, width),
            GatedConv(width, self.channels, stride=2),
            GatedConv(self.channels, self.channels),
            *(ResidualGatedConv(self.channels, dilation) for dilation in dilations),
            # Linear, so that features have both signs and cosines tell them apart (eq. 1).
            nn.Conv2d(self.channels, self.channels, 1),
        )

    def forward(self, frames: Tensor, masks: Tensor) -> Tensor:
        """Frames (N, 3, H, W) in [-1, 1] and masks (N, 1, H, W), 1 = hole -> (N, 2 width, h, w)."""
        return self.layers(torch.cat([frames, masks], dim=1))


class Decoder(nn.Module):
    """Features at 1/4 scale to an image; also yields the activations that FeatureLoss compares."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.at_quarter = GatedConv(2 * width, 2 * width)
        self.to_half = GatedConv(2 * width, width)
        self.at_half = GatedConv(width, width)
        self.to_full = GatedConv(width, width // 2)
        self.image = nn.Conv2d(width // 2, 3, 3, padding=1)

    def forward(self, features: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(N, 2 width, h, w) -> image (N, 3, H, W), unclamped, and activations.

        The activations are those of the last three gated layers (eq. 4); the linear output layer
        is not among them, since eq. 8 compares it already.
        """
        x = self.at_quarter(features)
        to_half = self.to_half(F.interpolate(x, scale_factor=2, mode="nearest"))
        at_half = self.at_half(to_half)
        to_full = self.to_full(F.interpolate(at_half, scale_factor=2, mode="nearest"))
        return self.image(to_full), [to_half, at_half, to_full]


def feature_mask(masks: Tensor) -> Tensor:
    """(N, 1, H, W) -> (N, 1, h, w): a feature pixel is hole where any image pixel under it is."""
    return F.max_pool2d(masks, SCALE)
