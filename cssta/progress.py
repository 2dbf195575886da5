"""What long work on a video tells while it runs."""

from __future__ import annotations


class Progress:
    """What a job tells while it runs; this one keeps silent."""

    def phase(self, name: str, frames: int, done: int = 0) -> None:
        """A pass ("survey", "complete", "verify") begins, `done` of its frames being done."""

    def advance(self, frames: int = 1) -> None:
        """So many more frames are done."""
