from __future__ import annotations

import av
import numpy as np
import pytest

from cssta.video.colour import Colour, alpha, from_rgb, resolved_matrix, to_rgb
from cssta.video.planes import bit_depth, planes
from tests.cssta.media import picture

FORMATS = [
    "yuv420p",
    "yuv422p",
    "yuv444p",
    "yuvj420p",
    "nv12",
    "gray",
    "gbrp",
    "bgra",
    "yuv420p10le",
    "yuv422p10le",
    "yuv444p12le",
    "gray10le",
    "gbrp10le",
    "rgb48be",
]
MATRICES = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}


def blank(name: str, height: int, width: int, matrix: int = 1, range: int = 1) -> av.VideoFrame:
    frame = av.VideoFrame(width, height, name)
    frame.colorspace, frame.color_range = matrix, range
    return frame


def scene(frame: av.VideoFrame) -> np.ndarray:
    """A picture of the frame's size, at its depth; grey for grey frames."""
    pixels = picture(frame.height, frame.width)
    if frame.format.name.startswith("gray"):
        pixels = np.repeat(pixels[..., 1:2], 3, axis=2)
    deep = bit_depth(frame.format) > 8
    return np.rint(pixels * 257).astype(np.uint16) if deep else np.rint(pixels).astype(np.uint8)


@pytest.mark.parametrize("range", [1, 2])
@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("name", FORMATS)
def test_there_and_back_without_a_shift_of_any_channel(name, matrix, range):
    like = blank(name, 61, 97, matrix, range)
    pixels = scene(like)
    back = to_rgb(from_rgb(pixels, like))
    assert back.dtype == pixels.dtype
    error = (back.astype(float) - pixels) / (257 if pixels.dtype == np.uint16 else 1)
    assert np.abs(error).mean() < 0.5
    assert np.abs(error.mean(axis=(0, 1))).max() < 0.05


@pytest.mark.parametrize("depth", [8, 10])
@pytest.mark.parametrize("range", [1, 2])
@pytest.mark.parametrize("matrix", MATRICES)
def test_samples_are_those_of_the_standards(matrix, range, depth):
    like = blank("yuv444p" if depth == 8 else "yuv444p10le", 8, 9, matrix, range)
    rgb = np.random.default_rng(0).uniform(size=(8, 9, 3))
    white = 255 if depth == 8 else 65535
    frame = from_rgb(np.rint(rgb * white).astype(np.uint8 if depth == 8 else np.uint16), like)
    red, blue = MATRICES[matrix]
    luma = rgb @ [red, 1 - red - blue, blue]
    chroma = [(rgb[..., 2] - luma) / (2 - 2 * blue), (rgb[..., 0] - luma) / (2 - 2 * red)]
    step, top = 2 ** (depth - 8), 2**depth - 1
    if range == 1:
        expected = [16 * step + 219 * step * luma] + [128 * step + 224 * step * c for c in chroma]
    else:
        expected = [top * luma] + [128 * step + top * c for c in chroma]
    for found, exact in zip(planes(frame), expected, strict=True):
        assert np.abs(found - np.clip(exact, 0, top)).max() < 1.1


def test_swscale_agrees_where_it_is_even():
    like = blank("yuv420p", 60, 96)
    frame = from_rgb(scene(like), like)
    other = frame.reformat(format="rgb24", interpolation=2 | 0x40000 | 0x2000).to_ndarray()
    assert np.abs(to_rgb(frame).astype(float) - other).mean() < 1


@pytest.mark.parametrize(("height", "matrix"), [(480, 6), (719, 6), (720, 1), (2160, 1)])
def test_untagged_video_is_taken_as_players_do(height, matrix):
    assert resolved_matrix(blank("yuv420p", height, 16, matrix=2)) == matrix
    assert resolved_matrix(blank("yuv420p", height, 16, matrix=9)) == 9


def test_a_chroma_sample_is_the_mean_of_its_pixels_also_at_odd_edges():
    like = blank("yuv420p", 3, 5, range=2)
    pixels = np.zeros((3, 5, 3), np.uint8)
    pixels[2, 4] = (0, 0, 255)
    blue = planes(from_rgb(pixels, like))[1]
    assert blue[1, 2] == 255 and (np.delete(blue.ravel(), 5) == 128).all()
    pixels[:] = 0
    pixels[0, 0] = (0, 0, 255)
    assert planes(from_rgb(pixels, like))[1][0, 0] == 128 + 32


def test_tags_time_and_alpha_go_over():
    like = blank("yuva444p10le", 4, 6, matrix=9)
    like.color_primaries, like.color_trc = 9, 16
    like.pts = 7
    planes(like)[3][:] = 512
    frame = from_rgb(np.zeros((4, 6, 3), np.uint16), like)
    assert Colour.of(frame) == Colour(9, 16, 9, 1) and Colour.of(frame).is_hdr and frame.pts == 7
    assert (planes(frame)[3] == 512).all()
    assert (alpha(frame) == round(512 / 1023 * 65535)).all()


def test_alpha_of_packed_and_of_opaque_frames():
    frame = av.VideoFrame.from_ndarray(np.full((4, 6, 4), 9, np.uint8), format="bgra")
    assert (alpha(frame) == 9).all() and alpha(blank("yuv420p", 4, 6)) is None
