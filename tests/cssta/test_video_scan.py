from __future__ import annotations

import sys
from array import array

import av
import pytest

from cssta.video import container, open_source, scan
from cssta.video.scan import REMEMBERED, UNTOLD
from tests.cssta.media import clip, make_video

SHOT = clip(24, 48, 64)
SHORT_GOP = {"g": "6", "bf": "2"}


@pytest.mark.parametrize(
    ("name", "codec", "sound"),
    [("a.mp4", "libx264", True), ("a.ts", "libx264", False), ("a.mpg", "mpeg2video", False)],
)
def test_every_packet_and_what_is_passed_over_are_told(tmp_path, monkeypatch, name, codec, sound):
    path = make_video(tmp_path / name, SHOT, codec=codec, fps=25, options=SHORT_GOP)
    told, decoded = [], []
    plain = av.VideoCodecContext.decode

    class Decoder:
        def __init__(self, stream) -> None:
            self._context = stream.codec_context

        def decode(self, packet):
            decoded.append(len(told))
            return plain(self._context, packet)

    monkeypatch.setattr(container, "_decoder", Decoder)
    source = open_source(path, progress=lambda: told.append(None))
    assert scan.scan(path).sound == sound
    assert len(told) >= 24 and (sound or len(decoded) >= 24)
    source._seekable = False
    for look in (lambda: list(source.frames(20, 21)), lambda: source.pick([20])):
        told.clear(), decoded.clear()
        look()
        assert len(decoded) > 20 and len(set(decoded)) == len(decoded), "one each at least"


def test_hours_of_video_are_remembered_in_few_bytes_and_few_at_once(tmp_path):
    """20 bytes a frame at most, of the last files."""
    for number in range(REMEMBERED + 2):
        found = scan.scan(make_video(tmp_path / f"{number}.mkv", SHOT, options={"g": "1"}))
    assert len(found.keys) == found.frames == 24
    held = sum(sys.getsizeof(part) for part in (found.times, found.keys))
    assert held <= 20 * 24 + 2 * sys.getsizeof(array("q"))
    assert len(scan._remembered) == REMEMBERED
    again = scan.scan(tmp_path / f"{number}.mkv")
    assert again is found and open_source(tmp_path / f"{number}.mkv").info.pts is found.times


def test_a_file_is_looked_through_again_where_it_changed(tmp_path):
    path = make_video(tmp_path / "a.mp4", SHOT)
    assert scan.scan(path).frames == 24
    make_video(path, SHOT[:9])
    assert scan.scan(path).frames == 9


@pytest.mark.parametrize(
    ("pts", "dts", "times", "repaired"),
    [
        ([3, 5, 9], [0, 1, 2], [3, 5, 9], 0),
        ([3, UNTOLD, 9, 10], [UNTOLD] * 4, [3, 4, 9, 10], 1),
        ([7, 7, 7, 9], [2, 4, 6, 8], [7, 9, 11, 13], 3),
        ([UNTOLD, UNTOLD], [UNTOLD, UNTOLD], [0, 1], 2),
        ([-5, -9, UNTOLD], [-8, UNTOLD, -7], [-5, -4, -3], 2),
    ],
)
def test_times_that_are_missing_or_repeated_are_replaced(pts, dts, times, repaired):
    found = scan._increasing(array("q", pts), array("q", dts))
    assert (list(found[0]), found[1]) == (times, repaired)
