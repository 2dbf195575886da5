from __future__ import annotations

import logging
import re
from fractions import Fraction

import numpy as np
import pytest

from cssta.video import VideoError, choose_encoding, open_source, write_frame_folder
from cssta.video.encoders import ENCODERS
from tests.cssta.media import clip, make_video
from tests.cssta.side_by_side import rewritten, video_facts
from tests.cssta.test_video_assemble import FOREIGN, SOURCES, made

SHOT = clip(4, 48, 64)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    made_already = {}

    def info(name: str):
        if name not in made_already:
            made_already[name] = open_source(made(folder / name, SOURCES | FOREIGN)).info
        return made_already[name]

    return info


@pytest.mark.parametrize(
    ("name", "output", "choices", "wanted"),
    [
        ("h264.mp4", "a.mp4", {}, ("h264", "libx264", "yuv420p", "mp4")),
        ("h264.mp4", "a.MOV", {"codec": "x265"}, ("hevc", "libx265", "yuv420p", "mov")),
        ("h264.mp4", "a.mkv", {"codec": "libsvtav1"}, ("av1", "libsvtav1", "yuv420p", "matroska")),
        ("hevc10-hdr.mp4", "a.mkv", {}, ("hevc", "libx265", "yuv420p10le", "matroska")),
        ("vp9.webm", "a.webm", {}, ("vp9", "libvpx-vp9", "yuv420p", "webm")),
        ("full-range.mp4", "a.mp4", {"codec": "vp9"}, ("vp9", "libvpx-vp9", "yuv420p", "mp4")),
        ("h264.mp4", "a.mkv", {"lossless": True}, ("ffv1", "ffv1", "yuv420p", "matroska")),
        ("h264.mp4", "a.mp4", {"pix_fmt": "yuv444p"}, ("h264", "libx264", "yuv444p", "mp4")),
        ("old.avi", "a.m4v", {}, ("mpeg4", "mpeg4", "yuv420p", "mp4")),
    ],
)
def test_the_choice_follows_the_source_and_the_user(
    sources, tmp_path, name, output, choices, wanted
):
    found = choose_encoding(sources(name), tmp_path / output, **choices)
    assert (found.codec, found.encoder, found.pix_fmt, found.container) == wanted
    assert not found.changed and not found.dropped and not list(tmp_path.iterdir())


def test_full_range_keeps_its_samples_whatever_the_format_is_called(sources, tmp_path):
    found = choose_encoding(sources("full-range.mp4"), tmp_path / "a.mkv", lossless=True)
    assert (found.pix_fmt, found.colour.range) == ("yuv420p", 2)


# (source, output, choices, what the message must say, remedy that must work)
REFUSED = [
    ("h264.mp4", "a.avi", {}, ".avi cannot be written", None),
    ("h264.mp4", "a.mp4", {"codec": "wmv9"}, "no codec wmv9", None),
    ("h264.mp4", "a.mp4", {"crf": 77}, "knows no quality 77", None),
    ("prores.mov", "a.mov", {"crf": 3}, "prores knows no quality 3", None),
    ("h264.mp4", "a.mp4", {"pix_fmt": "yuv999"}, "no pixel format yuv999", None),
    ("h264.mp4", "a.mkv", {"codec": "h264", "lossless": True}, "not the lossless codec", None),
    ("h264.mp4", "a.mkv", {"pix_fmt": "yuv420p10le", "lossless": True}, "has others", None),
    ("h264.mp4", "a.webm", {}, "h264", "a.mp4"),
    ("prores.mov", "a.mp4", {}, "prores", "a.mkv"),
    ("h264.mp4", "a.mov", {"lossless": True}, "ffv1", "a.mkv"),
    ("tracks.mkv", "a.mp4", {"codec": "hevc"}, "cannot hold stream 3", "a.mkv"),
    ("tracks.mp4", "a.mkv", {}, "cannot hold stream 3 of tracks.mp4, subtitle in mov_", "a.mp4"),
    ("tracks.mkv", "a.mp4", {}, "cannot hold stream 3 of tracks.mkv, subtitle in", "a.mkv"),
    ("hevc10-hdr.mp4", "a.webm", {"codec": "vp9"}, "vp9 cannot hold yuv420p10le", {"codec": "av1"}),
    ("hevc10-hdr.mp4", "a.mp4", {"codec": "mpeg4"}, "mpeg4 cannot hold yuv420p10le",
     {"codec": "hevc"}),
    ("h264-10.mkv", "a.mkv", {"codec": "av1"}, "av1 cannot hold yuv422p10le", {"codec": "hevc"}),
    ("odd.mkv", "a.mp4", {"codec": "h264"}, "odd", {"codec": "av1"}),
    ("ffv1.mkv", "a.mkv", {"codec": "hevc"}, "cannot hold yuva444p10le", {"lossless": True}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "output", "choices", "says", "remedy"), REFUSED)
