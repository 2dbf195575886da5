"""A video whose segments are all staged: joined, verified, judged, published, recorded.

Plain functions: no Ray. The order is what makes it safe to be killed at any moment: the old record
goes, the output appears whole under its name, the new record vouches for it, staging goes.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from cssta.quality import quality
from cssta.video import assemble, verify
from pipelines import batch_finished, storage
from pipelines.batch_lease import check_held
from pipelines.batch_masks import ChangedInputError, stamp_of
from pipelines.batch_record import VideoOutcome, VideoTask, record_of
from pipelines.batch_source import BatchSettings, opened
from pipelines.retries import patiently
from pipelines.staging import Staging, UnstagedError
from pipelines.survey_video import Surveyed, survey_task
from pipelines.truth_scores import SCORES


def assemble_video(
    task: VideoTask, settings: BatchSettings, progress: Callable[[], None] = lambda: None
) -> VideoOutcome:
    """Publish a completed video; done, or review where it breaks a limit.

    Doing it again, as after the process was killed in the middle, does no harm.
    `progress` is called at every frame that is looked at, and every packet that is written.

    Raises VideoError, StorageError, UnstagedError, ChangedInputError, or LeaseError where another
    batch has taken over.
    """
    finished = published(task, settings)
    if finished is not None:
        Staging(task, settings.s3_endpoint).remove()
        return finished
    try:
        return _assemble(task, settings, progress)
    except (UnstagedError, OSError, ValueError):
        # A process that was taken for dead may have published it, and removed what is staged.
        finished = published(task, settings)
        if finished is None:
            raise
        return finished


def _assemble(
    task: VideoTask, settings: BatchSettings, progress: Callable[[], None]
) -> VideoOutcome:
    """`assemble_video` of what is not published."""
    started = time.monotonic()
    staging = Staging(task, settings.s3_endpoint)
    surveyed = survey_task(task, settings, lambda *_: progress())
    count = len(surveyed.segments(settings.segment_frames))
    marks = [staging.mark(number) for number in range(count)]
    missing = [number for number, mark in enumerate(marks) if mark is None]
    if missing:
        raise UnstagedError(missing)
    outcome = _outcome(task, surveyed, marks, settings)
    with tempfile.TemporaryDirectory(prefix="whole-", dir=settings.claim_scratch()) as folder:
        whole = Path(folder) / f"whole{Path(task.place).suffix}"
        segments = [
            staging.local_segment(number, mark, Path(folder)) for number, mark in enumerate(marks)
        ]
        with opened(task, settings, progress) as video:
            assemble(whole, segments, video.source.info, video.encoding, progress)
            exact = video.masks if video.encoding.lossless else None
            verify(whole, video.source, video.encoding, exact, progress, progress)
        took = sum(mark["seconds"] for mark in marks) + time.monotonic() - started
        outcome = replace(outcome, seconds=took)
        _publish(task, outcome, whole, settings, progress)
    staging.remove()
    return outcome


def _outcome(
    task: VideoTask,
    surveyed: Surveyed,
    marks: Sequence[Mapping[str, Any]],
    settings: BatchSettings,
) -> VideoOutcome:
    """All but the time it took."""
    figures = quality([mark["quality"] for mark in marks]) if settings.quality else {}
    if settings.self_test_frames:
        tests = [mark["self_test"] for mark in marks if mark["self_test"] is not None]
        figures["self_test"] = min(tests, default=None)
    outcome = VideoOutcome(
        name=task.name,
        video=task.video,
        output=task.output,
        status="done",
        reason=surveyed.note,
        message=surveyed.remark,
        frames=surveyed.frames,
        height=surveyed.height,
        width=surveyed.width,
        hole_ratio=surveyed.hole_ratio,
        quality=figures,
        segments=len(marks),
        hole_frames=surveyed.hole_frames,
        **_scores([mark["scores"] for mark in marks if mark["scores"]]),
    )
    return batch_finished.judged(outcome, task, dict(settings.limits))


def _scores(sums: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means over the frames of all segments; nan where nothing was scored."""
    frames = sum(part["frames"] for part in sums)
    return {key: sum(p[key] for p in sums) / frames if frames else math.nan for key in SCORES}


def _publish(
    task: VideoTask,
    outcome: VideoOutcome,
    whole: Path,
    settings: BatchSettings,
    progress: Callable[[], None],
) -> None:
    endpoint = settings.s3_endpoint

    def check() -> None:
        # (Of a batch whose driver has died another may be the successor, as with a newer model.)
        if settings.lease:
            check_held(task.root, settings.lease, endpoint)

    def remove(uri: str) -> None:
        check()
        storage.delete(uri, endpoint)

    with open(whole, "rb") as file:
        content = sha256()
        while chunk := file.read(2**22):
            content.update(chunk)
            progress()
    size, digest = whole.stat().st_size, content.hexdigest()
    _check_inputs(task, endpoint)
    patiently(check)
    if outcome.output == task.output:
        batch_finished.retire_foreign(task, digest, endpoint)
    # An old record must not vouch for the new output, should the publishing end between the two;
    # a picture of the old output must not be taken for one of the new.
    for uri in (record_of(outcome.output), task.sheet):
        patiently(lambda uri=uri: remove(uri))
    patiently(lambda: storage.publish(whole, outcome.output, endpoint, task.staging, digest, check))
    batch_finished.write(task, settings.model, outcome, size, digest, endpoint)
    batch_finished.clear_other_place(task, outcome.output, endpoint)


def _check_inputs(task: VideoTask, endpoint: str | None) -> None:
    """Raise ChangedInputError if an input is not any more what the task's fingerprint says."""
    for key, uri in (("input", task.video), ("mask", task.mask)):
        if uri is not None:
            now = patiently(lambda uri=uri: stamp_of(uri, endpoint))
            if now != task.identity.get(key):
                raise ChangedInputError(uri)


def published(task: VideoTask, settings: BatchSettings) -> VideoOutcome | None:
    """The outcome of exactly this task where its output is there with its record."""
    there = batch_finished.stored(task, settings.s3_endpoint)
    limits = dict(settings.limits)
    found = batch_finished.find_finished(task, there, limits, settings.s3_endpoint)
    return found and found.outcome
