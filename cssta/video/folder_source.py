"""Frames of a folder of pictures, a numbered sequence or a single picture."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from cssta.video.colour import Colour
from cssta.video.container import DEFAULT_FPS
from cssta.video.errors import VideoError
from cssta.video.frame_folder import is_picture, picture_files, read_picture
from cssta.video.source import SourceFrame, SourceInfo, VideoSource

NUMBER = re.compile(r"%(0?)(\d*)d")
SRGB = Colour(primaries=1, transfer=13, matrix=0, range=2)


def sequence_files(path: Path) -> list[Path] | None:
    """The pictures that `path` stands for, in order; None where it is to be opened as a video.

    Raises VideoError for a folder without pictures or a sequence with a number missing.
    """
    if path.is_dir():
        return picture_files(path)
    if is_picture(path) and path.exists():
        return [path]
    pattern = NUMBER.search(path.name)
    return _numbered(path, pattern) if pattern and not path.exists() else None


def _numbered(path: Path, pattern: re.Match[str]) -> list[Path]:
    """Files named like printf would, from the lowest number there is without a gap."""
    before, after = path.name[: pattern.start()], path.name[pattern.end() :]
    width = int(pattern[2] or 1)
    digits = rf"\d{{{width},}}" if pattern[1] else r"\d+"
    name = re.compile(re.escape(before) + f"({digits})" + re.escape(after))
    found = {}
    for file in path.parent.iterdir() if path.parent.is_dir() else ():
        match = name.fullmatch(file.name)
        if match:
            found[int(match[1])] = file
    if not found:
        raise VideoError(path, "missing", "no file has such a name", "Check folder and pattern")
    first, last = min(found), max(found)
    gap = next((number for number in range(first, last) if number not in found), None)
    if gap is not None:
        raise VideoError(
            path,
            "missing",
            f"number {gap} is missing between {first} and {last}",
            "Add it, or give the folder, whose pictures are taken as they come",
        )
    return [found[number] for number in sorted(found)]


class FolderSource(VideoSource):
    """Pictures of one size and depth; `files` are given in order."""

    def __init__(self, path: Path, files: list[Path], fps: Fraction | float | None = None) -> None:
        self._files = files
        first = read_rgb(files[0])
        height, width, channels = first.shape
        deep = first.dtype == np.uint16
        rate = Fraction(fps).limit_denominator(1001) if fps else DEFAULT_FPS
        name = "rgba" if channels == 4 else "rgb"
        formats = {"rgb": ("rgb24", "rgb48le"), "rgba": ("rgba", "rgba64le")}
        self.info = SourceInfo(
            path=path,
            frames=len(files),
            height=height,
            width=width,
            stored_height=height,
            stored_width=width,
            rotation=0,
            pts=range(len(files)),
            time_base=1 / rate,
            fps=rate,
            codec=files[0].suffix[1:].lower(),
            pix_fmt=formats[name][deep],
            bit_depth=16 if deep else 8,
            sar=Fraction(1),
            colour=SRGB,
            container="image2",
            bit_rate=None,
            is_folder=True,
            has_alpha=channels == 4,
        )

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[SourceFrame]:
        stop = self.info.frames if stop is None else stop
        self.check_range(start, stop)
        for index in range(start, stop):
            yield self._read(index)

    def pick(self, indices: Iterable[int]) -> dict[int, SourceFrame]:
        wanted = sorted(set(indices))
        if wanted:
            self.check_range(wanted[0], wanted[-1] + 1)
        return {index: self._read(index) for index in wanted}

    def _read(self, index: int) -> SourceFrame:
        file, info = self._files[index], self.info
        pixels = read_rgb(file)
        height, width = pixels.shape[:2]
        if (height, width) != (info.height, info.width):
            raise VideoError(
                file,
                "frame-size",
                f"{width}x{height} pixels, but the frames before it have "
                f"{info.width}x{info.height}",
                "Bring all frames to one size",
            )
        depth = 16 if pixels.dtype == np.uint16 else 8
        if (depth, pixels.shape[2] == 4) != (info.bit_depth, info.has_alpha):
            raise VideoError(
                file,
                "format",
                f"{depth} bits and {pixels.shape[2]} channels, unlike the frames before it "
                f"({info.pix_fmt})",
                "Bring all frames to one format",
            )
        return SourceFrame(index, pixels)


def read_rgb(file: Path) -> np.ndarray:
    """A picture as RGB or RGBA (H, W, 3 or 4), uint8 or uint16. Raises VideoError.

    Grey becomes RGB; a JPEG is turned upright as its Exif tag says.
    """
    jpeg = file.suffix.lower() in (".jpg", ".jpeg")
    pixels = read_picture(file, cv2.IMREAD_COLOR if jpeg else cv2.IMREAD_UNCHANGED)
    if pixels.dtype not in (np.uint8, np.uint16):
        raise VideoError(
            file, "format", f"its samples are {pixels.dtype}", "Save it as PNG of 8 or 16 bits"
        )
    if pixels.ndim == 2:
        return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    return cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB)
