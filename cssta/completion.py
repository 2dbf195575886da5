"""Completing a clip: cropped to its holes, then what other frames see, then what nobody sees.

The last is the networks' part; over their result, texture is laid.

What is not touched on the way comes back bit for bit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import chain, islice
from typing import TYPE_CHECKING

import numpy as np

from cssta.ahead import ahead
from cssta.propagation import MEMORY
from cssta.region import Region
from cssta.stream import Pair, Reference, Stream, check_frame
from cssta.texture import TexturePainter

if TYPE_CHECKING:
    from cssta.engine import Inpainter


def complete_clip(
    inpainter: Inpainter,
    pairs: Iterable[Pair],
    references: Iterable[Reference] | None,
    start: int,
    region: Region | None,
    lead: int,
    painter: TexturePainter | None = None,
) -> Iterator[np.ndarray]:
    """As `Inpainter.stream`, which says what everything is."""
    whole: deque[Pair] = deque()
    unseen: deque[np.ndarray] = deque()

    def cropped() -> Iterator[Pair]:
        like = None
        for number, (frame, mask) in enumerate(pairs, start):
            check_frame(f"frame {number}", frame, mask, like)
            like = (frame.shape, frame.dtype)
            part = crop(number, frame, mask, region)
            if number >= start + lead:
                whole.append((frame, part[1]))
            yield part

    parts: Iterator[Pair] = cropped()
    if inpainter.propagation is not None:
        first = next(parts, None)
        if first is None:
            return
        propagation = inpainter.propagation.within(MEMORY, first[0].nbytes)
        parts = propagation.run(chain([first], parts))
        if inpainter.read_ahead:
            parts = ahead(parts, inpainter.read_ahead)
    given = (
        None
        if references is None
        else ((number, *crop(number, frame, mask, region)) for number, frame, mask in references)
    )

    def left() -> Iterator[Pair]:
        for frame, mask in islice(parts, lead, None):
            unseen.append(mask)
            yield frame, mask

    stream = Stream(inpainter, given, start + lead)
    painter = painter or inpainter.painter()
    with closing(parts):
        for number, completed in enumerate(stream.run(left()), start + lead):
            frame, hole = whole.popleft()
            wanted = unseen.popleft()
            if painter is not None:
                completed = painter.paint(completed, wanted, number)
            result = frame.copy()
            if hole.any():
                y0, y1, x0, x1 = region or (0, frame.shape[0], 0, frame.shape[1])
                result[y0:y1, x0:x1][hole] = completed[hole]
            yield result


def crop(number: int, frame: np.ndarray, mask: np.ndarray, region: Region | None) -> Pair:
    """The region's part. Raises ValueError where it cannot be or leaves a part of the hole out."""
    if region is None:
        return frame, mask
    y0, y1, x0, x1 = region
    height, width = mask.shape
    if not (0 <= y0 < y1 <= height and 0 <= x0 < x1 <= width):
        raise ValueError(f"the region {region} does not lie in a {height}x{width} frame")
    inside = mask[y0:y1, x0:x1]
    if np.count_nonzero(inside) != np.count_nonzero(mask):
        raise ValueError(f"frame {number} has a hole outside the region {region}")
    # Copies: views, where they are remembered, would keep whole frames.
    return frame[y0:y1, x0:x1].copy(), inside.copy()
