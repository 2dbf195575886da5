"""Frames as the network sees them, and back: levels to [-1, 1], sizes to multiples of 4.

Shapes: H and W frame size; H' and W' the next multiples of 4.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cssta.backbone import SCALE


def to_tensors(frame: np.ndarray, mask: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    """Frame (1, 3, H', W') in [-1, 1] and mask (1, 1, H', W') of uint8 or uint16 and bool arrays.

    The border is repeated, and with it the mask: a hole at the border stays one beyond it.
    """
    # Copies, since the arrays may be read-only or views that run backwards; PyTorch knows too
    # little of uint16.
    levels = frame.astype(np.uint8 if frame.dtype == np.uint8 else np.int32)
    half = np.iinfo(frame.dtype).max / 2
    image = torch.from_numpy(levels).to(device).permute(2, 0, 1)[None].float() / half - 1
    hole = torch.from_numpy(mask.astype(np.float32)).to(device)[None, None]
    height, width = hole.shape[2:]
    padding = [0, -width % SCALE, 0, -height % SCALE]
    return F.pad(image, padding, mode="replicate"), F.pad(hole, padding, mode="replicate")


def to_levels(image: Tensor, height: int, width: int, dtype: np.dtype) -> np.ndarray:
    """Image (3, H', W') in [-1, 1] -> (H, W, 3) of `dtype`, rounded to the nearest level."""
    half = np.iinfo(dtype).max / 2
    levels = ((image[:, :height, :width].clamp(-1, 1) + 1) * half).round()
    return levels.to(torch.int32).permute(1, 2, 0).cpu().numpy().astype(dtype)
