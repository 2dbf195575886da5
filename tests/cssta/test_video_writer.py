from __future__ import annotations

from fractions import Fraction

import av
import cv2
import numpy as np
import pytest

from cssta.video import (
    VideoError,
    VideoWriter,
    check_replaceable,
    probe,
    read_frames,
    write_frame_folder,
    write_picture,
    write_video,
)
from cssta.video.frame_folder import read_picture
from tests.cssta.media import clip, frame_number

SHOT = clip(10, 48, 64)


def files(folder):
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize("size", [(48, 64), (47, 64), (48, 63), (47, 63), (2, 2), (1, 1), (17, 1)])
def test_any_size_comes_back_exactly(tmp_path, size):
    frames = np.full((3, *size, 3), (60, 120, 180), np.uint8)
    path = write_video(tmp_path / "a.mp4", frames, 24)
    assert read_frames(path).shape == frames.shape
    assert np.abs(read_frames(path).astype(int) - frames).max() < 4


@pytest.mark.parametrize("size", [(96, 128), (95, 127)])
def test_colours_do_not_shift(tmp_path, size):
    frames = clip(6, *size, seed=4)
    for crf in (0, 16):
        back = read_frames(write_video(tmp_path / "a.mp4", frames, 24, crf=crf))
        error = back.astype(float) - frames
        assert np.abs(error.mean(axis=(0, 1, 2))).max() < 0.5
        assert np.abs(error).mean() < 1.5


def test_colours_do_not_drift_over_generations(tmp_path):
    grain = np.random.default_rng(0).normal(0, 8, (4, 56, 96, 3))
    first = np.clip(clip(4, 64, 96, seed=2)[:, 8:] + grain, 0, 255).astype(np.uint8)
    frames = first
    for _ in range(5):
        frames = read_frames(write_video(tmp_path / "a.mp4", frames, 24, crf=0))
    assert np.abs((frames.astype(float) - first).mean(axis=(0, 1, 2))).max() < 1


def test_the_stream_says_what_its_colours_are(tmp_path):
    path = write_video(tmp_path / "a.mp4", SHOT, 24)
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert context.name == "h264" and context.pix_fmt == "yuv420p"
        assert (context.colorspace, context.color_primaries, context.color_trc) == (1, 1, 1)
        assert context.color_range == 1
    data = path.read_bytes()
    assert data.find(b"moov") < data.find(b"mdat"), "players should not need the end to begin"


@pytest.mark.parametrize("fps", [24, 29.97, 59.94, Fraction(24000, 1001), 12.5, 1])
def test_the_rate_is_kept(tmp_path, fps):
    path = write_video(tmp_path / "a.mp4", SHOT, fps)
    assert abs(float(probe(path).fps) - float(fps)) < 1e-4
    assert probe(path).frames == 10


def test_frames_may_come_one_by_one_or_in_chunks(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", 24, 48, 64) as writer:
        writer.write(SHOT[0])
        writer.write(SHOT[1:7])
        writer.write(SHOT[7:])
        assert not (tmp_path / "a.mp4").exists()
    assert files(tmp_path) == ["a.mp4"]
    assert [frame_number(f) for f in read_frames(tmp_path / "a.mp4")] == list(range(10))
    write_video(tmp_path / "b.mp4", (frame for frame in SHOT), 24)
    assert probe(tmp_path / "b.mp4").frames == 10


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_after_an_exception_and_the_old_file_stays(tmp_path, error):
    old = write_video(tmp_path / "a.mp4", SHOT[:2], 24).read_bytes()

    def frames():
        yield SHOT[0]
        raise error

    for name in ("a.mp4", "new.mp4"):
        with pytest.raises(error):
            write_video(tmp_path / name, frames(), 24)
    assert files(tmp_path) == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_bytes() == old


def test_a_file_that_does_not_verify_is_not_published(tmp_path, monkeypatch):
    writer = VideoWriter(tmp_path / "a.mp4", 24, 48, 64)
    with pytest.raises(VideoError, match="came out as") as caught, writer:
        writer.write(SHOT)
        writer.frames += 1  # as if the encoder had lost one
    assert caught.value.reason == "unverified" and files(tmp_path) == []


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        (SHOT[:0], "no-frames"),
        ([SHOT[0], SHOT[0][:40]], "frame-size"),
        (SHOT.astype(np.float32), "frame-size"),
    ],
)
def test_frames_that_cannot_be_written(tmp_path, frames, reason):
    with pytest.raises(VideoError) as caught:
        write_video(tmp_path / "a.mp4", frames, 24)
    assert caught.value.reason == reason and files(tmp_path) == []


def test_targets_that_cannot_be_written(tmp_path):
    with pytest.raises(VideoError, match=r"\.mp4"):
        write_video(tmp_path / "a.avi", SHOT, 24)
    with pytest.raises(VideoError, match="per second"):
        write_video(tmp_path / "a.mp4", SHOT, 0)
    (tmp_path / "file").touch()
    with pytest.raises(VideoError) as caught:
        write_video(tmp_path / "file" / "a.mp4", SHOT, 24)
    assert caught.value.reason == "unwritable"


def test_missing_folders_are_made(tmp_path):
    assert write_video(tmp_path / "x" / "y" / "a.mp4", SHOT, 24).is_file()


def test_frame_folders_are_lossless_and_whole(tmp_path):
    folder = write_frame_folder(tmp_path / "out", SHOT)
    assert files(folder)[:2] == ["00000.png", "00001.png"]
    np.testing.assert_array_equal(read_frames(folder), SHOT)

    def broken():
        yield SHOT[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_frame_folder(folder, broken(), overwrite=True)
    np.testing.assert_array_equal(read_frames(folder), SHOT)
    write_frame_folder(folder, SHOT[:2], overwrite=True)
    assert files(folder) == ["00000.png", "00001.png"] and files(tmp_path) == ["out"]


def test_overwriting_spares_folders_with_other_files(tmp_path):
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday" / "beach.png").touch()
    for overwrite in (False, True):
        with pytest.raises(VideoError) as caught:
            write_frame_folder(tmp_path / "holiday", SHOT, overwrite=overwrite)
        assert caught.value.reason == "exists"
    assert files(tmp_path / "holiday") == ["beach.png"]
    (tmp_path / "file").touch()
    with pytest.raises(VideoError, match="a file has that name"):
        check_replaceable(tmp_path / "file", True)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_pictures_keep_depth_and_alpha(tmp_path, channels, kind):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, np.iinfo(kind).max + 1, (5, 7, channels)).astype(kind)
    write_picture(tmp_path / "a.png", pixels)
    order = cv2.COLOR_BGRA2RGBA if channels == 4 else cv2.COLOR_BGR2RGB
    back = cv2.cvtColor(read_picture(tmp_path / "a.png", cv2.IMREAD_UNCHANGED), order)
    np.testing.assert_array_equal(back, pixels)
    assert back.dtype == kind
    with pytest.raises(VideoError) as caught:
        write_picture(tmp_path / "none" / "a.png", pixels)
    assert caught.value.reason == "unwritable"
