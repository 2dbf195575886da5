"""Length, size and rate of a video, found before anything is decoded in earnest."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from cssta.video.container import DEFAULT_FPS
from cssta.video.frame_folder import picture_files, read_picture
from cssta.video.scan import scan

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class VideoInfo:
    """A video file or frame folder.

    Attributes:
        frames: number of frames that can be decoded; a truncated file has fewer than it declares.
        height, width: pixels as shown, after the container's rotation.
        fps: frames per second (the average, where the rate varies).
        declared: number of frames that the container claims; equal to `frames` unless the file
            is truncated or its header is wrong.
    """

    path: Path
    frames: int
    height: int
    width: int
    fps: Fraction
    declared: int


def probe(path: str | Path, fps: Fraction | float | None = None) -> VideoInfo:
    """Look at a video file or a folder of png/jpg frames (`fps` frames per second, or 24).

    `fps` is for frame folders; a file states its own. Raises VideoError where there is no video.
    """
    path = Path(path)
    if path.is_dir():
        files = picture_files(path)
        height, width = read_picture(files[0]).shape[:2]
        rate = Fraction(fps).limit_denominator(1001) if fps else DEFAULT_FPS
        return VideoInfo(path, len(files), height, width, rate, len(files))
    found = scan(path)
    declared = found.declared or found.frames
    if found.frames < declared:
        log.warning(
            "%s is truncated or its header is wrong: %d of %d frames can be read",
            path,
            found.frames,
            declared,
        )
    return VideoInfo(path, found.frames, found.height, found.width, found.fps, declared)
