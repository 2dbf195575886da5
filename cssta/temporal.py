"""Temporal consistency network with a convolutional GRU (Sec. 2.4, after Lai et al. 2018).

Shapes: N videos, H and W image size (multiples of 4), h = H / 4 and w = W / 4.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cssta.config import ModelConfig


class ConvGRU(nn.Module):
    """A gated recurrent unit whose products are 3x3 convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1)
        self.candidate = nn.Conv2d(2 * channels, channels, 3, padding=1)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        """Input and state (N, C, h, w) -> the next state."""
        update, reset = torch.sigmoid(self.gates(torch.cat([x, hidden], 1))).chunk(2, dim=1)
        candidate = torch.tanh(self.candidate(torch.cat([x, reset * hidden], 1)))
        return (1 - update) * hidden + update * candidate


class TemporalNetwork(nn.Module):
    """Corrects a completed frame towards the previous output, inside the hole only."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.temporal_width
        self.channels = 2 * width
        self.down = nn.Sequential(
            nn.Conv2d(7, width, 5, stride=2, padding=2),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, self.channels, 3, stride=2, padding=1),
            nn.LeakyReLU(0.2),
        )
        self.recurrent = ConvGRU(self.channels)
        self.up_half = nn.Conv2d(2 * self.channels, width, 3, padding=1)
        self.up_full = nn.Conv2d(width, width, 3, padding=1)
        self.residual = nn.Conv2d(width, 3, 3, padding=1)
        # The untrained network changes nothing: stability is learned as a correction.
        nn.init.zeros_(self.residual.weight)
        nn.init.zeros_(self.residual.bias)

    def forward(
        self, current: Tensor, previous: Tensor, masks: Tensor, hidden: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """One frame's step.

        `current`: completed frame (N, 3, H, W) in [-1, 1]; `previous`: the network's own output for
        the frame before (`current` itself at a clip's start); `masks`: (N, 1, H, W), 1 = hole;
        `hidden`: state (N, C, h, w), None at a clip's start or after a scene cut. Returns the
        stabilised frame, equal to `current` outside the hole, and the next state.
        """
        x = self.down(torch.cat([current, previous, masks], dim=1))
        hidden = self.recurrent(x, torch.zeros_like(x) if hidden is None else hidden)
        y = F.interpolate(torch.cat([x, hidden], dim=1), scale_factor=2, mode="nearest")
        y = F.leaky_relu(self.up_half(y), 0.2)
        y = F.leaky_relu(self.up_full(F.interpolate(y, scale_factor=2, mode="nearest")), 0.2)
        return current + masks * self.residual(y), hidden
