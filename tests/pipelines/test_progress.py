"""Lines said anywhere on the cluster reach the driver: all of them, in order, soon."""

from __future__ import annotations

import logging
import os
import threading

import psutil
import pytest

from pipelines.progress import relay

pytestmark = pytest.mark.cluster


def test_lines_of_other_processes_arrive_in_their_order(ray_cluster):
    lines: list[str] = []
    arrived = threading.Event()

    def say(line: str) -> None:
        lines.append(line)
        arrived.set()

    def work(progress, name: str, count: int) -> None:
        for number in range(count):
            progress.say(f"{name} {number}")
        progress.flush()

    with relay(say) as progress:
        task = ray_cluster.remote(num_cpus=0)(work)
        ray_cluster.get(task.remote(progress, "first", 1))
        assert arrived.wait(10)  # while the work goes on, not at its end
        ray_cluster.get([task.remote(progress, name, 20) for name in ("a", "b")])
    # What was said last is there when the context has ended.
    assert lines[0] == "first 0"
    for name in ("a", "b"):
        assert [line for line in lines if line.startswith(name)] == [
            f"{name} {n}" for n in range(20)
        ]
    assert len(lines) == 41


def test_an_error_inside_is_passed_on_after_the_last_lines(ray_cluster):
    lines: list[str] = []
    with pytest.raises(RuntimeError, match="stage failed"), relay(lines.append) as progress:
        ray_cluster.get(ray_cluster.remote(num_cpus=0)(_say).remote(progress, "before"))
        raise RuntimeError("stage failed")
    assert lines == ["before"]
    assert not [thread for thread in threading.enumerate() if thread.name == "progress"]


def test_a_job_goes_on_when_what_holds_its_lines_is_killed(ray_cluster, caplog):
    lines: list[str] = []
    work = ray_cluster.remote(num_cpus=0)(_say)
    with caplog.at_level(logging.WARNING, "pipelines.progress"), relay(lines.append) as progress:
        ray_cluster.get(work.remote(progress, "before"))
        holder = psutil.Process(ray_cluster.get(progress._lines.pid.remote()))
        assert holder.pid != os.getpid()
        holder.kill()
        holder.wait(10)
        # Saying something, and waiting until it is there, go on too: here and elsewhere.
        ray_cluster.get(work.remote(progress, "after"))
        _say(progress, "after")
    assert set(lines) <= {"before"}
    said = [r.getMessage() for r in caplog.records if r.name == "pipelines.progress"]
    (message,) = said  # (Ray's own threads log as well)
    assert message.startswith("the job goes on without lines of progress: ")
    assert not [thread for thread in threading.enumerate() if thread.name == "progress"]


def _say(progress, line: str) -> None:
    progress.say(line)
    progress.flush()
