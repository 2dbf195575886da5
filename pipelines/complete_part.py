"""One segment of a video of a batch: decoded, completed, encoded, all at once; staged; marked."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from cssta.ahead import ahead
from cssta.complete_segment import CompletedFrame, complete_segment
from cssta.quality import QualityMeter
from cssta.segments import Segment
from cssta.self_test import self_test
from cssta.video import Composer, SegmentWriter
from pipelines.actors import StreamEngine
from pipelines.batch_source import BatchSettings, Opened, is_drawn
from pipelines.batch_units import Part
from pipelines.read_ahead import Masks, MasksAhead, ReadAhead, queue_length
from pipelines.staging import Staging
from pipelines.truth_scores import Scores
from pipelines.video_failures import as_failure

log = logging.getLogger(__name__)


def complete_part(
    part: Part,
    video: Opened,
    engine: StreamEngine,
    settings: BatchSettings,
    progress: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Complete and stage a segment; its mark.

    `progress` is called at every frame that the engine takes or gives. Raises VideoError or
    StorageError.
    """
    task, segment = part.task, part.segment
    started = time.monotonic()
    meter = QualityMeter() if settings.quality else None
    scores = Scores() if is_drawn(task) else None
    scratch = settings.claim_scratch()
    with tempfile.TemporaryDirectory(prefix="part-", dir=scratch) as folder:
        path = Path(folder) / "segment.mkv"
        composer = Composer(video.source.info, video.options.feather)
        with (
            SegmentWriter(path, video.encoding, video.source.info) as writer,
            closing(completed(video, segment, engine, progress)) as frames,
        ):
            for frame in frames:
                writer.write(composer.merge(frame.source, frame.result, frame.mask))
                source = None if frame.result is None else frame.source.rgb()
                if meter:
                    meter.add(source, frame.mask, frame.result)
                if scores and source is not None:
                    scores.add(frame.result, source, frame.mask)
                progress()
        mark = {
            "frames": segment.stop - segment.start,
            "quality": meter.sums() if meter else None,
            "scores": scores.sums if scores else None,
            "self_test": _self_test(part, video, engine, settings.self_test_frames, progress),
            "seconds": time.monotonic() - started,
        }
        return Staging(task, settings.s3_endpoint).put_segment(part.number, path, mark)


class _Followed:
    """Masks; `progress` is called whenever their user goes on to the next."""

    def __init__(self, masks: Masks, progress: Callable[[], None]) -> None:
        self._masks, self._progress, self.pick = masks, progress, masks.pick

    def masks(self, start: int = 0, stop: int | None = None) -> Iterator[np.ndarray]:
        for mask in self._masks.masks(start, stop):
            self._progress()
            yield mask


def completed(
    video: Opened,
    segment: Segment,
    engine: StreamEngine,
    progress: Callable[[], None] = lambda: None,
) -> Iterator[CompletedFrame]:
    """The segment's frames: one thread decodes, one completes, the caller encodes.

    `progress` is called as the engine takes them in, long before it gives the first.
    """
    source, masks = video.source, video.masks
    if segment.scene.box is not None:
        source, masks = ReadAhead(source), _Followed(MasksAhead(source, masks), progress)
    length = queue_length(source.info.height, source.info.width)
    with closing(ahead(complete_segment(engine, source, masks, segment), length)) as frames:
        yield from frames


def _self_test(
    part: Part,
    video: Opened,
    engine: StreamEngine,
    count: int,
    progress: Callable[[], None],
) -> float | None:
    """On the video's first frames with a hole, by the segment that has them; else None."""
    first, segment = part.first_hole, part.segment
    if not count or not segment.start <= first < segment.stop:
        return None
    wanted = range(first, min(first + count, segment.stop))
    frames, masks = video.source.pick(wanted), video.masks.pick(wanted)
    try:
        found = self_test(
            _Watched(engine, progress),
            np.stack([frames[index].rgb() for index in wanted]),
            np.stack([masks[index] for index in wanted]),
            part.task.mask_seed,
        )
    except Exception as error:
        # (Two holes take more memory than the one that has just been completed.)
        reason, message = as_failure(part.task, error)
        if reason != "out-of-memory":
            raise
        log.warning("%s: no self-test: %s", part.task.name, message)
        return None
    return found if found is None or np.isfinite(found) else None


class _Watched:
    """An engine that calls `progress` at every frame of a clip."""

    def __init__(self, engine: StreamEngine, progress: Callable[[], None]) -> None:
        self._engine, self._progress = engine, progress

    def inpaint(self, frames: np.ndarray, masks: np.ndarray) -> np.ndarray:
        """As `Engine` has it."""
        return self._engine.inpaint(frames, masks, lambda *_: self._progress())
