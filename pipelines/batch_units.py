"""How a batch's work is shared out: files that are looked at together, segments done together.

Many short videos share a row of the pipeline, whose overhead then does not matter; a long one
becomes many rows, for all actors. Rows are JSON, pixels never leave the process that decodes them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cssta.segments import Segment
from cssta.survey import Scene
from pipelines.batch_record import VideoTask, task_from_json
from pipelines.batch_source import BatchSettings
from pipelines.survey_video import survey_task
from pipelines.video_failures import as_failure
from pipelines.watchdog import Watchdog

log = logging.getLogger(__name__)

FILES_PER_GROUP, BYTES_PER_GROUP = 8, 16 * 2**20
GROUPS_PER_ACTOR = 8  # at least, before videos share one
BYTES_PER_UNIT = 2**20  # a segment rarely has less: an upper bound for how many there will be


@dataclass(frozen=True)
class Part:
    """Segment `number` of `count` of a task; `frames`, `first_hole` as in `Surveyed`."""

    task: VideoTask
    number: int
    count: int
    segment: Segment
    frames: int
    first_hole: int

    @property
    def key(self) -> str:
        """What its starts are counted by."""
        return f"{self.task.name} {self.number}"


@dataclass(frozen=True)
class PartResult:
    """What became of a part, or of a whole video (`count` 0); `reason` "" if it is staged."""

    name: str
    number: int = 0
    count: int = 0
    frames: int = 0
    video_frames: int = 0
    resumed: bool = False
    reason: str = ""
    message: str = ""


def group_tasks(tasks: Sequence[VideoTask], actors: int) -> list[list[VideoTask]]:
    """Tasks whose videos are looked at by one task of the cluster: few files and few bytes.

    Of a small batch each is on its own, so that all `actors` have something to do.
    """
    groups: list[list[VideoTask]] = []
    most = min(FILES_PER_GROUP, max(1, len(tasks) // (GROUPS_PER_ACTOR * actors)))
    room = 0
    for task in tasks:
        if not groups or len(groups[-1]) == most or task.size > room:
            groups.append([])
            room = BYTES_PER_GROUP
        groups[-1].append(task)
        room -= task.size
    return groups


def most_units(tasks: Iterable[VideoTask]) -> int:
    """At most about so many units will come of the tasks."""
    return sum(max(1, task.size // BYTES_PER_UNIT) for task in tasks)


def pack(parts: Iterable[Part], frames: int) -> Iterator[list[Part]]:
    """Parts in order, together up to so many frames."""
    unit: list[Part] = []
    length = 0
    for part in parts:
        more = part.segment.stop - part.segment.start
        if unit and length + more > frames:
            yield unit
            unit, length = [], 0
        unit.append(part)
        length += more
    if unit:
        yield unit


def parts_of(task: VideoTask, settings: BatchSettings, watchdog: Watchdog) -> list[Part]:
    """Survey a video. Raises VideoError or StorageError."""
    found = survey_task(task, settings, watchdog.feed)
    segments = found.segments(settings.segment_frames)
    return [
        Part(task, number, len(segments), segment, found.frames, found.first_hole)
        for number, segment in enumerate(segments)
    ]


def survey_group(row: dict[str, Any], settings: BatchSettings, keeper: Any) -> list[dict[str, str]]:
    """A row of tasks to rows of units; what cannot be used becomes a result, never an error.

    `keeper`: actor handle of `pipelines.actors.Keeper`.
    """
    from pipelines.actors import CRASHED, may_start

    parts: list[Part] = []
    failed: list[PartResult] = []
    for text in json.loads(row["tasks"]):
        task = task_from_json(text)
        if not may_start(keeper, task.name):
            failed.append(PartResult(task.name, reason="crashed", message=CRASHED))
            continue
        try:
            with Watchdog(settings.stall_seconds) as watchdog:
                parts += parts_of(task, settings, watchdog)
        except Exception as error:  # one video's fault must not end the others
            failed.append(failed_result(task, error))
        # (A group whose process died is looked at again from its first file.)
        keeper.end.remote(task.name)
    units = [to_row(unit, ()) for unit in pack(parts, settings.segment_frames)]
    return units + ([to_row([], failed)] if failed else [])


def failed_result(task: VideoTask, error: Exception) -> PartResult:
    """What goes wrong with a video, as its result."""
    reason, message = as_failure(task, error)
    if reason == "unexpected":
        log.warning("%s: unexpected failure", task.name, exc_info=error)
    return PartResult(task.name, reason=reason, message=message)


def to_row(unit: Iterable[Part], failed: Iterable[PartResult]) -> dict[str, str]:
    """For the way from process to process."""
    content = {"parts": [asdict(part) for part in unit], "failed": [vars(r) for r in failed]}
    return {"unit": json.dumps(content)}


def from_row(row: dict[str, str]) -> tuple[list[Part], list[PartResult]]:
    """Inverse of `to_row`."""
    content = json.loads(row["unit"])
    return [_part(p) for p in content["parts"]], [PartResult(**r) for r in content["failed"]]


def _part(values: dict[str, Any]) -> Part:
    segment = values["segment"]
    box = segment["scene"]["box"]
    scene = Scene(**{**segment["scene"], "box": None if box is None else tuple(box)})
    segment = Segment(**{**segment, "scene": scene})
    return Part(**{**values, "segment": segment, "task": VideoTask(**values["task"])})
