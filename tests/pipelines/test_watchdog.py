"""A process that makes no progress is ended; one that does is left alone."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from unittest.mock import Mock

from cssta.video import write_video
from pipelines.batch import assemble_task
from pipelines.batch_dry_run import look_task
from pipelines.batch_plan import plan_batch
from pipelines.batch_sheets import draw_sheet
from pipelines.retries import with_retries
from pipelines.storage import StorageError
from pipelines.watchdog import Watchdog
from tests.pipelines.one_process import MODEL, complete_parts, config, picture_clip, settings_of


def test_silence_ends_it_and_progress_does_not():
    ended = threading.Event()
    with Watchdog(0.4, ended.set) as watchdog:
        for _ in range(10):
            time.sleep(0.1)
            watchdog.feed()
        assert not ended.is_set()
        assert ended.wait(5)


def test_it_watches_only_while_the_work_lasts():
    ended = threading.Event()
    with Watchdog(0.1, ended.set):
        pass
    assert not ended.wait(0.4)


def test_waiting_for_what_has_limits_of_its_own_is_not_hanging():
    ended = threading.Event()
    with Watchdog(0.2, ended.set):
        with_retries(lambda: time.sleep(0.8))
        assert not ended.is_set()
        with_retries(Mock(side_effect=[StorageError("reset", transient=True), None]), first_wait=1)
        assert not ended.is_set()
        assert ended.wait(5), "afterwards it is watched again"


def test_assembly_is_watched_and_each_frame_counts(tmp_path: Path, monkeypatch):
    write_video(tmp_path / "in/a.mp4", picture_clip(12), 24)
    cfg = config(tmp_path)
    (task,) = plan_batch(cfg, MODEL).tasks
    settings = settings_of(cfg)
    complete_parts(task, settings)
    made = []

    class Spy(Watchdog):
        def __init__(self, seconds: float) -> None:
            super().__init__(seconds, lambda: None)
            self.fed = 0
            made.append(self)

        def feed(self, *_: object) -> None:
            super().feed()
            self.fed += 1

    for module in ("batch", "batch_sheets", "batch_dry_run"):
        monkeypatch.setattr(f"pipelines.{module}.Watchdog", Spy)
    assert look_task(json.dumps(vars(task)), settings)[0] == 12
    outcome = assemble_task(task, settings)
    assert outcome.status == "done", outcome.message
    draw_sheet(task, outcome.output, settings)
    look, assembly, sheet = (dog.fed for dog in made)
    assert look >= 12 and assembly >= 12 and sheet >= 1
