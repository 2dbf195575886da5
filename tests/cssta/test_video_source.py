from __future__ import annotations

import pickle
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from cssta.video import SourceFrame, open_source
from cssta.video.planes import planes
from tests.cssta.media import clip, encode, native_frames

SHOT = clip(3, 64, 96)


def test_a_path_is_a_file_a_folder_a_sequence_or_a_picture(tmp_path):
    encode(tmp_path / "a.mp4", SHOT)
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, frame in enumerate(SHOT):
        cv2.imwrite(str(folder / f"f{number}.png"), frame[..., ::-1])
    kinds = {"a.mp4": False, "frames": True, "frames/f%d.png": True, "frames/f0.png": True}
    for name, is_folder in kinds.items():
        info = open_source(str(tmp_path / name)).info
        assert info.is_folder == is_folder and info.frames == (1 if name.endswith("0.png") else 3)


def test_information_is_pickled_and_knows_times(tmp_path):
    info = open_source(encode(tmp_path / "a.mp4", SHOT)).info
    assert pickle.loads(pickle.dumps(info)) == info
    assert info.seconds(2) == pytest.approx(2 / 24) and info.duration == pytest.approx(3 / 24)


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_a_frame_is_shown_upright_and_kept_as_stored(rotation):
    pixels = np.zeros((1, 32, 48, 4), np.uint8)
    pixels[..., 3] = 255
    pixels[0, :8, :8] = 255
    pixels[0, 24:, :8, 3] = 0
    frame = SourceFrame(0, next(native_frames(pixels, "yuva420p")), rotation)
    upright = np.rot90(pixels[0], rotation // 90)
    assert (frame.native.height, frame.native.width) == (32, 48)
    assert np.abs(frame.rgb().astype(int) - upright[..., :3]).max() <= 2
    np.testing.assert_array_equal(frame.alpha(), upright[..., 3])
    small = frame.thumbnail(24)
    assert small.shape[:2] == ((16, 24) if rotation % 180 == 0 else (24, 16))
    assert np.abs(small.astype(int) - upright[1::2, 1::2, :3]).max() <= 4


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pictures_are_their_own_pixels(dtype):
    pixels = np.full((8, 12, 4), np.iinfo(dtype).max, dtype)
    frame = SourceFrame(0, pixels)
    assert frame.rgb().dtype == dtype and frame.rgb().shape == (8, 12, 3)
    assert frame.alpha().shape == (8, 12) and SourceFrame(0, frame.rgb()).alpha() is None
    small = frame.thumbnail(6)
    assert small.shape == (4, 6, 3) and small.dtype == np.uint8 and (small == 255).all()


def test_deep_frames_come_with_sixteen_bits():
    native = av.VideoFrame(16, 8, "yuv420p10le")
    native.color_range = 2
    for plane, value in zip(planes(native), (1023, 512, 512), strict=True):
        plane[:] = value
    rgb = SourceFrame(0, native).rgb()
    assert rgb.dtype == np.uint16 and (rgb == 65535).all()


def test_frame_rate_is_for_pictures(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), SHOT[0])
    assert open_source(tmp_path, fps=Fraction(25, 2)).info.fps == Fraction(25, 2)
    assert open_source(tmp_path).info.fps == 24
