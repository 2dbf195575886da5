"""The result goes into the source's own samples, inside the hole and nowhere else.

Shapes: H and W the upright size of the picture, h and w the stored size of one component.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import av
import cv2
import numpy as np

from cssta.video.colour import from_rgb, resolved_matrix
from cssta.video.container import rotated
from cssta.video.planes import planar, planes

if TYPE_CHECKING:
    from cssta.video.source import SourceFrame, SourceInfo

PICTURES = {  # kinds of array that frame folders hold, by (channels, bytes of a sample)
    (1, 1): "gray",
    (1, 2): "gray16le",
    (3, 1): "rgb24",
    (3, 2): "rgb48le",
    (4, 1): "rgba",
    (4, 2): "rgba64le",
}
BLOCK = 8  # pixels; whole chroma samples of every format and both fields


class Composer:
    """Puts completed pixels into frames of one source.

    Args:
        info: the source.
        feather: pixels over which the result fades in, from the hole's edge inwards. Outside the
            hole nothing changes, whatever the feather.
    """

    def __init__(self, info: SourceInfo, feather: int = 0) -> None:
        self.rotation = info.rotation
        self.feather = feather

    def merge(
        self, frame: SourceFrame, completed: np.ndarray | None, mask: np.ndarray
    ) -> av.VideoFrame:
        """The frame in the planar form of its pixel format, stored orientation.

        A sample of halved chroma serves several pixels: it changes only if all of them are hole,
        so that no sample which a visible pixel uses differs from the source's. Alpha stays.

        Args:
            completed: (H, W, 3) uint8 or uint16, upright, as `frame.rgb()`; None: no hole.
            mask: bool (H, W), upright, True = hole.
        """
        native = planar(as_frame(frame.native))
        if completed is None or not mask.any():
            return native
        mask = rotated(mask, -self.rotation)
        box = box_around(mask)
        weight = self._weight(mask[box])
        painted = _painted(native, rotated(completed, -self.rotation)[box], weight.shape)
        result = _copy(native)
        parts = zip(planes(result), planes(painted), samplings(native.format), strict=True)
        for component, (old, new, (down, across)) in enumerate(parts):
            if not native.format.components[component].is_alpha:
                part = old[box[0].start // down :, box[1].start // across :]
                part = part[: new.shape[0], : new.shape[1]]
                _blend(part, new, sample_weight(weight, down, across, native.interlaced_frame))
        return result

    def rgb(self, frame: SourceFrame, completed: np.ndarray | None, mask: np.ndarray) -> np.ndarray:
        """The same as RGB (H, W, 3), upright; RGBA (H, W, 4) where the source has alpha."""
        pixels = frame.rgb()
        if completed is not None and mask.any():
            pixels, box = pixels.copy(), box_around(mask)
            _blend(pixels[box], completed[box], self._weight(mask[box])[..., None])
        alpha = frame.alpha()
        return pixels if alpha is None else np.dstack([pixels, alpha])

    def _weight(self, mask: np.ndarray) -> np.ndarray:
        """Share of the result in each pixel, float32 (H, W): 0 outside, above 0 in the hole."""
        if not self.feather:
            return mask.astype(np.float32)
        if mask.all():  # no edge to fade from
            return np.ones(mask.shape, np.float32)
        inwards = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        return np.minimum(inwards / (self.feather + 1), 1)


def as_frame(picture: av.VideoFrame | np.ndarray) -> av.VideoFrame:
    """A decoded frame as it is; a picture (H, W), or (H, W, 1 to 4) in order RGBA, as a frame."""
    if isinstance(picture, av.VideoFrame):
        return picture
    channels = picture.shape[2] if picture.ndim == 3 else 1
    pixels = picture[..., 0] if picture.ndim == 3 and channels == 1 else picture
    name = PICTURES[channels, picture.dtype.itemsize]
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=name)


def box_around(mask: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns that hold the hole and what lies right beside it, in whole blocks."""
    bounds = []
    for axis, size in enumerate(mask.shape):
        found = np.flatnonzero(mask.any(axis=1 - axis))
        first, last = (found[0], found[-1]) if found.size else (0, 0)
        start, stop = max(0, first - 1) // BLOCK * BLOCK, -(-(last + 2) // BLOCK) * BLOCK
        bounds.append(slice(int(start), int(min(size, stop))))
    return bounds[0], bounds[1]


def samplings(format: av.VideoFormat) -> list[tuple[int, int]]:
    """(rows, columns) of pixels that each sample of a component serves."""
    halved = (64 // format.chroma_height(64), 64 // format.chroma_width(64))
    return [halved if component.is_chroma else (1, 1) for component in format.components]


def sample_weight(weight: np.ndarray, down: int, across: int, has_fields: bool) -> np.ndarray:
    """Mean weight over the `down` x `across` pixels of each sample; 0 where one is visible.

    With fields, each pair of chroma rows serves the rows of its block by turns, so the pair counts
    as visible together.
    """
    if down == across == 1:
        return weight
    height, width = -(-weight.shape[0] // down), -(-weight.shape[1] // across)
    missing = (height * down - weight.shape[0], width * across - weight.shape[1])
    if any(missing):
        weight = np.pad(weight, ((0, missing[0]), (0, missing[1])), mode="edge")
    blocks = weight.reshape(height, down, width, across)
    hole = blocks.min(axis=(1, 3)) > 0
    if has_fields and down > 1:
        paired = hole[: height // 2 * 2].reshape(-1, 2, width)
        paired[:] = paired.all(axis=1, keepdims=True)
    return np.where(hole, blocks.mean(axis=(1, 3)), np.float32(0))


def _painted(native: av.VideoFrame, pixels: np.ndarray, shape: tuple[int, int]) -> av.VideoFrame:
    """RGB pixels of a part of the frame, in the frame's own format and meaning of colours."""
    like = av.VideoFrame(shape[1], shape[0], native.format.name)
    like.color_range = native.color_range
    # Where no matrix is told, the height of the whole picture stands for it.
    is_rgb = native.format.is_rgb
    like.colorspace = native.colorspace if is_rgb else resolved_matrix(native)
    return from_rgb(pixels, like)


def _blend(old: np.ndarray, new: np.ndarray, weight: np.ndarray) -> None:
    """Change `old` in place: `weight` of `new`, and not at all where that is 0."""
    hole = weight > 0
    share = np.broadcast_to(weight, old.shape)[np.broadcast_to(hole, old.shape)]
    hole = np.broadcast_to(hole, old.shape)
    before, after = old[hole].astype(np.float32), new[hole].astype(np.float32)
    old[hole] = np.rint(before + share * (after - before)).astype(old.dtype)


def _copy(frame: av.VideoFrame) -> av.VideoFrame:
    """A frame of its own memory with all properties and side data (closed captions, aspect).

    The decoder still predicts from the memory of the one it handed out.
    """
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width,
        height=frame.height,
        format=frame.format.name,
        time_base=frame.time_base or Fraction(1, 1000),
    )
    copy, sink = graph.add("copy"), graph.add("buffersink")
    source.link_to(copy)
    copy.link_to(sink)
    graph.configure()
    graph.push(frame)
    return graph.pull()
