from __future__ import annotations

import logging
import pickle
import sys
from fractions import Fraction

import cv2
import numpy as np
import pytest

from cssta.video import VideoError, iter_frames, probe, read_frames, reader, write_video
from cssta.video.scan import scan
from tests.cssta.media import (
    claim_frames,
    clip,
    cut_short,
    damage,
    encode,
    frame_number,
    sound_only,
    turn,
)

SHOT = clip(40, 64, 96)


@pytest.fixture
def video(tmp_path):
    return encode(tmp_path / "shot.mp4", SHOT, crf="10", g="12")


def numbers(frames):
    return [frame_number(frame) for frame in frames]


def test_the_whole_video_comes_in_order_and_in_its_colours(video):
    frames = read_frames(video)
    assert frames.shape == SHOT.shape and frames.dtype == np.uint8
    assert numbers(frames) == list(range(40))
    error = frames.astype(float) - SHOT
    assert np.abs(error.mean(axis=(0, 1, 2))).max() < 0.5


def test_single_frames_come_from_decord_in_the_order_asked_for(video, caplog):
    pytest.importorskip("decord")
    caplog.set_level(logging.DEBUG, "cssta.video")
    wanted = [39, 0, 17, 17, 5]
    assert numbers(read_frames(video, wanted)) == wanted
    assert "read with decord" in caplog.text


def test_both_ways_agree(video):
    some = list(range(0, 40, 3))
    by_number, in_order = read_frames(video, some), read_frames(video)[some]
    assert np.abs(by_number.astype(int) - in_order).mean() < 2


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libsvtav1"), ("a.ts", "libx264")])
def test_what_decord_cannot_read_goes_to_pyav(tmp_path, caplog, name, codec):
    try:
        path = encode(tmp_path / name, SHOT, codec=codec)
    except ValueError as error:
        pytest.skip(f"this PyAV cannot write {codec}: {error}")
    caplog.set_level(logging.INFO, "cssta.video")
    assert numbers(read_frames(path, [30, 2])) == [30, 2]
    assert "read with PyAV" in caplog.text
    assert numbers(read_frames(path)) == list(range(40))


@pytest.mark.parametrize("suffix", [".mkv", ".avi", ".mov"])
def test_other_containers(tmp_path, suffix):
    codec = "mpeg4" if suffix == ".avi" else "libx264"
    path = encode(tmp_path / f"shot{suffix}", SHOT, codec=codec)
    assert probe(path).frames == 40
    assert numbers(read_frames(path, [3, 38])) == [3, 38]


def test_pyav_alone_seeks_to_the_right_frames(video, monkeypatch):
    monkeypatch.setitem(sys.modules, "decord", None)
    for wanted in ([39], [13, 12, 11], [0, 39], [25, 25]):
        assert numbers(read_frames(video, wanted)) == wanted


def test_pyav_decodes_no_more_than_the_way_from_a_key_frame(video, monkeypatch):
    decoded = []
    plain = reader.decode_frames

    def counting(path, start=None):
        for frame in plain(path, start):
            decoded.append(frame)
            yield frame

    monkeypatch.setattr(reader, "decode_frames", counting)
    reader._by_pyav(video, [38, 39], scan(video))
    assert len(decoded) <= 12
    decoded.clear()
    assert numbers(reader._by_pyav(video, [38, 1, 0], scan(video))) == [38, 1, 0]
    assert len(decoded) <= 2 + 12


def test_iter_frames_gives_chunks(video):
    chunks = list(iter_frames(video, chunk=16))
    assert [len(chunk) for chunk in chunks] == [16, 16, 8]
    np.testing.assert_array_equal(np.concatenate(chunks), read_frames(video))


