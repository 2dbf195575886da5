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
    half = np.iinfo(frame.dtype).max / 2
    image = _levels(frame, device).permute(2, 0, 1)[None].float() / half - 1
    hole = _sent(mask.view(np.uint8), device).float()[None, None]
    height, width = hole.shape[2:]
    padding = [0, -width % SCALE, 0, -height % SCALE]
    return F.pad(image, padding, mode="replicate"), F.pad(hole, padding, mode="replicate")


def to_levels(images: Tensor, height: int, width: int, dtype: np.dtype) -> np.ndarray:
    """Images (..., 3, H', W') in [-1, 1] -> (..., H, W, 3), rounded to the nearest level.

    `dtype`: uint8 or uint16.
    """
    half = np.iinfo(dtype).max / 2
    levels = ((images[..., :height, :width].clamp(-1, 1) + 1) * half).round().movedim(-3, -1)
    if dtype == np.uint8:
        return levels.to(torch.uint8).cpu().numpy()
    # The same bits as int16, of which PyTorch knows more than of uint16.
    return levels.to(torch.int32).to(torch.int16).cpu().numpy().view(np.uint16)


def _levels(frame: np.ndarray, device: torch.device) -> Tensor:
    """(H, W, 3) of the frame's levels, on the device; uint8 or int32."""
    if frame.dtype == np.uint8:
        return _sent(frame, device)
    return _sent(np.ascontiguousarray(frame).view(np.int16), device).int() & 0xFFFF


def _sent(array: np.ndarray, device: torch.device) -> Tensor:
    """On the device, as small as it is; on the way to a GPU the caller need not wait."""
    # A copy, since the array may be read-only or a view that runs backwards.
    tensor = torch.from_numpy(array.copy())
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
