from __future__ import annotations

import itertools
import logging
import random
import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from cssta.video import VideoError, file_source, open_source
from cssta.video.planes import planes
from tests.cssta.media import (
    claim_frames,
    clip,
    cut_short,
    damage,
    encode,
    frame_number,
    make_video,
    native_frames,
    sound_only,
)

SHOT = clip(20, 64, 96)
DEEP = SHOT.astype(np.uint16) * 257
CLEAR = np.concatenate([SHOT, np.full((*SHOT.shape[:3], 1), 255, np.uint8)], axis=-1)
CLEAR[:, 20:40, 30:60, 3] = 0
UNEVEN = [0, 1, 2, 5, 6, 7, 20, 21, 22, 23, 24, 40, 41, 42, 43, 50, 51, 52, 53, 60]
SHORT_GOP = {"g": "6", "bf": "2"}
AV1 = {"preset": "12", "svtav1-params": "keyint=6"}

# name: (frames, arguments of make_video, expected (codec, pix_fmt))
KINDS = {
    "h264.mp4": (SHOT, {"options": SHORT_GOP}, ("h264", "yuv420p")),
    "h264.mkv": (SHOT, {"options": SHORT_GOP}, ("h264", "yuv420p")),
    "h264.avi": (SHOT, {"options": SHORT_GOP}, ("h264", "yuv420p")),
    "h264.ts": (SHOT, {"options": SHORT_GOP}, ("h264", "yuv420p")),
    "open.mp4": (
        SHOT,
        {"options": {"g": "5", "x264-params": "open-gop=1:bframes=2:scenecut=0"}},
        ("h264", "yuv420p"),
    ),
    "hevc.mp4": (
        SHOT,
        {"codec": "libx265", "options": {"x265-params": "keyint=6:log-level=none"}},
        ("hevc", "yuv420p"),
    ),
    "hevc10.mov": (
        DEEP,
        {
            "codec": "libx265",
            "pix_fmt": "yuv420p10le",
            "colour": (9, 16, 9, 1),
            "options": {"x265-params": "keyint=6:log-level=none"},
        },
        ("hevc", "yuv420p10le"),
    ),
    "vp9.webm": (SHOT, {"codec": "libvpx-vp9", "options": {"g": "6"}}, ("vp9", "yuv420p")),
    "av1.mp4": (SHOT, {"codec": "libsvtav1", "options": AV1}, ("libdav1d", "yuv420p")),
    "av1.mkv": (
        DEEP,
        {"codec": "libsvtav1", "pix_fmt": "yuv420p10le", "options": AV1},
        ("libdav1d", "yuv420p10le"),
    ),
    "prores.mov": (
        DEEP,
        {"codec": "prores_ks", "pix_fmt": "yuv422p10le"},
        ("prores", "yuv422p10le"),
    ),
    "mpeg4.avi": (SHOT, {"codec": "mpeg4", "options": SHORT_GOP}, ("mpeg4", "yuv420p")),
    "mpeg2.ts": (SHOT, {"codec": "mpeg2video", "options": SHORT_GOP}, ("mpeg2video", "yuv420p")),
    "mpeg2.mpg": (
        SHOT,
        {"codec": "mpeg2video", "fps": 25, "options": SHORT_GOP},
        ("mpeg2video", "yuv420p"),
    ),
    "ffv1.mkv": (SHOT, {"codec": "ffv1", "pix_fmt": "yuv422p"}, ("ffv1", "yuv422p")),
    "grey.mkv": (DEEP, {"codec": "ffv1", "pix_fmt": "gray10le"}, ("ffv1", "gray10le")),
    "rgb.mkv": (SHOT, {"codec": "ffv1", "pix_fmt": "bgr0"}, ("ffv1", "gbrp")),
    "mjpeg.avi": (
        SHOT,
        {"codec": "mjpeg", "pix_fmt": "yuvj422p", "colour": (1, 1, 5, 2)},
        ("mjpeg", "yuvj422p"),
    ),
    "anim.gif": (SHOT, {"codec": "gif", "pix_fmt": "rgb8"}, ("gif", "gbrap")),
    "packed.avi": (SHOT, {"codec": "rawvideo", "pix_fmt": "yuyv422"}, ("rawvideo", "yuv422p")),
    "deep.mov": (DEEP, {"codec": "png", "pix_fmt": "rgb48be"}, ("png", "gbrp16le")),
    "uneven.mp4": (
        SHOT,
        {"pts": UNEVEN, "time_base": Fraction(1, 60), "options": SHORT_GOP},
        ("h264", "yuv420p"),
    ),
    "uneven.mkv": (
        SHOT,
        {"pts": UNEVEN, "time_base": Fraction(1, 60), "options": SHORT_GOP},
        ("h264", "yuv420p"),
    ),
    "open.ts": (
        SHOT,
        {"options": {"g": "5", "x264-params": "open-gop=1:bframes=2:scenecut=0"}},
        ("h264", "yuv420p"),
    ),
    "odd.mp4": (SHOT[:, :63, :95], {"pix_fmt": "yuv444p"}, ("h264", "yuv444p")),
}


