"""Hole masks out of mask videos, picture folders, numbered sequences and single pictures.

What counts as hole:
- in lossless pictures (PNG, TIFF, BMP) everything but black, so that indexed annotations (object
  numbers 1, 2, ...) work; in videos and JPEGs, which are lossy, grey above 127. The grey of a
  coloured pixel is its largest channel. Another threshold may be given.
- A picture painted in one colour over transparency (an exported brush layer) says nothing by its
  colour: there, the paint is the hole, opacity above 127.

A mask of another size is scaled (nearest) if its aspect ratio agrees within 2 % with that of the
video's pixels, or with the picture as shown where pixels are not square. Rotated mask videos are
turned upright, as the video is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from cssta.video.container import to_rgb8
from cssta.video.errors import VideoError
from cssta.video.file_source import FileSource
from cssta.video.folder_source import read_rgb, sequence_files
from cssta.video.frame_folder import is_lossless
from cssta.video.source import SourceFrame, SourceInfo

log = logging.getLogger(__name__)

# Aspect ratios further apart than this cannot come from the same picture, rounded.
ASPECT_TOLERANCE = 0.02
LOSSY_THRESHOLD = 127
LENGTH_TOLERANCE = 0  # frames; a mask that is one off is wrong in every frame of a moving scene


class MaskLayer(Protocol):
    """Masks bool (H, W) by frame number; `length` is None where no number is too high."""

    length: int | None
    description: str

    def masks(self, start: int, stop: int) -> Iterator[np.ndarray]: ...

    def pick(self, indices: list[int]) -> dict[int, np.ndarray]: ...


@dataclass(frozen=True)
class Shape:
    """The upright size that masks are brought to, and the aspect ratio of the video's pixels."""

    height: int
    width: int
    sar: Fraction = Fraction(1)

    @classmethod
    def of(cls, info: SourceInfo) -> Shape:
        turned = info.rotation % 180 != 0
        return cls(info.height, info.width, 1 / info.sar if turned else info.sar)


class StillMask:
    """One picture for all frames."""

    length = None

    def __init__(self, file: Path, shape: Shape, threshold: int | None) -> None:
        self._mask = _picture_mask(file, shape, threshold)
        self.description = _described(file, threshold)

    def masks(self, start: int, stop: int) -> Iterator[np.ndarray]:
        return (self._mask for _ in range(start, stop))

    def pick(self, indices: list[int]) -> dict[int, np.ndarray]:
        return dict.fromkeys(indices, self._mask)


class PictureMasks:
    """One picture per frame; they may differ in size."""

    def __init__(self, files: list[Path], shape: Shape, threshold: int | None) -> None:
        self._files, self._shape, self._threshold = files, shape, threshold
        self.length = len(files)
        self.description = _described(files[0], threshold)

    def masks(self, start: int, stop: int) -> Iterator[np.ndarray]:
        return map(self._mask, self._files[start:stop])

    def pick(self, indices: list[int]) -> dict[int, np.ndarray]:
        return {index: self._mask(self._files[index]) for index in indices}

    def _mask(self, file: Path) -> np.ndarray:
        return _picture_mask(file, self._shape, self._threshold)


class VideoMasks:
    """One frame of a mask video per frame."""

    def __init__(self, source: FileSource, shape: Shape, threshold: int | None) -> None:
        self.source, self._shape, self._threshold = source, shape, threshold
        self.length = source.info.frames
        self.description = _described(source.info.path, threshold)

    def masks(self, start: int, stop: int) -> Iterator[np.ndarray]:
        return map(self._mask, self.source.frames(start, stop))

    def pick(self, indices: list[int]) -> dict[int, np.ndarray]:
        return {index: self._mask(frame) for index, frame in self.source.pick(indices).items()}

    def _mask(self, frame: SourceFrame) -> np.ndarray:
        path, alpha = self.source.info.path, frame.alpha()
        # 8 bits by swscale: fast, and half a level is nothing to a threshold.
        pixels = to_rgb8(frame.native)
        if alpha is not None:
            alpha = (alpha >> 8).astype(np.uint8) if alpha.dtype == np.uint16 else alpha
            pixels = np.dstack([pixels, alpha])
        return fit(path, holes(pixels, _limit(path, self._threshold), self._threshold), self._shape)


