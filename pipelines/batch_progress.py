"""How far a batch is: videos, frames, rate, time left, failures; a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable

from pipelines.batch_plan import Plan
from pipelines.batch_record import VideoOutcome, VideoTask
from pipelines.batch_units import PartResult

EVERY = 15.0  # seconds between two lines


class BatchProgress:
    """Counts, and says so from time to time.

    What is left is reckoned by bytes: the videos' frames are not known before they are looked at.
    Parts that an earlier run had finished count as done, but not for the rate.
    """

    def __init__(
        self,
        videos: int,
        size: int,
        say: Callable[[str], None] = lambda line: None,
        clock: Callable[[], float] = time.monotonic,
        every: float = EVERY,
    ) -> None:
        self._videos, self._size, self._say, self._clock = videos, size, say, clock
        self._every, self._last = every, clock()
        self._started: float | None = None  # when the first part was done: starting up is no work
        self._settled = self._failed = self._frames = self._fresh = 0
        self._bytes_done = self._bytes_fresh = 0.0

    @classmethod
    def of(cls, plan: Plan, say: Callable[[str], None]) -> BatchProgress:
        """Of all a plan's videos (those that are settled are added as well); bytes of its tasks."""
        return cls(len(plan.all_tasks), sum(task.size for task in plan.tasks), say)

    def add_part(self, task: VideoTask, result: PartResult) -> None:
        """A part is staged."""
        share = task.size * result.frames / max(1, result.video_frames)
        self._frames += result.frames
        self._bytes_done += share
        if self._started is None:
            self._started = self._clock()
        elif not result.resumed:
            self._fresh += result.frames
            self._bytes_fresh += share
        self._tell()

    def add_video(self, outcome: VideoOutcome) -> None:
        """A video has its outcome."""
        self._settled += 1
        self._failed += outcome.status == "failed"
        self._tell()

    def _tell(self) -> None:
        now = self._clock()
        if now - self._last >= self._every:
            self._last = now
            self._say(self.text())

    def text(self) -> str:
        """One line for people."""
        parts = [f"{self._settled}/{self._videos} videos", f"{self._frames} frames"]
        passed = self._clock() - self._started if self._started is not None else 0.0
        if self._fresh and passed > 0:
            parts.append(f"{self._fresh / passed:.1f} frames/s")
            left = max(0.0, self._size - self._bytes_done)
            if self._bytes_fresh:
                parts.append(f"about {_time(left * passed / self._bytes_fresh)} left")
        parts.append(f"{self._failed} failed")
        return ", ".join(parts)


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"