def make(path, frames, arguments):
    try:
        return make_video(path, frames, **arguments)
    except (av.codec.codec.UnknownCodecError, ValueError) as error:
        pytest.skip(f"this PyAV cannot write it: {error}")


def samples(frame):
    return [plane.copy() for plane in planes(frame.native)]


def same(left, right):
    return all(np.array_equal(a, b) for a, b in zip(samples(left), samples(right), strict=True))


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_video_by_order_and_by_number(tmp_path, name):
    frames, arguments, (codec, pix_fmt) = KINDS[name]
    source = open_source(make(tmp_path / name, frames, arguments))
    info = source.info
    assert (info.codec, info.pix_fmt, info.frames) == (codec, pix_fmt, len(frames))
    assert (info.height, info.width) == frames.shape[1:3]
    assert info.bit_depth == {"gbrp16le": 16}.get(pix_fmt, 10 if "10le" in pix_fmt else 8)
    times = arguments.get("pts") or range(len(frames))
    unit = arguments.get("time_base") or Fraction(1, arguments.get("fps", 24))
    found = [(time - info.pts[0]) * info.time_base for time in info.pts]
    coarse = {".gif": 0.011, ".mkv": 0.001, ".webm": 0.001}.get(name[name.index(".") :], 1e-9)
    assert found == pytest.approx([(time - times[0]) * unit for time in times], abs=coarse)

    shown = list(source.frames())
    assert [frame.index for frame in shown] == list(range(len(frames)))
    rgb = [frame.rgb() for frame in shown]
    assert all(pixels.dtype == frames.dtype for pixels in rgb) or frames is SHOT
    assert [frame_number(p >> 8 if p.dtype == np.uint16 else p) for p in rgb] == list(range(20))

    choose = random.Random(0)
    for _ in range(4):
        start = choose.randrange(20)
        part = list(source.frames(start, min(20, start + 3)))
        assert part and all(same(frame, shown[frame.index]) for frame in part)
    wanted = choose.sample(range(20), 5)
    picked = source.pick(wanted)
    assert sorted(picked) == sorted(wanted)
    assert all(same(picked[index], shown[index]) for index in wanted)


