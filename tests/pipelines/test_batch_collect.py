"""Parts in any order, twice, or never: each video gets one outcome."""

from __future__ import annotations

import json
import queue
import random
import threading
from pathlib import Path

import pytest

from pipelines.batch_collect import Collector
from pipelines.batch_lease import LeaseError
from pipelines.batch_plan import Plan
from pipelines.batch_progress import BatchProgress
from pipelines.batch_quarantine import Quarantine
from pipelines.batch_record import VideoOutcome, VideoTask, failure
from pipelines.batch_units import Part, PartResult, from_row, group_tasks, pack, to_row


def make_task(name: str, root: str = "/out", size: int = 1000) -> VideoTask:
    return VideoTask(name, f"/in/{name}", root, name, None, 0, "print", size=size)


class Batch:
    """What a collector is given, and what it did."""

    def __init__(self, names: str, assemble=None) -> None:
        self.tasks = [make_task(name) for name in names]
        self.settled: list[VideoOutcome] = []
        self.given_up: list[str] = []
        self.progress = BatchProgress(len(names), 1000 * len(names))
        self.assemble = assemble or self._done
        self.record = lambda task, outcome: None

    def _done(self, task: VideoTask) -> VideoOutcome:
        return VideoOutcome(task.name, task.video, task.output, "done")

    def collector(self) -> Collector:
        return Collector(
            self.tasks, self.assemble, self.record,
            lambda task, outcome: self.settled.append(outcome),
            self.given_up.append, 2, self.progress,
        )  # fmt: skip

    def statuses(self) -> dict[str, tuple[str, str]]:
        assert len({o.name for o in self.settled}) == len(self.settled), "settled twice"
        return {o.name: (o.status, o.reason) for o in self.settled}


def parts(name: str, count: int) -> list[PartResult]:
    return [PartResult(name, number, count, 10, 10 * count) for number in range(count)]


@pytest.mark.parametrize("seed", range(5))
def test_every_video_is_settled_once(seed: int):
    batch = Batch("abc")
    results = 2 * (parts("a", 1) + parts("b", 4) + parts("c", 7))
    random.Random(seed).shuffle(results)
    with batch.collector() as collector:
        for result in results:
            collector.add(result)
    assert batch.statuses() == dict.fromkeys("abc", ("done", ""))


def test_a_failed_part_is_the_videos_end_and_not_the_others():
    batch = Batch("ab")
    with batch.collector() as collector:
        collector.add(parts("a", 3)[0])
        collector.add(PartResult("a", reason="corrupt", message="frame 7"))
        for result in parts("a", 3) + parts("b", 2):
            collector.add(result)
    assert batch.statuses() == {"a": ("failed", "corrupt"), "b": ("done", "")}
    assert batch.given_up == ["a", "b"]


def test_what_is_lost_is_said():
    def assemble(task: VideoTask) -> VideoOutcome:
        raise ConnectionError("the node died")

    batch = Batch("ab", assemble)
    with batch.collector() as collector:
        for result in parts("a", 1) + parts("b", 2)[:1]:
            collector.add(result)
    assert batch.statuses() == {"a": ("failed", "lost"), "b": ("failed", "lost")}


def test_records_are_stored_at_the_same_time():
    """A storage far away must not make one wait for the other, nor the parts that come."""
    batch, together = Batch("ab"), threading.Barrier(3)
    batch.record = lambda task, outcome: together.wait(20)
    with batch.collector() as collector:
        collector.add(parts("a", 1)[0])
        collector.add(PartResult("b", reason="corrupt", message="frame 7"))
        together.wait(20)
    assert batch.statuses() == {"a": ("done", ""), "b": ("failed", "corrupt")}


def test_a_lost_lease_ends_the_batch_instead_of_a_video():
    def assemble(task: VideoTask) -> VideoOutcome:
        raise LeaseError("taken over")

    batch = Batch("ab", assemble)
    with pytest.raises(LeaseError), batch.collector() as collector:
        collector.add(parts("a", 1)[0])
    assert batch.statuses() == {}


