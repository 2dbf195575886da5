"""Between a video's own samples and the RGB that networks see, exactly there and back.

swscale would do it, but not evenly: full range comes out half a level too low, 10-bit luma two
levels too high, and deep 4:2:0 far off. A change of colour in the hole is just what an eye finds.
So the equations of the standards (ITU-R BT.601, BT.709, BT.2020) are computed here in floats.

HDR is not tone-mapped: its code values (PQ, HLG) take the place of RGB levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from av import VideoFrame

from cssta.video.planes import bit_depth, has_alpha, planar, planes

UNSPECIFIED = 2  # of primaries, transfer and matrix, as ffmpeg numbers them
LIMITED, FULL = 1, 2  # ranges; 0 is unspecified
HD_HEIGHT = 720  # untagged video from here on is BT.709, below BT.601, as players take it

# Weights of red and blue in luma, by ffmpeg's number of the matrix.
BT709, BT601, BT2020 = 1, 6, 9
HDR_TRANSFERS = {16: "PQ", 18: "HLG"}
LUMA_WEIGHTS = {
    BT709: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    BT601: (0.299, 0.114),
    7: (0.212, 0.087),
    BT2020: (0.2627, 0.0593),
    10: (0.2627, 0.0593),  # constant luminance: carried through as if it were not
}


@dataclass(frozen=True)
class Colour:
    """Colour tags as stored, in ffmpeg's numbers (2 = unspecified; range 0 = unspecified)."""

    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    matrix: int = UNSPECIFIED
    range: int = 0

    @classmethod
    def of(cls, frame: VideoFrame) -> Colour:
        return cls(frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range)

    @property
    def is_hdr(self) -> bool:
        """The transfer is PQ (16) or HLG (18)."""
        return self.transfer in (16, 18)


def resolved_matrix(frame: VideoFrame) -> int:
    """The matrix that a player would use: as tagged, else by the height of the picture."""
    if frame.colorspace in LUMA_WEIGHTS:
        return frame.colorspace
    return BT709 if frame.height >= HD_HEIGHT else BT601


def resolved_range(frame: VideoFrame) -> int:
    """LIMITED or FULL: as tagged, else limited, but full for RGB, grey and the yuvj formats."""
    if frame.format.is_rgb or frame.format.name.startswith("yuvj"):
        return FULL
    if frame.color_range in (LIMITED, FULL):
        return frame.color_range
    return FULL if frame.format.name.startswith("gray") else LIMITED


def to_rgb(frame: VideoFrame) -> np.ndarray:
    """A decoded frame as RGB (H, W, 3), in stored orientation.

    uint8 for sources of 8 bits; deeper ones uint16, where 65535 is white.
    """
    frame = planar(frame)
    depth = bit_depth(frame.format)
    stored = planes(frame)
    if frame.format.is_rgb:
        rgb = cv2.merge(stored[:3])
        return rgb if depth in (8, 16) else _levels(rgb.astype(np.float32) / (2**depth - 1), depth)
    matrix, zero = _decoding(frame)
    if len(stored) < 3:
        grey = (stored[0] - np.float32(zero[0])) * np.float32(matrix[0, 0])
        return cv2.merge([_levels(grey, depth)] * 3)
    yuv = [stored[0].astype(np.float32)]
    yuv += [_upsampled(plane, frame.height, frame.width) for plane in stored[1:3]]
    unit = cv2.transform(cv2.merge(yuv), np.column_stack([matrix, -matrix @ zero]))
    return _levels(unit, depth)