@pytest.mark.parametrize("degrees", [90, 180, 270])
@pytest.mark.parametrize("size", [(64, 96), (128, 192)])
def test_rotation_is_the_same_in_both_ways(tmp_path, degrees, size):
    plain = encode(tmp_path / "plain.mp4", clip(6, *size), crf="10")
    path = turn(plain, tmp_path / "turned.mp4", degrees)
    info, frames = probe(path), read_frames(path)
    height, width = size if degrees == 180 else size[::-1]
    assert (info.height, info.width) == (height, width) and frames.shape == (6, height, width, 3)
    upright = np.stack([np.rot90(frame, -degrees // 90) for frame in clip(6, *size)])
    assert np.abs(frames.astype(int) - upright).mean() < 3
    by_number = read_frames(path, [0, 5])
    assert np.abs(by_number.astype(int) - frames[[0, 5]]).mean() < 2.5


def test_full_range_video_keeps_its_contrast(tmp_path):
    path = encode(tmp_path / "full.mp4", SHOT, full_range=True, crf="10")
    for frames in (read_frames(path), read_frames(path, range(40))):
        assert np.abs((frames.astype(float) - SHOT).mean(axis=(0, 1, 2))).max() < 2


def test_ten_bit_video_comes_as_eight(tmp_path):
    path = encode(tmp_path / "ten.mp4", SHOT, pix_fmt="yuv420p10le", crf="10")
    assert read_frames(path).dtype == np.uint8
    assert np.abs(read_frames(path).astype(float) - SHOT).mean() < 3


def test_one_frame(tmp_path):
    path = write_video(tmp_path / "one.mp4", SHOT[:1], 24)
    assert probe(path).frames == 1 and probe(path).fps == 24
    assert read_frames(path).shape == read_frames(path, [0]).shape == (1, 64, 96, 3)


def test_a_video_cut_short_gives_the_frames_it_has(tmp_path, caplog):
    noise = np.random.default_rng(0).integers(0, 255, (40, 64, 96, 3), dtype=np.uint8)
    noise[:, :8] = SHOT[:, :8]
    whole = encode(tmp_path / "whole.mp4", noise, g="12")
    path = cut_short(whole, tmp_path / "short.mp4", 0.6)
    info = probe(path)
    assert 10 < info.frames < 30 and info.declared == 40
    assert "truncated" in caplog.text and str(info.frames) in caplog.text
    frames = read_frames(path)
    assert numbers(frames) == list(range(info.frames))
    assert numbers(read_frames(path, [info.frames - 1, 1])) == [info.frames - 1, 1]
    with pytest.raises(VideoError) as caught:
        read_frames(path, [39])
    assert caught.value.reason == "frame-index" and str(path) in str(caught.value)


def test_a_header_that_claims_too_many_frames_never_reaches_decord(video, tmp_path, monkeypatch):
    path = claim_frames(video, tmp_path / "claims.mp4", 5000)
    info = probe(path)
    assert (info.frames, info.declared) == (40, 5000)

    class Trap:
        DECORDError = RuntimeError

        def VideoReader(self, *_args, **_kwargs):
            raise AssertionError("decord was let near it")

    monkeypatch.setattr(reader, "_decord", Trap)
    assert numbers(read_frames(path, [39, 0])) == [39, 0]
    assert len(read_frames(path)) == 40


def test_damage_in_the_middle_is_an_error_not_a_shift(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (40, 64, 96, 3), dtype=np.uint8)
    whole = encode(tmp_path / "whole.mp4", noise, g="12")
    path = damage(whole, tmp_path / "bad.mp4", 0.5)
    for read in (read_frames, lambda p: read_frames(p, range(40))):
        with pytest.raises(VideoError, match="damaged after frame") as caught:
            read(path)
        assert caught.value.reason == "corrupt"


def test_files_that_are_no_videos(tmp_path, video):
    text = tmp_path / "text.mp4"
    text.write_text("This is not a video.\n" * 50)
    empty = tmp_path / "empty.mp4"
    empty.touch()
    late_index = encode(tmp_path / "late.mp4", SHOT, faststart=False)
    cases = {
        "unreadable": text,
        "empty": empty,
        "truncated": cut_short(late_index, tmp_path / "cut.mp4", 0.5),
        "no-video": sound_only(tmp_path / "sound.m4a"),
        "missing": tmp_path / "nowhere.mp4",
    }
    for reason, path in cases.items():
        for action in (probe, read_frames, lambda p: read_frames(p, [0])):
            with pytest.raises(VideoError) as caught:
                action(path)
            assert caught.value.reason == reason
            assert caught.value.path == path and str(path) in str(caught.value)


def test_errors_survive_pickling(tmp_path):
    with pytest.raises(VideoError) as caught:
        probe(tmp_path / "nowhere.mp4")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.path, copy.reason) == (
        str(caught.value),
        caught.value.path,
        caught.value.reason,
    )


def test_frame_numbers_out_of_range(video):
    for wanted in ([40], [-1], []):
        with pytest.raises(VideoError) as caught:
            read_frames(video, wanted)
        assert caught.value.reason == "frame-index"


def test_a_changed_file_is_looked_at_again(tmp_path):
    path = write_video(tmp_path / "a.mp4", SHOT[:4], 24)
    assert probe(path).frames == 4
    write_video(path, SHOT[:9], 24)
    assert probe(path).frames == 9


def test_frame_folders(tmp_path):
    for number in (10, 2, 1):
        cv2.imwrite(str(tmp_path / f"f{number}.png"), SHOT[number][..., ::-1])
    (tmp_path / "notes.txt").write_text("ignored")
    info = probe(tmp_path)
    assert (info.frames, info.height, info.width, info.fps) == (3, 64, 96, 24)
    assert probe(tmp_path, fps=12.5).fps == Fraction(25, 2)
    np.testing.assert_array_equal(read_frames(tmp_path), SHOT[[1, 2, 10]])
    np.testing.assert_array_equal(read_frames(tmp_path, [2]), SHOT[[10]])
    with pytest.raises(VideoError) as caught:
        read_frames(tmp_path, [3])
    assert caught.value.reason == "frame-index"


def test_real_footage(shared_dir):
    for path in sorted((shared_dir / "clips").glob("*.mp4"))[::140]:
        info = probe(path)
        frames = read_frames(path)
        assert frames.shape == (info.frames, info.height, info.width, 3)
        last = info.frames - 1
        difference = np.abs(read_frames(path, [last, 0]).astype(int) - frames[[last, 0]])
        assert difference.mean() < 2
