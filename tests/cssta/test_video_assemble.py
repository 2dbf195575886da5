from __future__ import annotations

import itertools
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from cssta.video import VideoError, assemble, choose_encoding, open_source
from cssta.video.assemble import Timeline
from cssta.video.properties import look
from tests.cssta.media import clip, frame_number, make_video
from tests.cssta.side_by_side import container_facts, other_facts, rewritten, video_facts

SHOT = clip(12, 48, 64)
DEEP = SHOT.astype(np.uint16) * 257
BFRAMES = {"bf": "3", "g": "6"}
HDR10 = {
    "x265-params": "log-level=error:master-display=G(13250,34500)B(7500,3000)R(34000,16000)"
    "WP(15635,16450)L(10000000,1):max-cll=1000,400"
}
UNSTEADY = np.cumsum([7, 100, 300, 33, 34, 1, 250, 33, 33, 33, 1, 500]).tolist()
MILLI = Fraction(1, 1000)
CHAPTERS = [(0, 0.2, "one"), (0.2, 0.5, "two")]

TAPE = {"timecode": "01:02:03:04"}
# name: what the source is made of. Each must come back the same, in the same container.
SOURCES = {
    "h264.mp4": {"options": BFRAMES},
    "h264.mov": {"options": BFRAMES, "audio": ["pcm_s16le"]},
    "high444.mkv": {"pix_fmt": "yuv444p"},
    "full-range.mp4": {"pix_fmt": "yuvj420p", "colour": (1, 1, 1, 2)},
    "untagged.mp4": {"colour": (2, 2, 2, 0)},
    "hevc10-hdr.mp4": {
        "codec": "libx265",
        "pix_fmt": "yuv420p10le",
        "colour": (9, 16, 9, 1),
        "options": HDR10,
    },
    "h264-10.mkv": {"pix_fmt": "yuv422p10le"},
    "vp9.webm": {"codec": "libvpx-vp9", "audio": ["libopus"]},
    "vp9-444.webm": {"codec": "libvpx-vp9", "pix_fmt": "yuv444p"},
    "av1.mkv": {"codec": "libsvtav1", "pix_fmt": "yuv420p10le"},
    "av1-wide.mkv": {"codec": "libsvtav1", "sar": Fraction(64, 45)},
    "av1.mp4": {"codec": "libsvtav1", "sar": Fraction(4, 3)},
    "prores.mov": {"codec": "prores_ks", "pix_fmt": "yuv422p10le", "options": {"profile": "lt"}},
    "ffv1.mkv": {"codec": "ffv1", "pix_fmt": "yuva444p10le", "alpha": True},
    "mpeg4.mp4": {"codec": "mpeg4", "audio": ["libmp3lame"]},
    "mpeg2.mkv": {"codec": "mpeg2video", "fps": 25},
    "fields.mkv": {"options": {"flags": "+ildct+ilme"}},
    "mjpeg.mov": {"codec": "mjpeg", "pix_fmt": "yuvj422p", "colour": (1, 1, 5, 2)},
    "unsteady.mp4": {"pts": UNSTEADY, "time_base": MILLI, "options": BFRAMES, "audio": ["aac"]},
    "unsteady.mkv": {"pts": UNSTEADY, "time_base": MILLI, "options": BFRAMES},
    "ntsc.mp4": {"fps": Fraction(30000, 1001), "options": BFRAMES, "audio": ["aac"]},
    "late.mp4": {
        "pts": [12000 + 512 * n for n in range(12)],
        "time_base": Fraction(1, 12800),
        "audio": ["aac"],
    },
    "turned.mp4": {"rotation": 90, "audio": ["aac"]},
    "upside-down.mov": {"rotation": 180},
    "wide.mp4": {"sar": Fraction(4, 3)},
    "wide-turned.mp4": {"sar": Fraction(16, 15), "rotation": 270},
    "odd.mkv": {"codec": "libvpx-vp9", "size": (47, 63)},
    "tracks.mp4": {
        "audio": ["aac", "aac"],
        "subtitles": ["mov_text"],
        "chapters": CHAPTERS,
        "metadata": {"title": "All tracks"},
        "stream_metadata": {"language": "deu"},
    },
    "tracks.mkv": {
        "audio": ["libopus", "flac"],
        "subtitles": ["subrip", "ass"],
        "chapters": CHAPTERS,
        "attachment": b"a font, say",
        "metadata": {"title": "All tracks"},
    },
    "one-frame.mp4": {"length": 1},
    "tape.mov": {"fps": 25, "stream_metadata": TAPE, "audio": ["pcm_s16le"]},
    "tape.mp4": {"fps": Fraction(30000, 1001), "stream_metadata": TAPE},
}


