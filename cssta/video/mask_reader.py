"""All the masks of a video at once, for what holds whole clips in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cssta.video.errors import VideoError
from cssta.video.mask_files import Shape, open_layer


def read_masks(path: str | Path, frames: int, height: int, width: int) -> np.ndarray:
    """Masks for a video of that length and size: bool (T, H, W), True = hole.

    One picture serves all frames. What counts as hole, and which sizes fit, says `mask_files`.

    Raises:
        VideoError: unreadable, or "mask-length" / "mask-size" where they cannot belong together.
    """
    path = Path(path)
    layer = open_layer(path, Shape(height, width))
    if layer.length not in (None, frames):
        raise VideoError(
            path,
            "mask-length",
            f"the mask has {layer.length} frames, the video {frames}",
            "Give one mask per frame, or a single picture for all",
        )
    return np.stack(list(layer.masks(0, frames)))