def test_what_cannot_be_kept_is_refused_with_a_remedy_that_works(
    sources, tmp_path, name, output, choices, says, remedy
):
    with pytest.raises(VideoError, match=re.escape(says)) as caught:
        choose_encoding(sources(name), tmp_path / output, **choices)
    assert caught.value.reason == "format" and not list(tmp_path.iterdir())
    if isinstance(remedy, str):
        assert f"End the output's name in {remedy[1:]}" in str(caught.value)
        choose_encoding(sources(name), tmp_path / remedy, **choices)
    elif remedy is not None:
        key, value = next(iter(remedy.items()))
        assert ("--lossless" if key == "lossless" else f"--{key} {value}") in str(caught.value)
        target = tmp_path / ("a.mkv" if key == "lossless" else output)
        choose_encoding(sources(name), target, **remedy)


def test_hdr_becomes_sdr_only_if_that_is_accepted(sources, tmp_path, caplog):
    info, output = sources("hevc10-hdr.mp4"), tmp_path / "a.mp4"
    with pytest.raises(VideoError, match=r"PQ colours need 10 bits.*--accept-loss"):
        choose_encoding(info, output, pix_fmt="yuv420p")
    with pytest.raises(VideoError, match=r"HDR10 mastering display .* became none"):
        choose_encoding(info, tmp_path / "a.mov", codec="prores", pix_fmt="yuv422p10le")
    with caplog.at_level(logging.WARNING):
        found = choose_encoding(info, output, pix_fmt="yuv420p", accept_loss=True)
    assert found.pix_fmt == "yuv420p" and len(found.changed) == 2
    assert "10 bits become 8, as asked" in caplog.text and "as accepted" in caplog.text
    rewritten(info.path, output, pix_fmt="yuv420p", accept_loss=True)
    assert not video_facts(output)["hdr"]


def test_streams_are_left_out_only_if_that_is_accepted(sources, tmp_path, caplog):
    info = sources("tracks.mkv")
    with caplog.at_level(logging.WARNING):
        found = choose_encoding(info, tmp_path / "a.mp4", accept_loss=True)
    assert len(found.dropped) == 3 and caplog.text.count("is left out") == 3
    rewritten(info.path, tmp_path / "a.mp4", accept_loss=True)


def test_two_frames_in_one_millisecond_do_not_fit_matroska(tmp_path):
    quick = make_video(tmp_path / "quick.mp4", SHOT, fps=4000, pts=[0, 1, 9, 18])
    with pytest.raises(VideoError, match=r"frames 0 and 1 .* End the output's name in \.mp4"):
        choose_encoding(open_source(quick).info, tmp_path / "a.mkv")
    copy = rewritten(quick, tmp_path / "a.mp4")
    assert video_facts(copy)["times"] == [Fraction(n, 4000) for n in (0, 1, 9, 18)]


@pytest.mark.parametrize("deep", [False, True])
def test_pictures_become_a_video(tmp_path, deep):
    frames = SHOT.astype(np.uint16) * 257 if deep else SHOT
    folder = write_frame_folder(tmp_path / "shot", frames)
    rewritten(folder, tmp_path / "a.mkv", lossless=True)
    if deep:
        with pytest.raises(VideoError, match="h264 cannot hold gbrp16le"):
            choose_encoding(open_source(folder).info, tmp_path / "a.mp4")
    else:
        facts = video_facts(rewritten(folder, tmp_path / "a.mp4"))
        assert (facts["codec"], facts["pix_fmt"], facts["colour"]) == (
            "h264",
            "yuv420p",
            (1, 13, 1),
        )


def test_every_encoder_there_is_writes_what_it_says(tmp_path):
    source = make_video(tmp_path / "source.mkv", SHOT, codec="ffv1", pix_fmt="yuv422p", fps=25)
    info = open_source(source).info
    for name, encoder in ENCODERS.items():
        wanted = "yuv422p" if "yuv422p" in encoder.formats() else encoder.formats()[0]
        output = tmp_path / ("a.mov" if name in ("png", "qtrle") else "a.mkv")
        choices = {"codec": name, "pix_fmt": wanted, "accept_loss": True}
        assert choose_encoding(info, output, **choices).codec == name
        rewritten(source, output, cuts=(2,), **choices)