def made(path: Path, sources: dict = SOURCES) -> Path:
    options = dict(sources[path.name])
    deep = "10" in options.get("pix_fmt", "")
    frames = (DEEP if deep else SHOT)[: options.pop("length", 12)]
    height, width = options.pop("size", (48, 64))
    frames = frames[:, :height, :width]
    if options.pop("alpha", False):
        opacity = np.linspace(0, np.iinfo(frames.dtype).max, width).astype(frames.dtype)
        frames = np.concatenate(
            [frames, np.broadcast_to(opacity[None, None, :, None], (*frames.shape[:3], 1))], -1
        )
    return make_video(path, frames, **options)


@pytest.mark.parametrize("name", SOURCES)
def test_everything_but_the_hole_is_as_in_the_source(tmp_path, name):
    source = made(tmp_path / name)
    copy = rewritten(source, tmp_path / f"copy{source.suffix}")
    ours, theirs = video_facts(copy), video_facts(source)
    if name == "unsteady.mp4":  # its own length ends before its last frame is shown
        assert ours.pop("duration") > theirs.pop("duration")
    assert ours == theirs
    assert other_facts(copy) == other_facts(source)
    assert container_facts(copy) == container_facts(source)
    assert look(copy)[0].fields == look(source)[0].fields
    if name == "unsteady.mkv":
        default_duration = b"\x23\xe3\x83"  # how long every frame would last
        assert default_duration not in copy.read_bytes()[:800]
    if theirs["codec"] == "prores":
        assert look(copy)[0].profile == look(source)[0].profile == "LT"


def test_every_picture_comes_at_its_own_time(tmp_path):
    source = made(tmp_path / "unsteady.mp4")
    copy = rewritten(source, tmp_path / "copy.mp4", cuts=(1, 2, 7), crf=1)
    for path in (source, copy):
        frames = list(open_source(path).frames())
        assert [frame_number(frame.rgb()) for frame in frames] == list(range(12))
        assert [frame.native.pts for frame in frames] == [t * 16 for t in UNSTEADY]


# Between containers, times are rounded to what the target counts in, and a start before 0, which
# Matroska does not know, moves all streams together.
CROSSINGS = [
    ("turned.mp4", ".mkv", {"lossless": True}),
    ("wide-turned.mp4", ".mkv", {"lossless": True}),
    ("hevc10-hdr.mp4", ".mkv", {"lossless": True}),
    ("fields.mkv", ".mkv", {"lossless": True}),
    ("ffv1.mkv", ".mkv", {"lossless": True}),
    ("full-range.mp4", ".mkv", {"lossless": True}),
    ("mjpeg.mov", ".mkv", {"lossless": True}),
    ("late.mp4", ".mkv", {}),
    ("ntsc.mp4", ".mkv", {}),
    ("vp9.webm", ".mp4", {}),
    ("av1-wide.mkv", ".mp4", {}),
    ("wide.mp4", ".webm", {"codec": "vp9"}),
    ("hevc10-hdr.mp4", ".mkv", {"codec": "av1"}),
    ("prores.mov", ".mp4", {"codec": "h264"}),
    ("mpeg.ts", ".mp4", {}),
    ("mpeg.ts", ".mkv", {}),
    ("old.avi", ".mp4", {}),
]
FOREIGN = {
    "mpeg.ts": {"audio": ["aac"], "options": BFRAMES},
    "old.avi": {"codec": "mpeg4", "audio": ["libmp3lame"]},
}


@pytest.mark.parametrize("name", ["tape.mov", "tape.mp4"])
@pytest.mark.parametrize("suffix", [".mov", ".mp4", ".mkv"])
def test_the_timecode_crosses_containers(tmp_path, name, suffix):
    copy = rewritten(made(tmp_path / name), tmp_path / f"copy{suffix}")
    with av.open(str(copy)) as container:
        tags = {key.lower(): value for key, value in container.streams.video[0].metadata.items()}
        tracks = [stream.type for stream in container.streams if stream.type == "data"]
    assert tags["timecode"] == TAPE["timecode"]
    assert len(tracks) == (suffix != ".mkv")


