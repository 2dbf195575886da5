"""The first pass over a video and its masks: what there is to do, and where.

It decodes everything once, in constant memory but for a few numbers per frame. That also holds
the file to what its container says: frames missing, surplus or out of order come out here.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import cv2
import numpy as np

from cssta.scenes import CutDetector
from cssta.video.mask_source import MaskSource
from cssta.video.source import VideoSource

THUMBNAIL = 128  # pixels of the longer side of what the cut detector is given


@dataclass(frozen=True)
class Scene:
    """Frames start to stop - 1, one shot.

    `box` (y0, y1, x0, x1) in upright pixels holds all its holes; None where it has none.
    """

    start: int
    stop: int
    box: tuple[int, int, int, int] | None


@dataclass(frozen=True)
class Survey:
    """What the first pass found.

    Attributes:
        frames: number of frames.
        holes: hole pixels of each frame, int64 (frames,).
        scenes: the shots, in order and without gap.
    """

    frames: int
    holes: np.ndarray
    scenes: tuple[Scene, ...]


def survey(
    source: VideoSource,
    masks: MaskSource,
    *,
    cuts: bool = True,
    span: tuple[int, int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Survey:
    """Go through a video and its masks.

    Args:
        cuts: look for scene cuts; else the whole video is one scene.
        span: only frames span[0] to span[1] - 1; frames outside count as without a hole, and the
            scenes are those within.
        progress: called as progress(frames done, frames in all).

    Raises VideoError where either cannot be read to the end.
    """
    total = source.info.frames
    start, stop = span or (0, total)
    holes = np.zeros(total, np.int64)
    boxes = np.zeros((total, 4), np.int32)
    detector = CutDetector()
    last, small = None, None
    with closing(source.frames(start, stop)) as frames:
        for frame, mask in zip(frames, masks.masks(start, stop), strict=True):
            # One array serves many frames where the mask stands still.
            if mask is not last:
                last, small = mask, None
                count, box = _extent(mask)
            holes[frame.index], boxes[frame.index] = count, box
            if cuts:
                pixels = frame.thumbnail(THUMBNAIL)
                small = _shrunk(mask, *pixels.shape[:2]) if small is None else small
                detector.add(pixels, small)
            if progress is not None:
                progress(frame.index + 1 - start, stop - start)
    found = [start + number for number in detector.cuts()] if cuts else []
    edges = [start, *found, stop]
    scenes = tuple(
        Scene(start, stop, _union(boxes[start:stop], holes[start:stop]))
        for start, stop in itertools.pairwise(edges)
    )
    return Survey(total, holes, scenes)


def _extent(mask: np.ndarray) -> tuple[int, tuple[int, int, int, int]]:
    """Hole pixels of bool (H, W) and the box (y0, y1, x0, x1) around them."""
    picture = mask.view(np.uint8)
    x, y, width, height = cv2.boundingRect(picture)
    return cv2.countNonZero(picture), (y, y + height, x, x + width)


def _shrunk(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """A mask at a smaller size; a pixel that is hole in any part is hole."""
    share = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    return share > 1e-3


def _union(boxes: np.ndarray, holes: np.ndarray) -> tuple[int, int, int, int] | None:
    boxes = boxes[holes > 0]
    if not len(boxes):
        return None
    low, high = boxes.min(axis=0), boxes.max(axis=0)
    return int(low[0]), int(high[1]), int(low[2]), int(high[3])
