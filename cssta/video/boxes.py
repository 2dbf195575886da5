"""Rectangular holes, given as text: x,y,w,h in pixels, and from when to when in seconds."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cssta.video.errors import VideoError
from cssta.video.source import SourceInfo

NUMBER = r"\d+(?:\.\d*)?|\.\d+"
TEXT = re.compile(rf"(-?\d+),(-?\d+),(\d+),(\d+)(?:@({NUMBER})?-({NUMBER})?)?")
SAME_TIME = 1e-4  # seconds; times are typed with a few digits


@dataclass(frozen=True)
class Box:
    """`width` x `height` pixels from column x and row y of the upright picture.

    It is a hole in the frames shown from `start` to `end` seconds, both included.
    """

    x: int
    y: int
    width: int
    height: int
    start: float = 0.0
    end: float = math.inf

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(f"a box of {self.width}x{self.height} pixels is empty")
        if self.end < self.start:
            raise ValueError(f"a box cannot last from {self.start:g} to {self.end:g} seconds")

    @classmethod
    def parse(cls, text: str) -> Box:
        """From "x,y,w,h" or "x,y,w,h@t0-t1", where either time may be left out.

        Raises ValueError for anything else.
        """
        found = TEXT.fullmatch(text.replace(" ", ""))
        if not found or text.rstrip().endswith("@-"):
            raise ValueError(f"{text!r} is not a box: give x,y,w,h or x,y,w,h@t0-t1")
        sides = [int(side) for side in found.groups()[:4]]
        start, end = found.groups()[4:]
        return cls(*sides, float(start or 0), float(end or math.inf))


class BoxMasks:
    """The boxes of each frame.

    Raises VideoError for one outside the picture ("mask-size") or after the end ("mask-length").
    """

    length = None

    def __init__(self, boxes: tuple[Box, ...], info: SourceInfo) -> None:
        self._boxes, self._info = boxes, info
        for box in boxes:
            outside = box.x + box.width <= 0 or box.y + box.height <= 0
            if outside or box.x >= info.width or box.y >= info.height:
                raise VideoError(
                    info.path,
                    "mask-size",
                    f"the box {box.x},{box.y},{box.width},{box.height} lies outside its "
                    f"{info.width}x{info.height} pixels",
                    "Give x,y,w,h in pixels of the picture as shown, from its top left",
                )
            if box.start >= info.duration:
                raise VideoError(
                    info.path,
                    "mask-length",
                    f"the box from second {box.start:g} on comes after its end at "
                    f"{float(info.duration):.3f}",
                    "Give times in seconds from its first frame",
                )
        self.description = f"hole in {len(boxes)} box{'es' if len(boxes) > 1 else ''}"
        self._drawn: dict[tuple[Box, ...], np.ndarray] = {}

    def masks(self, start: int, stop: int) -> Iterator[np.ndarray]:
        return (self._mask(index) for index in range(start, stop))

    def pick(self, indices: list[int]) -> dict[int, np.ndarray]:
        return {index: self._mask(index) for index in indices}

    def _mask(self, index: int) -> np.ndarray:
        time = self._info.seconds(index)
        active = tuple(
            box for box in self._boxes if box.start - SAME_TIME <= time <= box.end + SAME_TIME
        )
        if active not in self._drawn:
            mask = np.zeros((self._info.height, self._info.width), bool)
            for box in active:
                rows = slice(max(0, box.y), box.y + box.height)
                mask[rows, max(0, box.x) : box.x + box.width] = True
            self._drawn = {active: mask}  # the latest only
        return self._drawn[active]
