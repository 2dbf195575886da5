from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest

from cssta.video import VideoError, choose_encoding, open_source, verify
from cssta.video.planes import planes
from tests.cssta.media import clip, cut_short, damage, make_video
from tests.cssta.side_by_side import Holes, rewritten

SHOT = clip(12, 48, 64)


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A source with sound and subtitles, its sound copy, and how that was encoded."""
    folder = tmp_path_factory.mktemp("job")
    path = make_video(
        folder / "source.mp4",
        SHOT,
        audio=["aac", "aac"],
        subtitles=["mov_text"],
        sar=Fraction(4, 3),
        rotation=90,
        options={"bf": "2"},
    )
    copy = rewritten(path, folder / "copy.mp4")
    source = open_source(path)
    return source, copy, choose_encoding(source.info, copy)


def remuxed(copy, target, keep=lambda packet: True, change=lambda packet: None, streams=None):
    """The copy's packets written again, some left out or changed."""
    with av.open(str(copy)) as source, av.open(str(target), "w") as output:
        wanted = [s for s in source.streams if streams is None or s.index in streams]
        copies = {s.index: output.add_stream_from_template(s, opaque=True) for s in wanted}
        for stream in wanted:
            if stream.type == "video":
                copies[stream.index].codec_context.sample_aspect_ratio = Fraction(4, 3)
                copies[stream.index].set_display_rotation(90)
        for packet in source.demux(wanted):
            if packet.size and keep(packet):
                change(packet)
                packet.stream = copies[packet.stream.index]
                output.mux(packet)
    return target


def refused(job, path, encoding=None, masks=None):
    source, _, usual = job
    with pytest.raises(VideoError) as caught:
        verify(path, source, encoding or usual, masks)
    assert caught.value.reason == "unverified" and str(path) in str(caught.value)
    return str(caught.value)


def test_a_sound_copy_passes_again_when_only_packed_anew(job, tmp_path):
    source, copy, encoding = job
    assert verify(copy, source, encoding) is None
    assert verify(remuxed(copy, tmp_path / "a.mp4"), source, encoding) is None


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9, 0.99])
def test_a_file_that_was_cut_off(job, tmp_path, share):
    refused(job, cut_short(job[1], tmp_path / "cut.mp4", share))
    refused(job, tmp_path / "missing.mp4")


def test_a_file_that_was_damaged(job, tmp_path):
    start = job[1].read_bytes().find(b"mdat") / job[1].stat().st_size
    refused(job, damage(job[1], tmp_path / "damaged.mp4", start + 0.05))
    data = bytearray(job[1].read_bytes())
    with av.open(str(job[1])) as container:
        packets = [p for p in container.demux(video=0) if p.size]
        longest = max(packets[1:], key=lambda packet: packet.size)  # after the first frame's
        data[longest.pos + 12 : longest.pos + longest.size] = b"\xa5" * (longest.size - 12)
    (tmp_path / "spoiled.mp4").write_bytes(data)
    assert "the data is damaged after frame" in refused(job, tmp_path / "spoiled.mp4")


def test_lost_frames(job, tmp_path):
    seen = []

    def keep(packet):
        seen.append(packet.stream.type == "video")
        return not (seen[-1] and sum(seen) == 12)

    assert "11 frames, not 12" in refused(job, remuxed(job[1], tmp_path / "a.mp4", keep))


def test_frames_at_another_time(job, tmp_path):
    def late(packet):
        if packet.stream.type == "video" and packet.pts >= 6 * 512:
            packet.pts += 512
            packet.dts += 512

    def all_late(packet):
        if packet.stream.type == "video":
            packet.pts += 1024
            packet.dts += 1024

    assert "frame 6 is shown +0.04" in refused(
        job, remuxed(job[1], tmp_path / "a.mp4", change=late)
    )
    assert "off" in refused(job, remuxed(job[1], tmp_path / "b.mp4", change=all_late))


def test_sound_that_is_missing_shifted_or_changed(job, tmp_path):
    _, copy, _ = job
    assert "2 other streams, not 3" in refused(
        job, remuxed(copy, tmp_path / "a.mp4", streams=(0, 1, 3))
    )

    def second(packet):
        return packet.stream.index == 2

    def later(packet):
        if second(packet):
            packet.pts += 4800
            packet.dts += 4800

    assert "audio stream 1 (aac) starts +0.099" in refused(
        job, remuxed(copy, tmp_path / "b.mp4", change=later)
    )
    short = remuxed(copy, tmp_path / "c.mp4", keep=lambda p: not (second(p) and p.pts > 20000))
    assert "audio stream 1 (aac) has" in refused(job, short)
    lost = remuxed(copy, tmp_path / "d.mp4", keep=lambda p: p.stream.type != "subtitle")
    assert "subtitle stream 2 (mov_text) has 0 bytes" in refused(job, lost)


def test_tags_of_another_kind(job, tmp_path):
    source, copy, encoding = job
    other = make_video(tmp_path / "other.mp4", SHOT, colour=(9, 9, 9, 1), pix_fmt="yuv444p")
    assert "pixels are yuv444p" in refused(job, other)
    assert "codec is h264" in refused(job, copy, replace(encoding, codec="hevc"))
    plain = make_video(tmp_path / "plain.mp4", SHOT, colour=(1, 13, 1, 1))
    message = refused(job, plain)
    for part in ("sample aspect ratio 4/3 became 1", "rotation", "colour transfer 1 became 13"):
        assert part in message
    assert verify(copy, source, replace(encoding, changed=("something",))) is None


def test_lossless_is_verified_sample_by_sample(tmp_path):
    source = open_source(make_video(tmp_path / "source.mp4", SHOT, rotation=270))
    masks = Holes(source.info)
    copy = rewritten(source.info.path, tmp_path / "copy.mkv", lossless=True)
    encoding = choose_encoding(source.info, copy, lossless=True)
    digest = verify(copy, source, encoding, masks)
    assert len(digest) == 64
    assert verify(copy, source, encoding, masks) == digest

    def spoiled(number, place):
        frames = []
        with av.open(str(copy)) as container:
            for frame in container.decode(video=0):
                frame.make_writable()
                frames.append(frame)
        planes(frames[number])[0][place] += np.uint8(1)
        target = tmp_path / "spoiled.mkv"
        with av.open(str(target), "w") as output:
            stream = output.add_stream("ffv1", rate=24, options=dict(encoding.options))
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            context = stream.codec_context
            context.color_primaries = context.color_trc = context.colorspace = 1
            context.color_range = 1
            stream.set_display_matrix(encoding.matrix)
            for frame in frames:
                output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
        return target

    stored = np.rot90(next(masks.masks()), -3)
    inside, outside = np.argwhere(stored)[0], np.argwhere(~stored)[-1]
    assert verify(spoiled(7, tuple(inside)), source, encoding, masks) == digest
    with pytest.raises(VideoError, match="frame 7 differs from the source outside its hole"):
        verify(spoiled(7, tuple(outside)), source, encoding, masks)
