"""Spectral-normalised discriminator over a map of features (Sec. 2.3; SN-PatchGAN family)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from cssta.config import ModelConfig


class Discriminator(nn.Module):
    """Frame and mask to a map of scores: holes of any shape are judged where they are."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.discriminator_width
        channels = [4, width, 2 * width, 4 * width, 4 * width]
        layers: list[nn.Module] = []
        for channels_in, channels_out in pairwise(channels):
            conv = nn.Conv2d(channels_in, channels_out, 5, stride=2, padding=2)
            layers += [spectral_norm(conv), nn.LeakyReLU(0.2)]
        layers.append(spectral_norm(nn.Conv2d(channels[-1], channels[-1], 5, padding=2)))
        self.layers = nn.Sequential(*layers)

    def forward(self, frames: Tensor, masks: Tensor) -> Tensor:
        """Frames (N, 3, H, W) in [-1, 1], masks (N, 1, H, W) -> scores (N, K, H / 16, W / 16)."""
        return self.layers(torch.cat([frames, masks], dim=1))
