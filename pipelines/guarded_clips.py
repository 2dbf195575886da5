"""Clips decoded where a crash or a hang costs a Ray task, not the training that asked for them.

As in the training stream (`pipelines.data`): a file that ends the process which decodes it, twice,
is reported as `crashed`, and the task that Ray starts again goes on without it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import islice

import cv2
import ray

from cssta.video import VideoError
from pipelines.clip_loading import Clip, load_clip, no_attempt, rejected_video
from pipelines.clip_plan import ClipRow
from pipelines.data_config import DataConfig
from pipelines.failures import DecoderCrashError, Failures
from pipelines.last_words import LastWords
from pipelines.storage import StorageError
from pipelines.watchdog import Watchdog, end_process

SECONDS_PER_CLIP = 300.0  # transfers have limits of their own
MEMORY_PER_TASK = 1024**3  # a decoder's read-ahead and a task's clips
BYTES_PER_TASK = 32 * 1024**2  # of clips: starting a task should not count, nor its result
RETRIES = 50  # of a task, which every bad file of it ends twice

Attempt = Callable[[str], AbstractContextManager[LastWords | None]]
"""`attempt(uri)` is entered around all that is done with a file; raises DecoderCrashError."""

Load = Callable[[Sequence[ClipRow], Attempt], list[Clip | None]]
"""Decodes clips, one for every row and in their order, or None in the place of one."""


def guarded_clips(
    load: Load, rows: Sequence[ClipRow], data: DataConfig, failures: Failures | None
) -> Iterator[Clip | None]:
    """What `load` gives for the rows, from Ray tasks that run ahead of who reads; read-only arrays.

    `failures` counts which file ends a process; without it, any does end the reading. Needs a
    connected Ray. Raises what `load` does, and DecoderCrashError where processes keep dying.
    """
    size = (data.references + 1) * data.height * data.width * 4
    each = max(1, BYTES_PER_TASK // size)
    # No CPU of its own: whoever reads has one, and may have the last.
    options = {"num_cpus": 0, "memory": MEMORY_PER_TASK, "max_retries": RETRIES if failures else 0}
    task = ray.remote(_decode).options(**options)
    stored = ray.put(load)
    groups = (rows[first : first + each] for first in range(0, len(rows), each))
    asked = (
        (group, task.remote(stored, group, failures, uuid.uuid4().hex, SECONDS_PER_CLIP))
        for group in groups
    )
    pending = list(islice(asked, 1))
    while pending:
        pending += islice(asked, 1)
        group, clips = pending.pop(0)
        try:
            found = ray.get(clips)
        except ray.exceptions.RayTaskError as error:
            raise error.cause or error from error
        except ray.exceptions.RayError as error:
            uris = list(dict.fromkeys(row.uri for row in group))
            more = f" and {len(uris) - 5} more" if len(uris) > 5 else ""
            reason = str(error).strip().splitlines()[0]
            raise DecoderCrashError(
                f"the process that decodes {', '.join(uris[:5])}{more} keeps dying: {reason}"
            ) from error
        yield from found


def held_out_clips(
    rows: Sequence[ClipRow], data: DataConfig, failures: Failures | None
) -> list[Clip]:
    """The clips that a stage is validated on; those that cannot be read are left out and reported.

    Raises StorageError for storage that is away: other clips would give other scores. Raises what
    `failures` and `guarded_clips` do.
    """
    load = partial(load_held_out, data=data, failures=failures)
    return [clip for clip in guarded_clips(load, rows, data, failures) if clip is not None]


def load_held_out(
    rows: Sequence[ClipRow],
    attempt: Attempt = no_attempt,
    *,
    data: DataConfig,
    failures: Failures | None = None,
) -> list[Clip | None]:
    """See `held_out_clips`; decodes in this process."""
    clips: list[Clip | None] = []
    for row in rows:
        try:
            clips.append(load_attempted(row, data, attempt))
        except Exception as error:  # whatever else a decoder raises: the file's fault
            if isinstance(error, StorageError) and error.transient:
                raise
            clips.append(None)
            if failures is not None:
                failures.report(rejected_video(row.uri, error))
    return clips


def load_attempted(row: ClipRow, data: DataConfig, attempt: Attempt) -> Clip:
    """`load_clip` within an attempt with the clip's file. Raises as it, and DecoderCrashError."""
    with attempt(row.uri) as words:
        try:
            return load_clip(row, data)
        except (VideoError, StorageError):
            raise
        except Exception as error:  # perhaps of a process that an earlier file has broken
            if words is not None:
                words.doubt(error)
            raise


def _decode(
    load: Load, rows: Sequence[ClipRow], failures: Failures | None, name: str, seconds: float
) -> list[Clip | None]:
    cv2.setNumThreads(1)
    attempt = partial(failures.attempt, name) if failures else no_attempt
    return load(rows, partial(_watched, attempt, seconds))


@contextmanager
def _watched(attempt: Attempt, seconds: float, uri: str) -> Iterator[LastWords | None]:
    """One attempt with a file, at whose hanging end this process: nothing else stops a decoder."""
    with attempt(uri) as words, Watchdog(seconds, words.hung if words else end_process):
        yield words
