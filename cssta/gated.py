"""Gated convolution: a learned, soft validity mask (the light form of Yi et al. 2020).

Shapes: N batch, C channels, H and W height and width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GatedConv(nn.Module):
    """`activation(conv(x)) * sigmoid(gate(x))`, the basic building block (Sec. 2.4).

    The gate is depthwise separable: it decides where, not what, and a full convolution for it
    would double the cost of the whole network.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int = 3,
        stride: int = 1,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        padding = dilation * (kernel // 2)
        self.feature = nn.Conv2d(channels_in, channels_out, kernel, stride, padding, dilation)
        self.gate_spatial = nn.Conv2d(
            channels_in,
            channels_in,
            kernel,
            stride,
            padding,
            dilation,
            groups=channels_in,
            bias=False,
        )
        self.gate_channel = nn.Conv2d(channels_in, channels_out, 1)
        nn.init.kaiming_normal_(self.feature.weight, a=0.2)
        nn.init.zeros_(self.feature.bias)
        # Gates start mostly open, so that a fresh network passes its signal through every layer.
        nn.init.constant_(self.gate_channel.bias, 2.0)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride)."""
        gate = torch.sigmoid(self.gate_channel(self.gate_spatial(x)))
        return F.leaky_relu(self.feature(x), 0.2) * gate


class ResidualGatedConv(nn.Module):
    """A dilated gated convolution added to its input: context without loss of position."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.conv = GatedConv(channels, channels, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        return x + self.conv(x)
