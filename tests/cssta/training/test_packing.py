from __future__ import annotations

import logging

import numpy as np

from cssta.training.packing import clips_of_folder
from tests.cssta.media import clip, encode, frame_number


def test_scales_and_takes_the_middle(tmp_path):
    encode(tmp_path / "wide.mp4", clip(12, 48, 64))
    encode(tmp_path / "high.mp4", clip(5, 64, 48))
    high, wide = clips_of_folder(tmp_path, short_side=48, max_frames=6)
    assert (high[0], high[1]) == ("high.mp4", "high.mp4")
    assert high[2].shape == (5, 64, 48, 3)
    assert wide[2].shape == (6, 48, 64, 3) and wide[2].dtype == np.uint8
    assert [frame_number(frame) for frame in wide[2]] == [3, 4, 5, 6, 7, 8]
    *_, smaller = clips_of_folder(tmp_path, short_side=24, max_frames=6)
    assert smaller[2].shape == (6, 24, 32, 3)


def test_a_broken_file_is_named_and_left_out(tmp_path, caplog):
    encode(tmp_path / "good.mp4", clip(4, 48, 64))
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with caplog.at_level(logging.WARNING):
        names = [name for name, _, _ in clips_of_folder(tmp_path)]
    assert names == ["good.mp4"]
    assert "broken.mp4" in caplog.text


def test_the_table_says_what_is_fit(tmp_path):
    for name in "abcd":
        encode(tmp_path / f"{name}.mp4", clip(8, 48, 64))
    (tmp_path / "clips.csv").write_text(
        "file,scene,flags\na.mp4,one,\nb.mp4,one,lowfps\nc.mp4,two,dup-frames\n"
    )
    (first, second) = clips_of_folder(tmp_path, short_side=48)
    assert first[:2] == ("a.mp4", "one") and len(first[2]) == 8
    assert second[:2] == ("c.mp4", "two")
    assert [frame_number(frame) for frame in second[2]] == [0, 2, 4, 6]
