"""The first look at a video of a batch: what there is to do, cut into segments; plain functions."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cssta.segments import Segment, plan_segments
from cssta.survey import Scene, Survey, survey
from cssta.video.scan import scan
from pipelines.batch_record import VideoTask
from pipelines.batch_source import BatchSettings, Opened, opened
from pipelines.staging import Staging


@dataclass(frozen=True)
class Surveyed:
    """What there is to do in a video, as plain values.

    Attributes:
        scenes: (start, stop, box or None) of each, see `cssta.survey.Scene`.
        hole_frames: frames with a hole. `hole_ratio`: share of all pixels that is hole.
        first_hole: number of the first frame with a hole; -1 without any.
        note, remark: what is remarkable about it all the same (slug, words).
    """

    frames: int
    height: int
    width: int
    scenes: tuple[tuple[int, int, tuple[int, int, int, int] | None], ...]
    hole_frames: int = 0
    hole_ratio: float = 0.0
    first_hole: int = -1
    note: str = ""
    remark: str = ""

    def segments(self, longest: int) -> list[Segment]:
        """The pieces that it is completed in; always the same."""
        scenes = tuple(
            Scene(start, stop, None if box is None else tuple(box))
            for start, stop, box in self.scenes
        )
        return plan_segments(Survey(self.frames, np.zeros(0, np.int64), scenes), longest)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Surveyed:
        """Inverse of `to_dict`."""
        return cls(**{**values, "scenes": tuple(tuple(scene) for scene in values["scenes"])})


def survey_task(
    task: VideoTask, settings: BatchSettings, progress: Callable[..., None] = lambda *_: None
) -> Surveyed:
    """Look through a video, or remember what was found earlier.

    `progress` is called at every packet and frame. Raises VideoError or StorageError.
    """
    staging = Staging(task, settings.s3_endpoint)
    earlier = staging.survey()
    if earlier is not None:
        with suppress(TypeError, KeyError, ValueError):  # of another form: looked at again
            return Surveyed.from_dict(earlier)
    with opened(task, settings, progress) as video:
        found = look_through(video, progress)
    staging.put_survey(found.to_dict())
    return found


def look_through(video: Opened, progress: Callable[..., None] = lambda *_: None) -> Surveyed:
    """Survey a video that is open. Raises VideoError."""
    info = video.source.info
    cuts = video.options.scene_cuts
    found = survey(video.source, video.masks, cuts=cuts, progress=progress)
    holes = found.holes
    note, remark = _note(video, holes)
    pixels = info.height * info.width
    return Surveyed(
        frames=info.frames,
        height=info.height,
        width=info.width,
        scenes=tuple((scene.start, scene.stop, scene.box) for scene in found.scenes),
        hole_frames=int(np.count_nonzero(holes)),
        hole_ratio=float(holes.sum() / (pixels * info.frames)),
        first_hole=int(np.argmax(holes > 0)) if holes.any() else -1,
        note=note,
        remark=remark,
    )


def _note(video: Opened, holes: np.ndarray) -> tuple[str, str]:
    info = video.source.info
    if not info.is_folder:
        declared = scan(info.path).declared
        if declared > info.frames:
            problem = f"only {info.frames} of {declared} declared frames can be decoded"
            return "truncated", problem
    if not holes.any():
        return "no-hole", "the mask has no hole: the video was only encoded again"
    if holes.min() == info.height * info.width:
        return "full-frame-hole", "the mask leaves nothing to see: all of it is imagined"
    return "", ""
