"""Which clips of a folder to train on, decoded and scaled for `packed.pack`."""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from cssta.video import VideoError, probe, read_frames

logger = logging.getLogger(__name__)

UNFIT = ("lowfps", "doubt", "short")  # flags of clips.csv that say a clip teaches motion badly


def clips_of_folder(
    folder: Path, *, short_side: int = 208, max_frames: int = 48
) -> Iterator[tuple[str, str, np.ndarray]]:
    """(name, group, frames uint8 (T, h, w, 3)) of every fit mp4, its middle `max_frames` frames.

    With a `clips.csv` (columns file, scene, flags) clips flagged unfit are left out, duplicated
    frames skipped and scenes kept as groups; without, every file is a group. A file that cannot be
    read is logged and left out.
    """
    for name, group, step in _listing(folder):
        path = folder / name
        try:
            indices = range(0, probe(path).frames, step)
            first = max(0, (len(indices) - max_frames) // 2)
            frames = read_frames(path, indices[first : first + max_frames])
        except VideoError as error:
            logger.warning("left out: %s", error)
            continue
        scale = short_side / min(frames.shape[1:3])
        height, width = (round(side * scale) for side in frames.shape[1:3])
        shrink = [cv2.resize(f, (width, height), interpolation=cv2.INTER_AREA) for f in frames]
        yield name, group, np.stack(shrink)


def _listing(folder: Path) -> Iterator[tuple[str, str, int]]:
    table = folder / "clips.csv"
    if not table.exists():
        for path in sorted(folder.glob("*.mp4")):
            yield path.name, path.name, 1
        return
    with open(table, newline="") as file:
        for row in csv.DictReader(file):
            flags = row["flags"]
            if not any(flag in flags for flag in UNFIT):
                yield row["file"], row["scene"], 2 if "dup-frames" in flags else 1
