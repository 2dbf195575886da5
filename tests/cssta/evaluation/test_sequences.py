"""Data sets in each layout are found, in order, with the right masks."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from cssta.evaluation.protocols import PAPER
from cssta.evaluation.sequences import find_sequences, holes_for, read_sequence
from cssta.video import VideoError, write_video

SMALL = replace(PAPER, height=48, width=64)
OBJECTS = replace(SMALL, holes="objects", square=1)
GIVEN = replace(SMALL, holes="folder")


def test_davis(davis: Path):
    footage = find_sequences(davis)
    assert (footage.layout, [one.name for one in footage.sequences]) == ("davis", list("abc"))
    first = footage.sequences[0]
    frames = read_sequence(first, SMALL, None)
    assert frames.shape == (5, 48, 64, 3)
    assert (read_sequence(first, SMALL, 2) == frames[:2]).all()
    assert len(read_sequence(first, SMALL, 99)) == 5
    chosen = footage.chosen(["c", "a"])
    assert chosen.sequences == (footage.sequences[0], footage.sequences[2])
    with pytest.raises(ValueError, match=r"'x'.*a, b, c"):
        footage.chosen(["x"])


@pytest.mark.parametrize("part", ["", "valid"])
def test_youtube_vos(davis: Path, tmp_path: Path, part: str):
    root = tmp_path / "vos" / part
    for kind in ("JPEGImages", "Annotations"):
        shutil.copytree(davis / kind / "480p", root / kind)
    footage = find_sequences(tmp_path / "vos")
    assert footage.layout == "youtube-vos" and len(footage.sequences) == 3
    assert footage.sequences[1].annotations == root / "Annotations" / "b"


def test_a_plain_folder(davis: Path, tmp_path: Path):
    folder = tmp_path / "mine"
    shutil.copytree(davis / "JPEGImages/480p/a", folder / "pictures")
    write_video(folder / "film.mp4", np.full((3, 48, 64, 3), 99, np.uint8), 24)
    (folder / "notes.txt").write_text("not a video")
    (folder / "empty").mkdir()
    footage = find_sequences(folder)
    assert (footage.layout, [one.name for one in footage.sequences]) == (
        "folder",
        ["film", "pictures"],
    )
    assert read_sequence(footage.sequences[0], SMALL, None).shape == (3, 48, 64, 3)
    with pytest.raises(VideoError, match="no other sequence"):
        holes_for(footage, footage.sequences[0], OBJECTS, 3, None)


def test_no_sequences_is_named(tmp_path: Path):
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(VideoError, match="holds no sequences"):
            find_sequences(folder)


def test_objects_are_the_next_sequences(davis: Path):
    footage = find_sequences(davis)
    a, _, c = footage.sequences
    holes = holes_for(footage, a, OBJECTS, 5, None)
    # b's: 14 rows by 10, and the second label; its 4 frames run back after the last.
    assert holes[0].sum() == 14 * 10 + 16 and holes[0, 23, 19] and not holes[0, 24, 19]
    assert (holes[4] == holes[2]).all()
    own = holes_for(footage, c, OBJECTS, 3, None)
    assert own[0].sum() == 10 * 10 + 16, "the last sequence takes the first one's"
    for names in (["a"], ["a", "c"]):
        alone = holes_for(footage.chosen(names), a, OBJECTS, 5, None)
        assert (alone == holes).all(), "the same alone or among all"
    again = footage.chosen(["a", "c"]).chosen(["a"])
    assert (holes_for(again, a, OBJECTS, 5, None) == holes).all()
    with pytest.raises(VideoError, match="no other sequence"):
        holes_for(replace(footage, sequences=(a,)), a, OBJECTS, 5, None)


def test_given_masks(davis: Path, tmp_path: Path):
    footage = find_sequences(davis)
    a, b, c = footage.sequences
    folder = tmp_path / "masks"
    shutil.copytree(davis / "Annotations/480p/a", folder / "a")
    still = np.zeros((96, 128), np.uint8)
    still[20:40, 20:40] = 1  # a label, not white
    cv2.imwrite(str(folder / "b.png"), still)
    moving = np.zeros((3, 48, 64, 3), np.uint8)
    moving[:, 8:24, 16:32] = 255
    write_video(folder / "c.mp4", moving, 24)
    assert holes_for(footage, a, GIVEN, 5, folder)[0].sum() == 116
    holes = holes_for(footage, b, GIVEN, 4, folder)
    assert (holes == holes[0]).all() and holes[0].sum() == 100
    assert holes_for(footage, c, GIVEN, 3, folder)[0, 8:24, 16:32].all()
    (folder / "c.mp4").unlink()
    with pytest.raises(VideoError, match=r"no masks for c"):
        holes_for(footage, c, GIVEN, 3, folder)