def test_progress_counts_videos_frames_rate_and_time_left():
    now = [0.0]
    progress = BatchProgress(4, 4000, clock=lambda: now[0])
    tasks = {name: make_task(name) for name in "abcd"}
    for number, name in enumerate("abc"):
        now[0] = 10.0 * (number + 1)
        progress.add_part(tasks[name], PartResult(name, 0, 1, 50, 50))
        progress.add_video(VideoOutcome(name, "", "", "failed" if name == "b" else "done"))
    assert progress.text() == ("3/4 videos, 150 frames, 5.0 frames/s, about 10 s left, 1 failed")


def test_what_an_earlier_run_had_staged_is_not_in_the_rate():
    now = [0.0]
    progress = BatchProgress(1, 1000, clock=lambda: now[0])
    task = make_task("a")
    for number in range(8):
        progress.add_part(task, PartResult("a", number, 10, 100, 1000, resumed=True))
    assert progress.text() == "0/1 videos, 800 frames (800 of them by an earlier run), 0 failed"
    now[0] = 50.0
    progress.add_part(task, PartResult("a", 8, 10, 100, 1000))
    assert progress.text().endswith("run), 2.0 frames/s, about 50 s left, 0 failed")


def test_progress_is_told_while_a_long_video_is_looked_through_or_joined():
    lines: queue.Queue[str] = queue.Queue()
    work = ["long", "gone", "other 3", "gone 1"]
    tasks = [make_task(name) for name in ("long", "other", "gone", "a")]
    progress = BatchProgress(4, 4000, lines.put, every=0.01)
    progress.add_video(VideoOutcome("gone", "", "", "failed"))  # (its starts were never ended)
    with progress.told(tasks, lambda: work):
        assert lines.get(timeout=60) == (
            "1/4 videos, 0 frames, 1 failed; surveying 1, completing 1 segment"
        )
        work.clear()
        with progress.joining():
            while not (line := lines.get(timeout=60)).endswith("; joining 1"):
                assert line
        while "joining" in lines.get(timeout=60):
            pass
    assert not [t for t in threading.enumerate() if t.name == "batch progress"]
    assert progress.text() == "1/4 videos, 0 frames, 1 failed"


def test_what_was_finished_before_is_in_the_total_too():
    tasks = {name: make_task(name) for name in "abcd"}
    settled = [VideoOutcome(name, "", "", "skipped") for name in "abc"]
    progress = BatchProgress.of(Plan([tasks["d"]], settled, tasks), print)
    for outcome in settled:
        progress.add_video(outcome)
    assert progress.text().startswith("3/4 videos")


def test_short_videos_share_rows_and_a_long_one_has_many():
    assert [len(g) for g in group_tasks([make_task(f"{n}") for n in range(400)], 2)][:2] == [8, 8]
    assert [len(g) for g in group_tasks([make_task(f"{n}") for n in range(6)], 2)] == [1] * 6
    large = [make_task(f"{n}", size=10**9) for n in range(400)]
    assert {len(group) for group in group_tasks(large, 2)} == {1}


def test_units_survive_the_way_from_process_to_process():
    from cssta.segments import Segment
    from cssta.survey import Scene

    scene = Scene(0, 90, (1, 2, 3, 4))
    units = [Part(make_task("a"), n, 3, Segment(30 * n, 30 * n + 30, 0, scene), 90, 5)
             for n in range(3)]  # fmt: skip
    assert [len(unit) for unit in pack(units, 60)] == [2, 1]
    failed = [PartResult("b", reason="empty", message="é")]
    assert from_row(to_row(units, failed)) == (units, failed)


def test_quarantine_counts_attempts_and_ends_with_success(tmp_path: Path):
    task = make_task("sub/a b #1.mp4", str(tmp_path))
    for attempt in (1, 2):
        quarantine = Quarantine(str(tmp_path))
        quarantine.update(task, failure(task, "corrupt", "frame 7\nis damaged"))
        record = json.loads((tmp_path / "_quarantine/sub/a b #1.mp4.json").read_text())
        assert (record["reason"], record["attempts"]) == ("corrupt", attempt)
        assert record["message"] == "frame 7 is damaged"
        assert record["task"]["video"] == task.video
    outcome = VideoOutcome(task.name, task.video, task.output, "done")
    Quarantine(str(tmp_path)).update(task, outcome)
    assert not list((tmp_path / "_quarantine").rglob("*.json"))