def from_rgb(pixels: np.ndarray, like: VideoFrame) -> VideoFrame:
    """RGB as `to_rgb` gives it, as a frame in the format, matrix and range of `like`.

    Args:
        pixels: (H, W, 3) of the size of `like`, uint8 or uint16, whose maximum is white.
        like: the decoded frame; its colour tags, time and alpha samples go over to the new one.

    `to_rgb(from_rgb(rgb, like))` is `rgb` but for rounding and, where `like` has halved chroma,
    its loss of resolution; there each chroma sample is the mean over the pixels that it covers.
    """
    like = planar(like)
    depth = bit_depth(like.format)
    result = VideoFrame(like.width, like.height, like.format.name)
    result.colorspace, result.color_range = like.colorspace, like.color_range
    result.color_primaries, result.color_trc = like.color_primaries, like.color_trc
    result.pts = like.pts
    if like.time_base:
        result.time_base = like.time_base
    target = planes(result)
    unit = pixels.astype(np.float32) / np.iinfo(pixels.dtype).max
    if like.format.is_rgb:
        samples = cv2.split(unit * np.float32(2**depth - 1))
    else:
        matrix, zero = _decoding(like)
        encoding = np.column_stack([np.linalg.inv(matrix), zero])
        if len(target) < 3:
            samples = [cv2.transform(unit, encoding[:1])]
        else:
            yuv = cv2.split(cv2.transform(unit, encoding))
            samples = [yuv[0], *(_downsampled(yuv[i], target[i]) for i in (1, 2))]
    for plane, values in zip(target, samples, strict=False):
        plane[:] = np.clip(np.rint(values), 0, 2**depth - 1)
    if has_alpha(like.format):
        target[-1][:] = planes(like)[-1]
    return result


def alpha(frame: VideoFrame) -> np.ndarray | None:
    """Opacity (H, W) in stored orientation, uint8 or uint16 whose maximum is opaque, or None."""
    if not has_alpha(frame.format):
        return None
    frame = planar(frame)
    depth = bit_depth(frame.format)
    stored = planes(frame)[-1]
    if depth in (8, 16):
        return stored.copy()
    return _levels(stored.astype(np.float32) / (2**depth - 1), depth)


def _decoding(frame: VideoFrame) -> tuple[np.ndarray, np.ndarray]:
    """M (3, 3) and the stored values of black, z (3,): M (yuv - z) is RGB from 0 to 1."""
    red, blue = LUMA_WEIGHTS[resolved_matrix(frame)]
    green = 1 - red - blue
    matrix = np.array(
        [
            [1, 0, 2 * (1 - red)],
            [1, -2 * (1 - blue) * blue / green, -2 * (1 - red) * red / green],
            [1, 2 * (1 - blue), 0],
        ]
    )
    depth = bit_depth(frame.format)
    step = 2 ** (depth - 8)
    if resolved_range(frame) == FULL:
        black, luma, chroma = 0, 2**depth - 1, 2**depth - 1
    else:
        black, luma, chroma = 16 * step, 219 * step, 224 * step
    return matrix / [luma, chroma, chroma], np.array([black, 128 * step, 128 * step])


def _levels(unit: np.ndarray, depth: int) -> np.ndarray:
    """0 to 1 as uint8, or uint16 where `depth` is above 8; what lies outside is cut off."""
    white, kind = (255, np.uint8) if depth == 8 else (65535, np.uint16)
    unit = unit * np.float32(white)
    return np.clip(np.rint(unit, out=unit), 0, white, out=unit).astype(kind)


def _upsampled(plane: np.ndarray, height: int, width: int) -> np.ndarray:
    """Chroma for every pixel, linear between samples that lie in the middle of theirs."""
    across, down = -(-width // plane.shape[1]), -(-height // plane.shape[0])
    plane = plane.astype(np.float32)
    if across == down == 1:
        return plane
    size = (plane.shape[1] * across, plane.shape[0] * down)
    return cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR)[:height, :width]


def _downsampled(values: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Means over the pixels of each sample; at odd edges the last pixel counts for the missing."""
    height, width = target.shape
    across, down = -(-values.shape[1] // width), -(-values.shape[0] // height)
    if across == down == 1:
        return values
    missing = (height * down - values.shape[0], width * across - values.shape[1])
    if any(missing):
        values = cv2.copyMakeBorder(values, 0, missing[0], 0, missing[1], cv2.BORDER_REPLICATE)
    return cv2.resize(values, (width, height), interpolation=cv2.INTER_AREA)
