"""Hole masks of a video, frame by frame: from files, boxes or the alpha channel.

A mask is bool (H, W) in the video's upright pixels, True = hole.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cssta.masks import dilate
from cssta.video.boxes import Box, BoxMasks
from cssta.video.errors import VideoError
from cssta.video.mask_files import LOSSY_THRESHOLD, MaskLayer, open_mask_files
from cssta.video.source import SourceFrame, VideoSource

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MaskSpec:
    """Where a video is to be completed. What `path`, `boxes` and `alpha` name is united.

    Attributes:
        path: a video, folder, numbered sequence, or one picture for all frames; see `mask_files`.
        boxes: rectangles in upright pixels, each for a time or for the whole video.
        alpha: holes are where the video itself is transparent.
        threshold: grey levels (of 255) above it are hole; in the alpha channel, opacity up to it.
            None: 0 in lossless pictures, where object numbers count, else 127.
        dilate: pixels by which holes are grown, after `invert`.
        invert: what is named stays, the rest is hole.
        hold_last: a mask that is too short goes on with its last frame, one too long is cut.
    """

    path: str | Path | None = None
    boxes: tuple[Box, ...] = ()
    alpha: bool = False
    threshold: int | None = None
    dilate: int = 0
    invert: bool = False
    hold_last: bool = False

    def __post_init__(self) -> None:
        if self.path is None and not self.boxes and not self.alpha:
            raise ValueError("no mask: give a path, a box, or the video's alpha channel")
        if self.threshold is not None and not 0 <= self.threshold <= 254:
            raise ValueError(f"a threshold is 0 to 254, not {self.threshold}")
        if self.dilate < 0:
            raise ValueError(f"masks can only be grown by 0 pixels or more, not by {self.dilate}")


class MaskSource:
    """The masks of a video; each array is read-only and may serve several frames.

    Attributes:
        length: number of masks in the mask file; None where there is none or one serves all.
        description: what counts as hole, in words.
    """

    def __init__(self, spec: MaskSpec, frames: int, layers: list[MaskLayer]) -> None:
        self._spec, self._frames, self._layers = spec, frames, layers
        self._last: tuple[list[np.ndarray], np.ndarray] | None = None
        self.length = next((layer.length for layer in layers if layer.length is not None), None)
        self.description = "; ".join(layer.description for layer in layers)

    def masks(self, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
        """Masks of frames start to stop - 1 (default: to the end), in constant memory.

        Raises VideoError where the mask file is damaged or of another shape than the video.
        """
        stop = self._frames if stop is None else stop
        for layers in zip(*(layer.masks(start, stop) for layer in self._layers), strict=True):
            yield self._combined(list(layers))

    def pick(self, indices: Iterable[int]) -> dict[int, np.ndarray]:
        """The masks of these frames. Raises VideoError as `masks` does."""
        wanted = sorted(set(indices))
        picked = [layer.pick(wanted) for layer in self._layers]
        return {index: self._combined([layer[index] for layer in picked]) for index in wanted}

    def _combined(self, layers: list[np.ndarray]) -> np.ndarray:
        # A still mask is the same array every time: what it comes to need not be found again.
        last = self._last
        if last and all(new is old for new, old in zip(layers, last[0], strict=True)):
            return last[1]
        mask = layers[0] if len(layers) == 1 else np.logical_or.reduce(layers)
        if self._spec.invert:
            mask = ~mask
        if self._spec.dilate:
            mask = dilate(mask[None], self._spec.dilate)[0]
        mask = mask.view()
        mask.setflags(write=False)
        self._last = (layers, mask)
        return mask


class AlphaMasks:
    """Holes where the video itself is transparent, by default to more than half."""

    length = None

    def __init__(self, source: VideoSource, threshold: int | None) -> None:
        if not source.info.has_alpha:
            raise VideoError(
                source.info.path,
                "format",
                f"it has no alpha channel ({source.info.codec}, {source.info.pix_fmt})",
                "Give a mask, or a video with alpha such as ProRes 4444 or VP9 in .webm",
            )
        self._source = source
        self._limit = LOSSY_THRESHOLD if threshold is None else threshold
        self.description = f"hole where the video's alpha is at most {self._limit} of 255"

    def masks(self, start: int, stop: int) -> Iterator[np.ndarray]:
        return map(self._mask, self._source.frames(start, stop))

    def pick(self, indices: list[int]) -> dict[int, np.ndarray]:
        return {index: self._mask(frame) for index, frame in self._source.pick(indices).items()}

    def _mask(self, frame: SourceFrame) -> np.ndarray:
        opacity = frame.alpha()
        return opacity <= self._limit * (np.iinfo(opacity.dtype).max // 255)


def open_masks(
    spec: MaskSpec, source: VideoSource, progress: Callable[[], None] = lambda: None
) -> MaskSource:
    """The masks for a video; `progress` as in `open_source`, for a mask video.

    Raises:
        VideoError: the mask cannot be read, or does not belong to the video: "mask-length" (any
            difference, unless `hold_last`), "mask-size" (another aspect ratio, or a box outside).
    """
    info = source.info
    layers: list[MaskLayer] = []
    if spec.path is not None:
        path, hold_last = Path(spec.path), spec.hold_last
        layers.append(open_mask_files(path, info, spec.threshold, hold_last, progress))
    if spec.boxes:
        layers.append(BoxMasks(spec.boxes, info))
    if spec.alpha:
        layers.append(AlphaMasks(source, spec.threshold))
    masks = MaskSource(spec, info.frames, layers)
    log.info("%s: %s", info.path, masks.description)
    return masks
