from __future__ import annotations

import os
import signal
import time
from dataclasses import replace

import av
import numpy as np
import pytest

from cssta.video import SegmentWriter, VideoError, choose_encoding, open_source
from cssta.video.colour import Colour
from cssta.video.planes import planar, planes
from cssta.video.segment_writer import TICK, as_format
from tests.cssta.media import clip, make_video

SHOT = clip(8, 48, 64)
CODECS = ["h264", "hevc", "vp9", "av1", "ffv1", "mpeg4", "mpeg2video", "mjpeg"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "source.mkv"
    return open_source(make_video(path, SHOT, fps=25))


def write(path, source, codec, start=0, stop=None):
    encoding = choose_encoding(source.info, "out.mkv", codec=codec, accept_loss=True)
    with SegmentWriter(path, encoding, source.info) as writer:
        for frame in source.frames(start, stop):
            writer.write(frame.native)
    return path


@pytest.mark.parametrize("codec", CODECS)
def test_a_segment_stands_alone_and_is_the_same_each_time(source, tmp_path, codec):
    with av.open(str(write(tmp_path / "a", source, codec))) as container:
        stream = container.streams.video[0]
        packets = [p for p in container.demux(stream) if p.size]
        head = stream.codec_context.extradata
        assert packets[0].is_keyframe and packets[0].pts == 0
        assert sorted(p.pts * p.time_base / TICK for p in packets) == list(range(8))
    with av.open(str(write(tmp_path / "b", source, codec))) as container:
        again = [bytes(p) for p in container.demux(video=0) if p.size]
    assert again == [bytes(p) for p in packets]
    # Segments of any length share the header, so that their packets can be joined.
    for start, stop in ((0, 1), (3, 5)):
        with av.open(str(write(tmp_path / "c", source, codec, start, stop))) as container:
            stream = container.streams.video[0]
            assert stream.codec_context.extradata == head
            assert len(list(container.decode(stream))) == stop - start


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_after_an_exception_nothing_is_left_and_an_old_segment_stays(source, tmp_path, error):
    old = write(tmp_path / "old", source, "ffv1").read_bytes()
    encoding = choose_encoding(source.info, "out.mkv", codec="ffv1")
    for name in ("old", "new"):
        with pytest.raises(error), SegmentWriter(tmp_path / name, encoding, source.info) as writer:
            writer.write(next(source.frames()).native)
            assert not (tmp_path / "new").exists()
            raise error
    assert [f.name for f in tmp_path.iterdir()] == ["old"]
    assert (tmp_path / "old").read_bytes() == old


def test_a_killed_process_leaves_no_segment(source, tmp_path):
    encoding = choose_encoding(source.info, "out.mkv", codec="ffv1")
    read, told = os.pipe()
    child = os.fork()
    if child == 0:
        with SegmentWriter(tmp_path / "segment", encoding, source.info) as writer:
            for frame in source.frames():
                writer.write(frame.native)
            os.write(told, b"written")
            time.sleep(60)
        os._exit(0)
    try:
        assert os.read(read, 7) == b"written"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert [f.name for f in tmp_path.iterdir()] == [".segment.partial"]
    assert write(tmp_path / "segment", source, "ffv1").exists()
    assert [f.name for f in tmp_path.iterdir()] == ["segment"]


def test_what_cannot_be_written_says_so(source, tmp_path):
    usual = choose_encoding(source.info, "out.mkv")
    broken = replace(usual, options={"preset": "no such preset"})
    (tmp_path / "file").touch()
    for place, encoding, frames, reason in (
        ("none", usual, 0, "no-frames"),
        ("file/segment", usual, 1, "unwritable"),
        ("segment", broken, 1, "unwritable"),
    ):
        writer = SegmentWriter(tmp_path / place, encoding, source.info)
        with pytest.raises(VideoError) as caught, writer:
            for frame in source.frames(0, frames):
                writer.write(frame.native)
        assert caught.value.reason == reason
    assert [f.name for f in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("yuvj420p", "yuv420p"),
        ("nv12", "yuv420p"),
        ("p010le", "yuv420p10le"),
        ("gbrp", "bgr0"),
        ("gbrap", "bgra"),
        ("gbrp16le", "rgb48le"),
    ],
)
def test_formats_of_the_same_samples_keep_them(old, new):
    frame = av.VideoFrame(14, 10, old)
    rng = np.random.default_rng(0)
    for plane in frame.planes:
        data = rng.integers(0, 256, plane.buffer_size).astype(np.uint8)
        if old == "p010le":
            data[::2] &= 0xC0
        plane.update(data.tobytes())
    there = as_format(frame, new, Colour())
    for one, other in zip(planes(planar(frame)), planes(planar(there)), strict=True):
        np.testing.assert_array_equal(one, other)