def test_tags_tracks_and_shape_are_told(tmp_path):
    path = make_video(
        tmp_path / "a.mp4",
        SHOT,
        sar=Fraction(4, 3),
        rotation=90,
        colour=(9, 16, 9, 1),
        audio=["aac", "aac"],
        subtitles=["mov_text"],
    )
    info = open_source(path).info
    assert (info.height, info.width, info.stored_height, info.stored_width) == (96, 64, 64, 96)
    assert info.rotation == 90 and info.sar == Fraction(4, 3) and info.fps == 24
    colour = info.colour
    assert (colour.primaries, colour.transfer, colour.matrix, colour.range) == (9, 16, 9, 1)
    kinds = [(kind, codec) for _, kind, codec in info.other_streams]
    assert kinds == [("audio", "aac"), ("audio", "aac"), ("subtitle", "mov_text")]
    assert "mp4" in info.container and info.bit_rate > 1000 and not info.has_alpha


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("a.webm", {"codec": "libvpx-vp9", "pix_fmt": "yuva420p"}),
        ("a.mov", {"codec": "qtrle", "pix_fmt": "argb"}),
        ("b.mov", {"codec": "prores_ks", "pix_fmt": "yuva444p10le"}),
    ],
)
def test_alpha_channels(tmp_path, name, arguments):
    frames = CLEAR if arguments["codec"] != "prores_ks" else CLEAR.astype(np.uint16) * 257
    source = open_source(make(tmp_path / name, frames, arguments))
    assert source.info.has_alpha
    for frame in source.frames():
        opacity = frame.alpha()
        clear = opacity < np.iinfo(opacity.dtype).max / 2
        assert (clear != (CLEAR[0, ..., 3] == 0)).mean() < 0.01


def test_decoding_starts_at_the_nearest_key_frame(tmp_path, monkeypatch):
    source = open_source(make_video(tmp_path / "a.mp4", SHOT, options={"g": "5"}))
    decoded = []
    plain = file_source.decode_frames

    def counting(*place, **named):
        for frame in plain(*place, **named):
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(file_source, "decode_frames", counting)
    assert [f.index for f in source.frames(16, 18)] == [16, 17]
    assert len(decoded) <= 5
    decoded.clear()
    assert sorted(source.pick([1, 17])) == [1, 17]
    assert len(decoded) <= 8
    decoded.clear()
    frames = source.frames()
    next(frames), next(frames)
    assert len(decoded) <= 3  # nothing is read ahead
    frames.close()


def test_seeking_that_goes_wrong_is_given_up(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "cssta.video")
    source = open_source(make_video(tmp_path / "a.mp4", SHOT, options={"g": "5"}))
    plain = file_source.decode_frames

    def misses(path, start=None, progress=None):
        frames = plain(path, start)
        if start is not None:
            for _ in range(4):
                next(frames)
        return frames

    monkeypatch.setattr(file_source, "decode_frames", misses)
    assert [frame_number(f.rgb()) for f in source.frames(6, 9)] == [6, 7, 8]
    assert "from the start" in caplog.text
    caplog.clear()
    assert [frame_number(f.rgb()) for f in source.frames(16, 19)] == [16, 17, 18]
    assert "from the start" not in caplog.text  # an earlier key frame served


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_a_video_cut_short_has_the_frames_that_decode(tmp_path, caplog, name, share):
    noise = np.random.default_rng(0).integers(0, 255, SHOT.shape, dtype=np.uint8)
    noise[:, :8] = SHOT[:, :8]
    whole = make_video(tmp_path / f"whole{name}", noise, options={"g": "6"})
    source = open_source(cut_short(whole, tmp_path / name, share))
    count = source.info.frames
    assert 0.4 * share * 20 < count <= 20 * share + 1 and len(source.info.pts) == count
    shown = [frame_number(frame.rgb()) for frame in source.frames()]
    assert shown == list(range(count))
    if name == "a.mp4":
        assert "truncated" in caplog.text and f"{count} of 20" in caplog.text


def test_damage_and_lies_are_errors_not_shifts(tmp_path, caplog):
    noise = np.random.default_rng(0).integers(0, 255, SHOT.shape, dtype=np.uint8)
    whole = encode(tmp_path / "whole.mp4", noise, g="6")
    with pytest.raises(VideoError) as caught:
        list(open_source(damage(whole, tmp_path / "bad.mp4", 0.5)).frames())
    assert caught.value.reason == "corrupt"
    plain = encode(tmp_path / "plain.mp4", SHOT)
    info = open_source(claim_frames(plain, tmp_path / "claims.mp4", 5000)).info
    assert info.frames == 20 and "20 of 5000" in caplog.text


