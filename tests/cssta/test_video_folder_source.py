from __future__ import annotations

import cv2
import numpy as np
import pytest

from cssta.video import VideoError, open_source
from tests.cssta.media import clip

SHOT = clip(12, 48, 64)


def write(folder, names, frames=SHOT):
    folder.mkdir(exist_ok=True)
    for name, frame in zip(names, frames, strict=False):
        order = [2, 1, 0, 3][: frame.shape[-1]] if frame.ndim == 3 else slice(None)
        pixels = frame[..., order] if frame.ndim == 3 else frame
        cv2.imwrite(str(folder / name), np.ascontiguousarray(pixels))
    return folder


def test_a_folder_in_natural_order(tmp_path):
    folder = write(tmp_path / "f", [f"f{number}.png" for number in range(12)])
    source = open_source(folder)
    info = source.info
    assert (info.frames, info.height, info.width) == (12, 48, 64)
    assert (info.pix_fmt, info.codec, info.bit_depth, info.is_folder) == ("rgb24", "png", 8, True)
    np.testing.assert_array_equal([frame.rgb() for frame in source.frames()], SHOT)
    assert [frame.index for frame in source.frames(9, 11)] == [9, 10]
    np.testing.assert_array_equal(source.pick([10])[10].native, SHOT[10])


@pytest.mark.parametrize("pattern", ["shot.%04d.png", "shot.%d.png"])
def test_a_numbered_sequence_need_not_start_at_nought(tmp_path, pattern):
    names = [pattern % number for number in range(998, 1004)]
    folder = write(tmp_path / "f", [*names, "other.png", "shot.x.png"])
    source = open_source(folder / pattern)
    np.testing.assert_array_equal([frame.rgb() for frame in source.frames()], SHOT[:6])


def test_gaps_and_absences_are_named(tmp_path):
    folder = write(tmp_path / "f", ["s01.png", "s02.png", "s04.png"])
    with pytest.raises(VideoError, match="number 3 is missing between 1 and 4") as caught:
        open_source(folder / "s%02d.png")
    assert caught.value.reason == "missing"
    for path in (folder / "t%02d.png", tmp_path / "nowhere" / "s%02d.png"):
        with pytest.raises(VideoError, match="no file has such a name"):
            open_source(path)


@pytest.mark.parametrize(
    ("dtype", "channels", "pix_fmt"),
    [
        (np.uint8, 4, "rgba"),
        (np.uint16, 3, "rgb48le"),
        (np.uint16, 4, "rgba64le"),
        (np.uint16, 1, "rgb48le"),
    ],
)
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_depth_and_alpha_are_kept(tmp_path, dtype, channels, pix_fmt, suffix):
    top = np.iinfo(dtype).max
    pixels = np.random.default_rng(0).integers(0, top, (2, 9, 11, channels), dtype=dtype)
    pixels = pixels[..., 0] if channels == 1 else pixels
    source = open_source(write(tmp_path / "f", [f"0{suffix}", f"1{suffix}"], pixels))
    info = source.info
    assert info.pix_fmt == pix_fmt and info.has_alpha == (channels == 4)
    assert info.bit_depth == (16 if dtype == np.uint16 else 8)
    frame = source.pick([1])[1]
    expected = np.repeat(pixels[1][..., None], 3, -1) if channels == 1 else pixels[1]
    np.testing.assert_array_equal(frame.native, expected)
    np.testing.assert_array_equal(frame.rgb(), expected[..., :3])


def test_pictures_that_do_not_belong_together(tmp_path):
    write(tmp_path / "f", ["0.png", "1.png"])
    cv2.imwrite(str(tmp_path / "f" / "2.png"), SHOT[0, :40])
    cv2.imwrite(str(tmp_path / "f" / "3.png"), SHOT[0].astype(np.uint16) * 257)
    source = open_source(tmp_path / "f")
    for index, reason in ((2, "frame-size"), (3, "format")):
        with pytest.raises(VideoError) as caught:
            source.pick([index])
        assert caught.value.reason == reason and f"{index}.png" in str(caught.value)
    with pytest.raises(VideoError) as caught:
        source.pick([4])
    assert caught.value.reason == "frame-index"


def test_davis(shared_dir):
    folder = sorted((shared_dir / "davis" / "JPEGImages" / "480p").iterdir())[0]
    source = open_source(folder)
    assert next(source.frames()).rgb().shape == (480, 854, 3) and source.info.codec == "jpg"