class HeldMasks:
    """Masks for a video of another length: the last goes on, or what is too much is left out."""

    def __init__(self, layer: MaskLayer) -> None:
        self._layer, self.length, self.description = layer, layer.length, layer.description

    def masks(self, start: int, stop: int) -> Iterator[np.ndarray]:
        last = None
        if start < self.length:
            for last in self._layer.masks(start, min(stop, self.length)):
                yield last
        elif start < stop:
            last = self._layer.pick([self.length - 1])[self.length - 1]
        for _ in range(max(start, self.length), stop):
            yield last

    def pick(self, indices: list[int]) -> dict[int, np.ndarray]:
        found = self._layer.pick(sorted({min(index, self.length - 1) for index in indices}))
        return {index: found[min(index, self.length - 1)] for index in indices}


def open_layer(
    path: Path,
    shape: Shape,
    threshold: int | None = None,
    progress: Callable[[], None] = lambda: None,
) -> MaskLayer:
    """The masks in a file or folder, at the video's size. Raises VideoError."""
    files = sequence_files(path)
    if files is None:
        return VideoMasks(FileSource(path, progress), shape, threshold)
    if files == [path]:
        return StillMask(path, shape, threshold)
    return PictureMasks(files, shape, threshold)


def open_mask_files(
    path: Path,
    info: SourceInfo,
    threshold: int | None = None,
    hold_last: bool = False,
    progress: Callable[[], None] = lambda: None,
) -> MaskLayer:
    """The masks in a file or folder for a video; `progress` as in `open_source`.

    Raises VideoError where they cannot be read, or "mask-length" where their number is not the
    video's; `hold_last` allows that unless the mask has another frame rate over the same time.
    """
    layer = open_layer(path, Shape.of(info), threshold, progress)
    if layer.length is None or abs(layer.length - info.frames) <= LENGTH_TOLERANCE:
        return layer
    seconds = (
        layer.source.info.duration
        if isinstance(layer, VideoMasks)
        else layer.length / float(info.fps)
    )
    other_rate = (
        isinstance(layer, VideoMasks)
        and abs(layer.source.info.fps / info.fps - 1) > 0.01
        and abs(seconds - info.duration) < 0.1
    )
    lengths = (
        f"the mask has {layer.length} frames, the video {info.frames} "
        f"({seconds:.2f} and {info.duration:.2f} seconds)"
    )
    if other_rate or not hold_last:
        raise VideoError(
            path,
            "mask-length",
            lengths,
            f"Bring the mask to the video's {float(info.fps):g} frames per second"
            if other_rate
            else "Give one mask per frame, a single picture for all, or --hold-last to go on with "
            "the last mask",
        )
    log.warning(
        "%s: %s: %s",
        path,
        lengths,
        "its last is held" if layer.length < info.frames else "what is too much is left out",
    )
    return HeldMasks(layer)


def holes(pixels: np.ndarray, limit: int, paint_limit: int | None = None) -> np.ndarray:
    """Where RGB or RGBA (H, W, 3 or 4) of 8 or 16 bits is hole: bool (H, W).

    Grey above `limit` of 255; in a picture of one colour over transparency, paint of an opacity
    above `paint_limit` (None: 127).
    """
    scale = np.iinfo(pixels.dtype).max // 255
    channels = cv2.split(pixels)
    if len(channels) == 4:
        paint = channels[3]
        flat = all((channel == channel.flat[0]).all() for channel in channels[:3])
        if flat and (paint < 255 * scale).any():
            return paint > (LOSSY_THRESHOLD if paint_limit is None else paint_limit) * scale
    return cv2.max(cv2.max(channels[0], channels[1]), channels[2]) > limit * scale


def fit(path: Path, mask: np.ndarray, shape: Shape) -> np.ndarray:
    """A mask scaled to the video's size. Raises VideoError ("mask-size") for another aspect."""
    (h, w), (height, width) = mask.shape, (shape.height, shape.width)
    if (h, w) == (height, width):
        return mask
    stored = w / h / (width / height)
    shown = stored / float(shape.sar)
    if min(abs(stored - 1), abs(shown - 1)) > ASPECT_TOLERANCE:
        raise VideoError(
            path,
            "mask-size",
            f"the mask is {w}x{h} pixels, the video {width}x{height}: another aspect ratio",
            "Draw the mask over the video's own frames",
        )
    scaled = cv2.resize(mask.view(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    return scaled.view(bool)


def _picture_mask(file: Path, shape: Shape, threshold: int | None) -> np.ndarray:
    return fit(file, holes(read_rgb(file), _limit(file, threshold), threshold), shape)


def _limit(file: Path, threshold: int | None) -> int:
    if threshold is not None:
        return threshold
    return 0 if is_lossless(file) else LOSSY_THRESHOLD


def _described(file: Path, threshold: int | None) -> str:
    return f"hole where the mask's grey is above {_limit(file, threshold)} of 255"
