"""One segment of a video, frame by frame: decoded, completed, handed on in constant memory.

Shapes: H and W the video's upright size.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from cssta.engine import Inpainter, crop_region
from cssta.segments import Segment
from cssta.texture import TexturePainter
from cssta.video import MaskSource, SourceFrame, VideoSource


@dataclass(frozen=True)
class CompletedFrame:
    """A frame of the source, its mask bool (H, W), and the result (H, W, 3) like `source.rgb()`.

    `result` is None where nothing was to be completed.
    """

    source: SourceFrame
    mask: np.ndarray
    result: np.ndarray | None


def complete_segment(
    inpainter: Inpainter | None,
    source: VideoSource,
    masks: MaskSource,
    segment: Segment,
    painter: TexturePainter | None = None,
) -> Iterator[CompletedFrame]:
    """The segment's own frames, in order; `inpainter` may be None where its scene has no hole.

    The frames around the segment, as far as its scene goes, lead in the recurrence and serve as
    references: a scene comes out alike however it is cut into segments, but for the warm-up, and
    for texture, which is sought anew without the `painter` of the segment before.

    Raises VideoError where the video or its mask cannot be read on.
    """
    scene = segment.scene
    if scene.box is None or inpainter is None:
        for frame, mask in _pairs(source, masks, segment.start, segment.stop):
            yield CompletedFrame(frame, mask, None)
        return
    around = inpainter.lookahead
    first = max(scene.start, segment.first - around)
    held: deque[tuple[SourceFrame, np.ndarray]] = deque()

    def pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        stop = min(scene.stop, segment.stop + around)
        for frame, mask in _pairs(source, masks, first, stop):
            if frame.index >= segment.first:
                held.append((frame, mask))
            yield frame.rgb(), mask

    results = inpainter.stream(
        pairs(),
        references=_far_references(inpainter, source, masks, segment),
        start=first,
        lead=segment.first - first,
        region=crop_region(scene.box, source.info.height, source.info.width),
        painter=painter,
    )
    with closing(results):
        for result in results:
            frame, mask = held.popleft()
            if frame.index >= segment.start:
                yield CompletedFrame(frame, mask, result if mask.any() else None)
            if frame.index == segment.stop - 1:
                return


def _pairs(
    source: VideoSource, masks: MaskSource, start: int, stop: int
) -> Iterator[tuple[SourceFrame, np.ndarray]]:
    return zip(source.frames(start, stop), masks.masks(start, stop), strict=True)


def _far_references(
    inpainter: Inpainter, source: VideoSource, masks: MaskSource, segment: Segment
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """(number, frame, mask) of the frames spread over the scene."""
    scene = segment.scene
    wanted = [scene.start + i for i in inpainter.plan.spread(scene.stop - scene.start)]
    frames, holes = source.pick(wanted), masks.pick(wanted)
    for index in wanted:
        yield index, frames[index].rgb(), holes[index]
