"""From batches as they travel (uint8, channels last) to what the networks see, and back.

Shapes: B clips, T frames of a clip, H and W image size.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def to_network(batch: dict, device: torch.device) -> tuple[Tensor, Tensor]:
    """`{"frames": uint8 (B, T, H, W, 3), "masks": bool (B, T, H, W)}` to floats on `device`.

    Arrays or tensors. Returns frames (B, T, 3, H, W) in [-1, 1], masks (B, T, 1, H, W), 1 = hole.
    Raises ValueError when the shapes do not belong together or are no multiple of 4.
    """
    frames, masks = (torch.as_tensor(batch[key]) for key in ("frames", "masks"))
    if frames.dim() != 5 or frames.shape[-1] != 3 or masks.shape != frames.shape[:-1]:
        raise ValueError(
            f"a batch needs frames (B, T, H, W, 3) and masks (B, T, H, W), "
            f"not {tuple(frames.shape)} and {tuple(masks.shape)}"
        )
    if frames.shape[2] % 4 or frames.shape[3] % 4:
        raise ValueError(f"sides must be multiples of 4 in training, not {frames.shape[2:4]}")
    frames, masks = frames.to(device), masks.to(device)
    return frames.permute(0, 1, 4, 2, 3).float() / 127.5 - 1, masks[:, :, None].float()


def to_uint8(frames: Tensor) -> np.ndarray:
    """Frames (..., 3, H, W) in [-1, 1] -> uint8 (..., H, W, 3), rounded to the nearest level."""
    levels = ((frames.detach().float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    return levels.movedim(-3, -1).cpu().numpy()
