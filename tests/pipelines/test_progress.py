"""Lines said anywhere on the cluster reach the driver: all of them, in order, soon."""

from __future__ import annotations

import threading

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


def _say(progress, line: str) -> None:
    progress.say(line)
    progress.flush()
