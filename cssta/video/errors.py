"""The one error that everything about media files raises."""

from __future__ import annotations

from pathlib import Path


class VideoError(ValueError):
    """A video, frame folder or mask cannot be used.

    The message names the file, what is wrong and the remedy.

    Attributes:
        path: the file or folder at fault.
        reason: a short word that programs may switch on: "missing", "empty", "unreadable",
            "truncated", "corrupt", "no-video", "no-frames", "frame-index", "frame-size",
            "mask-length", "mask-size", "exists", "format", "unwritable", "unverified".
    """

    def __init__(self, path: str | Path, reason: str, problem: str, remedy: str) -> None:
        super().__init__(f"{path}: {problem}. {remedy}.")
        self.path = Path(path)
        self.reason = reason
        self._arguments = (path, reason, problem, remedy)

    def about(self, path: str | Path) -> VideoError:
        """The same of another file: of the output that a user knows, not of a working copy."""
        _, *rest = self._arguments
        return VideoError(path, *rest)

    def __reduce__(self):
        # Exceptions are rebuilt from `args`, which here is only the message; workers of a
        # cluster send theirs pickled.
        return type(self), self._arguments
