"""IM2IM: an auto-encoder of whole images whose decoder teaches the inpainter's (Sec. 2.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cssta.backbone import Decoder, Encoder
from cssta.config import ModelConfig


class Im2Im(nn.Module):
    """True image in, the same image out, with the very decoder class of the inpainter."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config.width, config.dilations)
        self.decoder = Decoder(config.width)

    def forward(self, frames: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Frames (N, 3, H, W) in [-1, 1] -> image (N, 3, H, W) and decoder activations (eq. 4)."""
        nothing_missing = torch.zeros_like(frames[:, :1])
        return self.decoder(self.encoder(frames, nothing_missing))
