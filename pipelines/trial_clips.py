"""The clips of trials, decoded: scores compare only if every trial meets the same ones.

So what may pass by itself, as a network's errors do, fails the trial that met it. What is damaged
is so for all of them, and the same other clip takes its place in each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from pipelines.clip_loading import Clip, no_attempt, rejected_video
from pipelines.clip_plan import ClipRow, substitutes
from pipelines.data_config import DataConfig
from pipelines.failures import Failures
from pipelines.guarded_clips import Attempt, guarded_clips, load_attempted
from pipelines.manifest import VideoRow
from pipelines.storage import StorageError


class TrialError(ValueError):
    """Trials cannot be run on this data; the message says what to do."""


def trial_clips(
    rows: Sequence[ClipRow],
    videos: Sequence[VideoRow],
    data: DataConfig,
    failures: Failures | None = None,
) -> Iterator[Clip]:
    """`decoded_clips`, in Ray tasks that a file may crash or hang; read-only arrays.

    Without `failures` in this process, which then may end with a file's decoder.
    """
    if failures is None:
        return decoded_clips(rows, videos, data)
    load = partial(_load, videos=tuple(videos), data=data, failures=failures)
    return guarded_clips(load, rows, data, failures)


def _load(
    rows: Sequence[ClipRow],
    attempt: Attempt,
    videos: Sequence[VideoRow],
    data: DataConfig,
    failures: Failures,
) -> list[Clip]:
    return list(decoded_clips(rows, videos, data, failures, attempt))


def decoded_clips(
    rows: Sequence[ClipRow],
    videos: Sequence[VideoRow],
    data: DataConfig,
    failures: Failures | None = None,
    attempt: Attempt = no_attempt,
) -> Iterator[Clip]:
    """Decode clips, one for every row and in their order.

    A clip that is damaged is reported to `failures`, and replaced by one of `videos`. `attempt`
    is entered around all that is done with a file. Raises
    TrialError where storage keeps failing or there is nothing to replace a clip by, and what
    `failures` raises.
    """
    for row in rows:
        for candidate in _candidates(row, videos, data):
            try:
                clip = load_attempted(candidate, data, attempt)
            except Exception as error:  # whatever else a decoder raises: the file's fault
                if isinstance(error, StorageError) and error.transient:
                    raise TrialError(f"{error}; every trial needs the same clips") from error
                if failures is not None:
                    failures.report(rejected_video(candidate.uri, error))
            else:
                yield clip
                break
        else:
            raise TrialError(
                f"clip {row.number}: neither {row.uri} nor any video in its place can be read; "
                "see that they are still there and whole"
            )


def _candidates(row: ClipRow, videos: Sequence[VideoRow], data: DataConfig) -> Iterator[ClipRow]:
    yield row
    if row.objects is not None:  # (perhaps it is the mask that is damaged)
        row = replace(row, objects=None)
        yield row
    yield from substitutes(row, videos, data)
