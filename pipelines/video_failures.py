"""Why a video of a batch failed: one word for programs, one line for people."""

from __future__ import annotations

from cssta.video import VideoError
from pipelines.batch_masks import ChangedInputError
from pipelines.batch_record import VideoTask
from pipelines.staging import UnstagedError
from pipelines.storage import StorageError

KEEPING = ("storage", "crashed", "out-of-memory", "lost", "unexpected", "unwritable")
"""Reasons that say nothing against the input or what was made of it: what is staged is kept."""


def as_failure(task: VideoTask, error: Exception) -> tuple[str, str]:
    """Reason (a slug) and message of whatever went wrong with a video.

    Of a remote file a VideoError names the local copy; its reader knows the URI.
    """
    words = " ".join(str(error).split())
    if isinstance(error, VideoError):
        shown = task.mask if task.mask and error.reason.startswith("mask") else task.video
        shown = task.output if error.reason in ("unverified", "unwritable") else shown
        return error.reason, words.replace(str(error.path), shown, 1)
    if isinstance(error, UnstagedError):
        return "lost", words
    if isinstance(error, ChangedInputError):
        return "input-changed", words
    if isinstance(error, StorageError):
        return "storage", words
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__:
        return "out-of-memory", words or type(error).__name__
    if isinstance(error, OSError):
        return "storage", f"{type(error).__name__}: {words}"
    return "unexpected", f"{type(error).__name__}: {words}"