def test_what_is_no_video_is_named_as_that(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mkv").write_text("no video\n" * 99)
    cases = {
        "empty": tmp_path / "empty.mp4",
        "unreadable": tmp_path / "text.mkv",
        "no-video": sound_only(tmp_path / "sound.m4a"),
        "missing": tmp_path / "nowhere.mp4",
    }
    for reason, path in cases.items():
        with pytest.raises(VideoError) as caught:
            open_source(path)
        assert caught.value.reason == reason and str(path) in str(caught.value)


def test_frames_without_times_of_their_own(tmp_path, caplog):
    # An elementary stream has no times at all.
    path = tmp_path / "raw.h264"
    with av.open(str(path), "w", format="h264") as container:
        stream = container.add_stream("libx264", rate=24, options={"bf": "0"})
        stream.height, stream.width = SHOT.shape[1:3]
        for number, frame in enumerate(native_frames(SHOT, "yuv420p")):
            frame.pts, frame.time_base = number, Fraction(1, 24)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    source = open_source(path)
    times = source.info.pts
    assert len(times) == 20 and all(a < b for a, b in itertools.pairwise(times))
    assert "no time of their own" in caplog.text
    assert [frame_number(frame.rgb()) for frame in source.frames(13, 15)] == [13, 14]


def test_a_size_that_changes_is_refused(tmp_path):
    small = make_video(tmp_path / "small.ts", SHOT[:5], options={"bf": "0"})
    large = make_video(tmp_path / "large.ts", clip(5, 128, 192), options={"bf": "0"})
    joined = tmp_path / "joined.ts"
    joined.write_bytes(small.read_bytes() + large.read_bytes())
    source = open_source(joined)
    with pytest.raises(VideoError, match="from 96x64 to 192x128") as caught:
        list(source.frames())
    assert caught.value.reason == "frame-size"


@pytest.mark.parametrize(
    ("matrix", "what"), [((-1, 0, 0, 1), "mirrored"), ((0.7, 0.7, -0.7, 0.7), "45 degrees")]
)
def test_a_mirrored_or_slanted_picture_is_refused(tmp_path, matrix, what):
    path = make_video(tmp_path / "a.mp4", SHOT)
    data = bytearray(path.read_bytes())
    a, b, c, d = (round(value * 65536) for value in matrix)
    start = data.find(b"tkhd") + 44
    data[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    with pytest.raises(VideoError, match=what) as caught:
        open_source(path)
    assert caught.value.reason == "format"


def test_frames_that_the_container_does_not_list_are_an_error(tmp_path, monkeypatch):
    source = open_source(make_video(tmp_path / "a.mp4", SHOT))
    plain = file_source.decode_frames

    def one_less(*place, **named):
        return (frame for number, frame in enumerate(plain(*place, **named)) if number != 7)

    monkeypatch.setattr(file_source, "decode_frames", one_less)
    with pytest.raises(VideoError, match="frame 7 is not the one") as caught:
        list(source.frames())
    assert caught.value.reason == "corrupt"


def test_numbers_out_of_range(tmp_path):
    source = open_source(make_video(tmp_path / "a.mp4", SHOT))
    for call in (lambda: list(source.frames(3, 21)), lambda: source.pick([-1])):
        with pytest.raises(VideoError) as caught:
            call()
        assert caught.value.reason == "frame-index"
    assert list(source.frames(4, 4)) == [] and source.pick([]) == {}


def test_real_footage(shared_dir):
    for path in sorted((shared_dir / "clips").glob("*.mp4"))[::180]:
        source = open_source(path)
        last = source.info.frames - 1
        tail = list(source.frames(last - 1))
        assert [frame.index for frame in tail] == [last - 1, last]
        assert same(tail[1], source.pick([last])[last])
