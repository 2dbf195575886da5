from __future__ import annotations

import av
import numpy as np
import pytest

from cssta.video.planes import bit_depth, has_alpha, planar, planar_format, planes

POINT = 0x10
PACKED = {
    "nv12": "yuv420p",
    "yuyv422": "yuv422p",
    "uyvy422": "yuv422p",
    "p010le": "yuv420p10le",
    "yuv422p10be": "yuv422p10le",
    "gray16be": "gray16le",
    "rgb24": "gbrp",
    "bgra": "gbrap",
    "rgb48be": "gbrp16le",
    "rgba64le": "gbrap16le",
}


def random_frame(name: str, height: int, width: int) -> av.VideoFrame:
    frame = av.VideoFrame(width, height, name)
    rng = np.random.default_rng(0)
    for plane in planes(frame):
        plane[:] = rng.integers(0, 2 ** bit_depth(frame.format), plane.shape)
    return frame


@pytest.mark.parametrize("packed", PACKED)
def test_repacking_changes_no_sample(packed):
    truth = random_frame(PACKED[packed], 480, 46)
    there = truth.reformat(format=packed, interpolation=POINT, threads=1)
    assert there.format.name == packed
    back = planar(there)
    assert back.format.name == PACKED[packed]
    for found, expected in zip(planes(back), planes(truth), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["yuv420p", "yuvj422p", "yuv444p12le", "gray", "gbrp", "yuva420p"])
def test_planar_frames_stay_what_they_are(name):
    frame = random_frame(name, 5, 7)
    assert planar(frame) is frame and planar_format(frame.format) == name


def test_views_are_of_the_frame_itself_and_have_no_padding():
    frame = random_frame("yuv420p10le", 5, 7)
    shapes = [plane.shape for plane in planes(frame)]
    assert shapes == [(5, 7), (3, 4), (3, 4)] and planes(frame)[0].dtype == np.uint16
    planes(frame)[1][2, 3] = 777
    assert planes(frame)[1][2, 3] == 777


@pytest.mark.parametrize(
    ("name", "depth", "alpha"),
    [
        ("yuv420p", 8, False),
        ("p010le", 10, False),
        ("pal8", 8, True),
        ("ya8", 8, True),
        ("rgb555le", 8, False),
        ("gbrap12le", 12, True),
        ("monob", 8, False),
    ],
)
def test_depth_and_alpha(name, depth, alpha):
    format = av.VideoFormat(name, 8, 8)
    assert bit_depth(format) == depth and has_alpha(format) == alpha
    assert av.VideoFormat(planar_format(format)).name