@pytest.mark.parametrize(("name", "suffix", "choices"), CROSSINGS)
def test_what_a_player_goes_by_crosses_containers(tmp_path, name, suffix, choices):
    source = made(tmp_path / name, SOURCES | FOREIGN)
    copy = rewritten(source, tmp_path / f"copy{suffix}", **choices)
    ours, theirs = video_facts(copy), video_facts(source)
    for key in ("size", "sar", "rotation", "colour", "full"):
        assert ours[key] == theirs[key], key
    assert ours["pix_fmt"] == theirs["pix_fmt"].replace("yuvj", "yuv" if choices else "yuvj")
    assert look(copy)[0].mastering == look(source)[0].mastering
    assert look(copy)[0].light == look(source)[0].light
    tick = Fraction(1, 1000) if suffix != ".mp4" else Fraction(1, 90_000)
    shift = ours["times"][0] - theirs["times"][0]
    assert all(
        abs(our - their - shift) <= tick
        for our, their in zip(ours["times"], theirs["times"], strict=True)
    )
    for our, their in zip(other_facts(copy), other_facts(source), strict=True):
        assert our["codec"] == their["codec"]
        assert name == "mpeg.ts" or our["bytes"] == their["bytes"]  # ADTS heads are taken off there
        for ours_at, theirs_at in zip(our["times"], their["times"], strict=True):
            assert abs(ours_at - theirs_at - shift) <= 2 * tick, "sound and picture are in sync"


def test_a_second_view_and_a_cover_go_along(tmp_path):
    base = make_video(tmp_path / "base.mp4", SHOT, audio=["aac"])
    jpeg = make_video(tmp_path / "cover.mjpeg", SHOT[:1], codec="mjpeg", pix_fmt="yuvj420p")
    source = tmp_path / "source.mp4"
    with ExitStack() as stack:
        one, two, cover = (stack.enter_context(av.open(str(p))) for p in (base, base, jpeg))
        output = stack.enter_context(av.open(str(source), "w"))
        video = output.add_stream_from_template(one.streams.video[0])
        sound = output.add_stream_from_template(one.streams.audio[0])
        view = output.add_stream_from_template(two.streams.video[0])
        picture = output.add_stream_from_template(cover.streams.video[0])
        picture.disposition = Disposition.attached_pic
        sound.metadata.update(language="fra", title="Commentary")
        packets = [(packet, video) for packet in one.demux(one.streams.video[0])]
        packets += [(packet, view) for packet in two.demux(two.streams.video[0])]
        one.seek(0)
        packets += [(packet, sound) for packet in one.demux(one.streams.audio[0])]
        packets += [(packet, picture) for packet in cover.demux()]
        for packet, stream in packets:
            if packet.size:
                packet.stream = stream
                output.mux(packet)
    copy = rewritten(source, tmp_path / "copy.mp4")
    facts = other_facts(copy)
    assert facts == other_facts(source)
    assert [fact["type"] for fact in facts] == ["audio", "video", "video"]
    assert facts[0]["tags"] == {"language": "fra", "name": "Commentary"}
    with av.open(str(copy)) as container:
        assert container.streams[3].disposition & Disposition.attached_pic


def test_a_data_stream_goes_along(tmp_path):
    source = make_video(tmp_path / "source.ts", clip(30, 48, 64), data="bin_data", fps=10)
    copy = rewritten(source, tmp_path / "copy.mov")
    assert [fact["type"] for fact in other_facts(copy)] == ["data"]


def test_a_missing_segment_is_noticed(tmp_path):
    source = made(tmp_path / "h264.mp4")
    rewritten(source, tmp_path / "copy.mp4")
    info = open_source(source).info
    encoding = choose_encoding(info, tmp_path / "copy.mp4")
    with pytest.raises(VideoError, match="hold 7 frames of 12") as caught:
        assemble(tmp_path / "x.mp4", [tmp_path / f"copy-{n}.segment" for n in (0, 1, 1)], info,
                 encoding)  # fmt: skip
    assert caught.value.reason == "unverified"


def test_times_of_decoding_increase_and_precede_those_of_showing():
    times = Timeline((5, 6, 500, 501), Fraction(1, 1000), 33)
    for delay in range(4):
        decoded = [times.decoded(place, delay) for place in range(4)]
        assert all(early < late for early, late in itertools.pairwise(decoded))
        assert decoded[delay:] == list(times.shown[: 4 - delay])
    assert [times.duration(n) for n in range(4)] == [1, 494, 1, 33]


def test_a_file_that_is_written_twice_is_the_same_file(tmp_path):
    for name in ("tracks.mkv", "tracks.mp4", "hevc10-hdr.mp4", "vp9.webm", "av1.mkv"):
        source = made(tmp_path / name)
        copies = [rewritten(source, tmp_path / f"{n}{source.suffix}", checked=False) for n in "ab"]
        assert copies[0].read_bytes() == copies[1].read_bytes(), name
