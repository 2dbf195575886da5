from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest

from cssta.video import VideoError, open_source, write_frame_folder
from cssta.video.mask_files import Shape, holes, open_layer, open_mask_files
from tests.cssta.media import clip, make_video

FRAMES, HEIGHT, WIDTH = 6, 48, 64
SHAPE = Shape(HEIGHT, WIDTH)


@pytest.fixture(scope="module")
def info(tmp_path_factory):
    path = tmp_path_factory.mktemp("masked") / "a.mp4"
    return open_source(make_video(path, clip(FRAMES, HEIGHT, WIDTH))).info


@pytest.fixture
def masks():
    result = np.zeros((FRAMES, HEIGHT, WIDTH), bool)
    for number in range(FRAMES):
        result[number, 8 : 12 + 4 * number, 10:30] = True
    return result


def grey(masks):
    return np.repeat(masks[..., None], 3, axis=-1).astype(np.uint8) * 255


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("m.mp4", {}),
        ("m.mkv", {"codec": "ffv1", "pix_fmt": "gray"}),
        ("m.mov", {"rotation": 90}),
        ("m.webm", {"codec": "libvpx-vp9"}),
    ],
)
def test_mask_videos(tmp_path, info, masks, name, arguments):
    stored = np.rot90(masks, -1, (1, 2)) if "rotation" in arguments else masks
    path = make_video(tmp_path / name, grey(stored), **arguments)
    layer = open_mask_files(path, info)
    assert layer.length == FRAMES and "above 127" in layer.description
    back = np.stack(list(layer.masks(0, FRAMES)))
    assert (back != masks).mean() < 0.01
    picked = layer.pick([1, 4])
    assert (picked[4] == back[4]).all() and (picked[1] == back[1]).all()
    assert [mask.sum() for mask in layer.masks(2, 4)] == [back[2].sum(), back[3].sum()]


def test_folders_sequences_and_single_pictures(tmp_path, info, masks):
    folder = write_frame_folder(tmp_path / "m", grey(masks))
    for path in (folder, folder / "%05d.png"):
        layer = open_mask_files(path, info)
        np.testing.assert_array_equal(list(layer.masks(0, FRAMES)), masks)
    still = open_mask_files(folder / "00003.png", info)
    assert still.length is None and "above 0" in still.description
    np.testing.assert_array_equal(list(still.masks(0, 9)), np.repeat(masks[3:4], 9, axis=0))


def test_pictures_of_a_folder_may_differ_in_size_and_kind(tmp_path, masks):
    cv2.imwrite(str(tmp_path / "0.png"), grey(masks)[0])
    cv2.imwrite(str(tmp_path / "1.png"), grey(masks)[1, ..., 0].repeat(2, 0).repeat(2, 1))
    found = list(open_layer(tmp_path, SHAPE).masks(0, 2))
    np.testing.assert_array_equal(found, masks[:2])


@pytest.mark.parametrize("hold", [False, True])
@pytest.mark.parametrize("count", [FRAMES - 1, FRAMES + 2])
def test_another_length_is_refused_or_held(tmp_path, info, masks, caplog, count, hold):
    given = np.concatenate([masks, masks])[:count]
    folder = write_frame_folder(tmp_path / "m", grey(given))
    if not hold:
        with pytest.raises(VideoError, match=f"{count} frames, the video {FRAMES}") as caught:
            open_mask_files(folder, info)
        assert caught.value.reason == "mask-length" and "--hold-last" in str(caught.value)
        return
    layer = open_mask_files(folder, info, hold_last=True)
    assert "held" in caplog.text or "left out" in caplog.text
    expected = [given[min(number, count - 1)] for number in range(FRAMES)]
    np.testing.assert_array_equal(list(layer.masks(0, FRAMES)), expected)
    np.testing.assert_array_equal(list(layer.masks(5, 6)), expected[5:])
    np.testing.assert_array_equal(layer.pick([0, 5])[5], expected[5])


def test_a_fast_mask_that_is_a_little_short_is_held(tmp_path):
    source = make_video(tmp_path / "fast.mp4", clip(12, 48, 64), fps=60)
    mask = make_video(tmp_path / "mask.mp4", clip(8, 48, 64), fps=60)
    layer = open_mask_files(mask, open_source(source).info, hold_last=True)
    assert layer.length == 8


@pytest.mark.parametrize("hold", [False, True])
def test_another_frame_rate_over_the_same_time_is_refused(tmp_path, info, masks, hold):
    path = make_video(tmp_path / "m.mp4", grey(masks)[:3].repeat(4, 0), fps=48)
    with pytest.raises(VideoError, match=r"12 frames, the video 6 \(0.25 and 0.25 sec") as caught:
        open_mask_files(path, info, hold_last=hold)
    assert caught.value.reason == "mask-length" and "24 frames per second" in str(caught.value)


@pytest.mark.parametrize(("threshold", "expected"), [(None, 1), (0, 1), (99, 1), (100, 0)])
def test_thresholds_of_lossless_pictures(tmp_path, info, threshold, expected):
    cv2.imwrite(str(tmp_path / "m.png"), np.full((HEIGHT, WIDTH), 100, np.uint8))
    layer = open_mask_files(tmp_path / "m.png", info, threshold)
    assert next(layer.masks(0, 1)).mean() == expected


@pytest.mark.parametrize(("threshold", "expected"), [(None, 0), (90, 1), (110, 0)])
def test_thresholds_of_videos(tmp_path, info, threshold, expected):
    flat = np.full((FRAMES, HEIGHT, WIDTH, 3), 100, np.uint8)
    layer = open_mask_files(make_video(tmp_path / "m.mp4", flat), info, threshold)
    assert next(layer.masks(0, 1)).mean() == expected


def test_what_is_hole():
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[0], pixels[1, :, 2] = 255, 128
    expected = np.array([True, True, False, False])[:, None].repeat(4, 1)
    np.testing.assert_array_equal(holes(pixels, 127), expected)
    np.testing.assert_array_equal(holes(pixels.astype(np.uint16) * 257, 127), expected)


@pytest.mark.parametrize("colour", [0, 255])
def test_paint_of_one_colour_over_transparency_is_the_hole(colour):
    pixels = np.full((4, 4, 4), colour, np.uint8)
    pixels[..., 3] = [[0, 127, 128, 255]] * 4
    np.testing.assert_array_equal(holes(pixels, 0)[0], [False, False, True, True])
    np.testing.assert_array_equal(holes(pixels, 0, 20)[0], [False, True, True, True])
    pixels[..., 3] = 0
    assert not holes(pixels, 0).any()
    pixels[..., 3] = 255  # opaque: its colour counts
    assert holes(pixels, 0).all() == (colour == 255)


def test_a_mask_fits_the_stored_or_the_shown_shape(tmp_path, info):
    anamorphic = Shape.of(replace(info, sar=Fraction(4, 3)))
    for width in (WIDTH, round(WIDTH * 4 / 3)):
        cv2.imwrite(str(tmp_path / "m.png"), np.full((HEIGHT, width), 255, np.uint8))
        assert next(open_layer(tmp_path / "m.png", anamorphic).masks(0, 1)).shape == (48, 64)
    with pytest.raises(VideoError) as caught:
        open_layer(tmp_path / "m.png", SHAPE)
    assert caught.value.reason == "mask-size"
