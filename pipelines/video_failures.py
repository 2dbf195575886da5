"""Why a video of a batch failed: one word for programs, one line for people."""

from __future__ import annotations

import re

from cssta.video import VideoError
from pipelines.batch_masks import ChangedInputError
from pipelines.batch_options import VideoOptions
from pipelines.batch_record import VideoTask
from pipelines.staging import UnstagedError
from pipelines.storage import StorageError

KEEPING = ("storage", "crashed", "out-of-memory", "lost", "unexpected", "unwritable")
"""Reasons that say nothing against the input or what was made of it: what is staged is kept."""


def as_failure(task: VideoTask, error: Exception) -> tuple[str, str]:
    """Reason (a slug) and message of whatever went wrong with a video.

    Of a remote file a VideoError names the local copy; its reader knows the URI. Options that its
    remedy names are those of the command line; they are called what they are in a batch.
    """
    words = " ".join(str(error).split())
    if isinstance(error, VideoError):
        shown = task.mask if task.mask and error.reason.startswith("mask") else task.video
        shown = task.output if error.reason in ("unverified", "unwritable") else shown
        if not words.startswith(str(error.path)):  # (its spaces were others)
            return error.reason, words_of_a_batch(words)
        return error.reason, shown + words_of_a_batch(words[len(str(error.path)) :])
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


def words_of_a_batch(message: str) -> str:
    """A message with `--hold-last` as `hold_last`, and how a batch is given such an option."""
    named: list[str] = []

    def key(option: re.Match[str]) -> str:
        name = option[1].replace("-", "_")
        if name not in VideoOptions.model_fields:
            return option[0]
        named.append(name)
        return name

    changed = re.sub(r"(?<![\w-])--([a-z]+(?:-[a-z]+)*)", key, message)
    if not named:
        return message
    for_all = f"for all videos --set inference.options.{named[0]}=..."
    return f"{changed} ({for_all}; for one a manifest's column {named[0]})"
