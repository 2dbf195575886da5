"""Hole masks out of mask videos, frame folders and single pictures."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from cssta.video.errors import VideoError
from cssta.video.frame_folder import is_picture, picture_files, read_picture
from cssta.video.reader import iter_frames

# Aspect ratios further apart than this cannot come from the same picture, rounded.
ASPECT_TOLERANCE = 0.02


def read_masks(path: str | Path, frames: int, height: int, width: int) -> np.ndarray:
    """Masks for a video of that length and size: bool (T, H, W), True = hole.

    One picture serves all frames. In a PNG everything but black is hole, so that indexed
    annotations (object numbers 1, 2, ...) work; in videos and JPEGs, which are lossy, grey above
    127. Another size is scaled (nearest) if its aspect ratio agrees within 2 %.

    Raises:
        VideoError: unreadable, or "mask-length" / "mask-size" where they cannot belong together.
    """
    path = Path(path)
    if is_picture(path):
        mask = _fit(path, _picture_mask(path), height, width)
        return np.repeat(mask[None], frames, axis=0)
    if path.is_dir():
        masks = [_fit(file, _picture_mask(file), height, width) for file in picture_files(path)]
    else:
        masks = [
            _fit(path, frame.max(axis=-1) > 127, height, width)
            for chunk in iter_frames(path)
            for frame in chunk
        ]
    if len(masks) != frames:
        raise VideoError(
            path,
            "mask-length",
            f"the mask has {len(masks)} frames, the video {frames}",
            "Give one mask per frame, or a single picture for all",
        )
    return np.stack(masks)


def _picture_mask(file: Path) -> np.ndarray:
    pixels = read_picture(file, cv2.IMREAD_UNCHANGED)
    if pixels.ndim == 3:
        pixels = pixels[..., :3].max(axis=-1)  # an alpha channel is no mask
    return pixels > (0 if file.suffix.lower() == ".png" else 127)


def _fit(path: Path, mask: np.ndarray, height: int, width: int) -> np.ndarray:
    h, w = mask.shape
    if (h, w) == (height, width):
        return mask
    if abs((w / h) / (width / height) - 1) > ASPECT_TOLERANCE:
        raise VideoError(
            path,
            "mask-size",
            f"the mask is {w}x{h} pixels, the video {width}x{height}: another aspect ratio",
            "Draw the mask over the video's own frames",
        )
    scaled = cv2.resize(mask.view(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    return scaled.view(bool)
