"""The actor that completes segments: one model, one video open at a time."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from typing import Any

from cssta.heap import trim_heap
from pipelines.actors import CRASHED, MAX_STARTS, ModelActor, ask
from pipelines.batch_record import VideoTask
from pipelines.batch_source import BatchSettings, Opened, opened
from pipelines.batch_units import Part, PartResult, failed_result, from_row
from pipelines.complete_part import complete_part
from pipelines.staging import Staging
from pipelines.watchdog import Watchdog


class Completer(ModelActor):
    """Completes one unit per call; its settings are BatchSettings.

    A part that is staged already is not done again. What goes wrong becomes a result; but after an
    error that may have broken the process for good, as CUDA's do, a fresh one tries once more.
    """

    settings: BatchSettings

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._stack = ExitStack()
        self._opened: tuple[VideoTask, Opened] | None = None
        self._watchdog: Watchdog | None = None

    def __call__(self, row: dict[str, str]) -> dict[str, str]:
        parts, results = from_row(row)
        for part in parts:
            results.append(self._result(part))
            trim_heap()  # (a process completes segments for hours, and these differ)
        return {"results": json.dumps([vars(result) for result in results])}

    def _result(self, part: Part) -> PartResult:
        task = part.task
        found = PartResult(task.name, part.number, part.count, video_frames=part.frames)
        starts = ask(self.keeper.start.remote(part.key), 0)
        if starts > MAX_STARTS:
            return PartResult(task.name, reason="crashed", message=CRASHED)
        try:
            staged = Staging(task, self.settings.s3_endpoint).verified(part.number)
            # (In this order: what is staged goes after it was said that no more is to be done.)
            given_up = ask(self.keeper.given_up.remote(task.name), None)
            if staged is None and given_up is not None:
                self.keeper.end.remote(part.key)
                return PartResult(task.name, reason=given_up[0], message=given_up[1])
            if staged is None:
                with Watchdog(self.settings.stall_seconds) as self._watchdog:
                    video = self._open(task)
                    complete_part(part, video, self.engine, self.settings, self._feed)
        except Exception as error:  # one video's fault must not end the others
            self._close()
            failed = failed_result(task, error)
            if failed.reason == "unexpected" and isinstance(error, RuntimeError) and starts:
                self._end(failed, again=starts == 1)
            self.keeper.end.remote(part.key)
            return failed
        # (A unit whose process died is done again from its first part.)
        self.keeper.end.remote(part.key)
        frames = part.segment.stop - part.segment.start
        return PartResult(**{**vars(found), "frames": frames, "resumed": staged is not None})

    def _end(self, failed: PartResult, again: bool) -> None:
        """End this process; Ray starts it anew with the same unit.

        (After one illegal access every later call of CUDA fails too, and would the other videos.
        PyTorch raises RuntimeErrors of all sorts. `exit_actor` would be taken for a wish.)
        """
        if not again:
            ask(self.keeper.give_up.remote(failed.name, failed.reason, failed.message), None)
        os._exit(1)

    def _open(self, task: VideoTask) -> Opened:
        """The next segment is mostly of the same video."""
        if self._opened is None or self._opened[0] != task:
            self._close()
            video = self._stack.enter_context(opened(task, self.settings, self._feed))
            self._opened = (task, video)
        return self._opened[1]

    def _feed(self) -> None:
        """Progress was made: what is open outlives the watchdog under which it was opened."""
        self._watchdog.feed()

    def _close(self) -> None:
        self._opened = None
        self._stack.close()
