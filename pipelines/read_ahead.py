"""Decoding, completing and encoding at the same time: threads with short queues between them.

Decoders, encoders and the networks all let go of Python's lock while they work.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from cssta.ahead import ahead
from cssta.video import SourceFrame, VideoSource

QUEUE_BYTES = 96 * 2**20  # of frames between two threads
QUEUE_FRAMES = 16


class Masks(Protocol):
    """`cssta.video.MaskSource` and what stands for one."""

    def masks(self, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]: ...

    def pick(self, indices: Iterable[int]) -> dict[int, np.ndarray]: ...


def queue_length(height: int, width: int) -> int:
    """Frames that may wait between two threads: in RGB beside their own samples, 2 bytes each."""
    return int(np.clip(QUEUE_BYTES // (height * width * 9), 2, QUEUE_FRAMES))


@dataclass(frozen=True)
class ConvertedFrame(SourceFrame):
    """A frame whose RGB has been made by the thread that decoded it."""

    pixels: np.ndarray | None = None

    def rgb(self) -> np.ndarray:
        return super().rgb() if self.pixels is None else self.pixels


class ReadAhead(VideoSource):
    """A source that decodes, and converts to RGB, ahead of its user."""

    def __init__(self, source: VideoSource) -> None:
        self.source, self.info = source, source.info

    def frames(self, start: int = 0, stop: int | None = None) -> Iterator[SourceFrame]:
        length = queue_length(self.info.height, self.info.width)
        with closing(ahead(self._converted(start, stop), length)) as frames:
            yield from frames

    def _converted(self, start: int, stop: int | None) -> Iterator[SourceFrame]:
        with closing(self.source.frames(start, stop)) as frames:
            for frame in frames:
                yield ConvertedFrame(frame.index, frame.native, frame.rotation, frame.rgb())

    def pick(self, indices: Iterable[int]) -> dict[int, SourceFrame]:
        return self.source.pick(indices)


class MasksAhead:
    """The masks of a source, read ahead of their user."""

    def __init__(self, source: VideoSource, masks: Masks) -> None:
        self._length = queue_length(source.info.height, source.info.width)
        self._masks = masks

    def masks(self, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
        with closing(ahead(self._masks.masks(start, stop), self._length)) as masks:
            yield from masks

    def pick(self, indices: Iterable[int]) -> dict[int, np.ndarray]:
        return self._masks.pick(indices)
