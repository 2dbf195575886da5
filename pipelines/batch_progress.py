"""How far a batch is: videos, frames, rate, time left, failures, and what is being done."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from pipelines.batch_plan import Plan
from pipelines.batch_record import VideoOutcome, VideoTask
from pipelines.batch_units import PartResult

EVERY = 30.0  # seconds between two lines
LAST = 5.0  # seconds that the job waits at its end for a line that is just being made


class BatchProgress:
    """Counts, from any thread, and says so from time to time.

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
        self._every = every
        self._lock = threading.Lock()
        self._started: float | None = None  # when the first part was done: starting up is no work
        self._failed = self._frames = self._earlier = self._fresh = self._joining = 0
        self._bytes_done = self._bytes_fresh = 0.0
        self._settled: set[str] = set()

    @classmethod
    def of(cls, plan: Plan, say: Callable[[str], None]) -> BatchProgress:
        """Of all a plan's videos (those that are settled are added as well); bytes of its tasks."""
        return cls(len(plan.all_tasks), sum(task.size for task in plan.tasks), say)

    def add_part(self, task: VideoTask, result: PartResult) -> None:
        """A part is staged."""
        share = task.size * result.frames / max(1, result.video_frames)
        with self._lock:
            self._frames += result.frames
            self._earlier += result.frames if result.resumed else 0
            self._bytes_done += share
            if self._started is None:
                self._started = self._clock()
            elif not result.resumed:
                self._fresh += result.frames
                self._bytes_fresh += share

    def add_video(self, outcome: VideoOutcome) -> None:
        """A video has its outcome."""
        with self._lock:
            self._settled.add(outcome.name)
            self._failed += outcome.status == "failed"

    @contextmanager
    def joining(self) -> Iterator[None]:
        """While this lasts a video is joined, verified and published."""
        with self._lock:
            self._joining += 1
        try:
            yield
        finally:
            with self._lock:
                self._joining -= 1

    @contextmanager
    def told(self, tasks: Iterable[VideoTask], at_work: Callable[[], Iterable[str]]) -> Iterator:
        """While this lasts, a line every so many seconds, whether anything gets done or not.

        Args:
            at_work: names of tasks that are looked through, and keys of parts (see `Part.key`) that
                are completed.
        """
        names, over = {task.name for task in tasks}, threading.Event()

        def tell() -> None:
            while not over.wait(self._every):
                line = self.text(*self._count(at_work(), names))
                if not over.is_set():
                    self._say(line)

        thread = threading.Thread(target=tell, daemon=True, name="batch progress")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(LAST)

    def _count(self, at_work: Iterable[str], names: set[str]) -> tuple[int, int]:
        """Videos that are looked through, parts that are completed."""
        with self._lock:
            names = names - self._settled
        surveys = {key for key in at_work if key in names}
        parts = {key for key in at_work if key.rpartition(" ")[0] in names}
        return len(surveys), len(parts - surveys)

    def text(self, surveying: int = 0, completing: int = 0) -> str:
        """One line for people."""
        with self._lock:
            parts = [f"{len(self._settled)}/{self._videos} videos", f"{self._frames} frames"]
            if self._earlier:
                parts[-1] += f" ({self._earlier} of them by an earlier run)"
            passed = self._clock() - self._started if self._started is not None else 0.0
            if self._fresh and passed > 0:
                parts.append(f"{self._fresh / passed:.1f} frames/s")
                left = max(0.0, self._size - self._bytes_done)
                if self._bytes_fresh:
                    parts.append(f"about {_time(left * passed / self._bytes_fresh)} left")
            parts.append(f"{self._failed} failed")
            joining = self._joining
        doing = [f"surveying {surveying}"] * (surveying > 0)
        doing += [f"completing {completing} segment{'s' * (completing > 1)}"] * (completing > 0)
        doing += [f"joining {joining}"] * (joining > 0)
        return ", ".join(parts) + (f"; {', '.join(doing)}" if doing else "")


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"
