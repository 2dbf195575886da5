from __future__ import annotations

import cv2
import numpy as np
import pytest

from cssta.video import VideoError, read_masks, write_frame_folder, write_video

FRAMES, HEIGHT, WIDTH = 5, 48, 64


@pytest.fixture
def masks():
    result = np.zeros((FRAMES, HEIGHT, WIDTH), bool)
    for number in range(FRAMES):
        result[number, 8 : 8 + 4 * number, 10:30] = True
    return result


def grey(masks):
    return np.repeat(masks[..., None], 3, axis=-1).astype(np.uint8) * 255


def test_a_frame_folder_of_masks(tmp_path, masks):
    folder = write_frame_folder(tmp_path / "m", grey(masks))
    np.testing.assert_array_equal(read_masks(folder, FRAMES, HEIGHT, WIDTH), masks)


def test_a_mask_video_survives_compression(tmp_path, masks):
    path = write_video(tmp_path / "m.mp4", grey(masks), 24)
    back = read_masks(path, FRAMES, HEIGHT, WIDTH)
    assert (back != masks).mean() < 0.005


def test_one_picture_serves_all_frames(tmp_path, masks):
    cv2.imwrite(str(tmp_path / "m.png"), grey(masks)[3])
    back = read_masks(tmp_path / "m.png", 7, HEIGHT, WIDTH)
    np.testing.assert_array_equal(back, np.repeat(masks[3:4], 7, axis=0))


@pytest.mark.parametrize("level", [1, 2, 255])
def test_object_numbers_in_a_png_are_holes(tmp_path, masks, level):
    cv2.imwrite(str(tmp_path / "m.png"), masks[3].astype(np.uint8) * level)
    np.testing.assert_array_equal(read_masks(tmp_path / "m.png", 1, HEIGHT, WIDTH)[0], masks[3])


def test_alpha_is_no_mask(tmp_path, masks):
    pixels = np.dstack([grey(masks)[3], np.full((HEIGHT, WIDTH), 255, np.uint8)])
    cv2.imwrite(str(tmp_path / "m.png"), pixels)
    np.testing.assert_array_equal(read_masks(tmp_path / "m.png", 1, HEIGHT, WIDTH)[0], masks[3])


@pytest.mark.parametrize(("level", "hole"), [(127, False), (128, True), (20, False)])
def test_grey_in_lossy_media_is_split_in_the_middle(tmp_path, level, hole):
    flat = np.full((FRAMES, HEIGHT, WIDTH, 3), level, np.uint8)
    cv2.imwrite(str(tmp_path / "m.jpg"), flat[0], [cv2.IMWRITE_JPEG_QUALITY, 100])
    assert read_masks(tmp_path / "m.jpg", 1, HEIGHT, WIDTH).all() == hole
    if level == 20:
        path = write_video(tmp_path / "m.mp4", flat, 24)
        assert not read_masks(path, FRAMES, HEIGHT, WIDTH).any()


def test_another_size_of_the_same_shape_is_scaled(tmp_path, masks):
    folder = write_frame_folder(tmp_path / "m", grey(masks))
    double = read_masks(folder, FRAMES, 2 * HEIGHT, 2 * WIDTH)
    np.testing.assert_array_equal(double, masks.repeat(2, axis=1).repeat(2, axis=2))
    assert read_masks(folder, FRAMES, HEIGHT, WIDTH - 1).shape == (FRAMES, HEIGHT, WIDTH - 1)


def test_another_aspect_ratio_is_an_error(tmp_path, masks):
    folder = write_frame_folder(tmp_path / "m", grey(masks))
    with pytest.raises(VideoError, match="64x48") as caught:
        read_masks(folder, FRAMES, WIDTH, HEIGHT)
    assert caught.value.reason == "mask-size" and "48x64" in str(caught.value)


@pytest.mark.parametrize("frames", [4, 6, 1])
@pytest.mark.parametrize("kind", ["folder", "video"])
def test_another_length_is_an_error_naming_both(tmp_path, masks, frames, kind):
    if kind == "folder":
        path = write_frame_folder(tmp_path / "m", grey(masks))
    else:
        path = write_video(tmp_path / "m.mp4", grey(masks), 24)
    with pytest.raises(VideoError, match=f"5 frames, the video {frames}") as caught:
        read_masks(path, frames, HEIGHT, WIDTH)
    assert caught.value.reason == "mask-length" and str(path) in str(caught.value)


@pytest.mark.parametrize("value", [0, 255])
def test_no_hole_and_nothing_but_hole_are_masks_too(tmp_path, value):
    flat = np.full((FRAMES, HEIGHT, WIDTH, 3), value, np.uint8)
    folder = write_frame_folder(tmp_path / "m", flat)
    assert (read_masks(folder, FRAMES, HEIGHT, WIDTH) == bool(value)).all()


def test_broken_pictures(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder").mkdir()
    cases = {
        "unreadable": tmp_path / "text.png",
        "empty": tmp_path / "empty.png",
        "missing": tmp_path / "nowhere.png",
        "no-frames": tmp_path / "folder",
    }
    for reason, path in cases.items():
        with pytest.raises(VideoError) as caught:
            read_masks(path, FRAMES, HEIGHT, WIDTH)
        assert caught.value.reason == reason and str(path) in str(caught.value)


def test_davis_annotations(shared_dir):
    folder = sorted((shared_dir / "davis" / "Annotations" / "480p").iterdir())[0]
    count = len(list(folder.glob("*.png")))
    masks = read_masks(folder, count, 480, 854)
    assert masks.shape == (count, 480, 854) and 0.001 < masks.mean() < 0.6
