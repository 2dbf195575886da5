from __future__ import annotations

from fractions import Fraction

import av
import pytest

from cssta.video.matroska import describe_track
from cssta.video.properties import MasteringDisplay, look
from tests.cssta.media import clip, make_video

SHOT = clip(6, 48, 64)
DISPLAY = MasteringDisplay(
    (34000, 16000), (13250, 34500), (7500, 3000), (15635, 16450), (1, 10_000_000)
)
CHAPTERS = [(0, 0.1, "one"), (0.1, 0.2, "two")]


def contents(path):
    with av.open(str(path)) as container:
        container.seek(0)  # loads the index, to which the table of places leads
        index = [(e.pos, e.timestamp) for e in container.streams.video[0].index_entries]
        return (
            index,
            [(p.stream.index, p.pts, bytes(p)) for p in container.demux() if p.size],
            container.chapters(),
            [(s.type, dict(s.metadata)) for s in container.streams],
            dict(container.metadata),
        )


@pytest.mark.parametrize("sar", [Fraction(4, 3), Fraction(8, 9), Fraction(64, 45), Fraction(1)])
@pytest.mark.parametrize("codec", ["ffv1", "libvpx-vp9"])
def test_the_aspect_and_hdr_are_told_and_nothing_else_moves(tmp_path, sar, codec):
    path = make_video(tmp_path / "a.mkv", SHOT, codec=codec, audio=["libopus"], chapters=CHAPTERS)
    before, size = contents(path), path.stat().st_size
    assert describe_track(path, 0, sar, DISPLAY, (1000, 400))
    found, _ = look(path)
    assert (found.sar, found.mastering, found.light) == (sar, DISPLAY, (1000, 400))
    assert contents(path) == before and path.stat().st_size == size
    with av.open(str(path)) as container:
        assert (container.streams.video[0].sample_aspect_ratio or 1) == sar


def test_the_right_track_is_described(tmp_path):
    one = make_video(tmp_path / "one.mkv", SHOT, codec="ffv1")
    two = tmp_path / "two.mkv"
    with av.open(str(one)) as first, av.open(str(one)) as second, av.open(str(two), "w") as output:
        for source in (first, second):
            output.add_stream_from_template(source.streams.video[0], opaque=True)
        for index, source in enumerate((first, second)):
            for packet in source.demux():
                if packet.size:
                    packet.stream = output.streams[index]
                    output.mux(packet)
    assert describe_track(two, 1, Fraction(2), None, None)
    with av.open(str(two)) as container:
        assert [s.sample_aspect_ratio or 1 for s in container.streams.video] == [1, 2]


def test_a_file_without_room_stays_as_it_is(tmp_path):
    path = make_video(tmp_path / "a.mkv", SHOT, codec="ffv1")
    data = bytearray(path.read_bytes())
    void = data.find(b"\xec\x01\x00\x00")  # the room between the table of places and the rest
    data[void] = 0xBF
    path.write_bytes(data)
    assert not describe_track(path, 0, Fraction(4, 3), DISPLAY, None)
    assert path.read_bytes() == data
