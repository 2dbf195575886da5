"""What ends its process is found out, and a lost node or want of memory is not taken for it."""

from __future__ import annotations

import pytest
import ray
from ray.exceptions import NodeDiedError, OutOfMemoryError, WorkerCrashedError

from pipelines.suspects import LOSSES, outlive


@pytest.fixture
def begun(monkeypatch) -> list[tuple[list[str], bool]]:
    """The tasks that were begun, which run here when they are asked for: files, in a new process"""
    begun: list[tuple[list[str], bool]] = []

    class Task:
        def __init__(self, function):
            self.function = function

        def options(self, **_):
            return self

        def remote(self, files, in_new):
            begun.append((list(files), in_new))
            return lambda: self.function(files, in_new)

    monkeypatch.setattr(ray, "remote", lambda *function, **_: Task(*function) if function else Task)
    monkeypatch.setattr(ray, "get", lambda task: task())
    return begun


def test_a_crash_is_narrowed_down_to_its_file(begun):
    def probe(files, in_new):
        if "bad" in files:
            raise WorkerCrashedError
        return files

    found = list(outlive(probe, [["a", "bad", "b"], ["c"]], memory=1))
    assert found == [(["c"], None), (["a"], None), (["b"], None), (None, "bad")]
    assert begun[-1] == (["bad"], True)


def test_a_process_that_another_file_broke_is_not_believed(begun):
    broken = []

    def probe(files, in_new):
        if broken and not in_new:
            raise WorkerCrashedError  # as its errors are not believed
        broken.extend(files)
        return files

    assert sorted(outlive(probe, [["a"], ["b"], ["c"]], memory=1)) == [
        (["a"], None),
        (["b"], None),
        (["c"], None),
    ]


@pytest.mark.parametrize("error", [NodeDiedError("gone"), OutOfMemoryError("killed")])
def test_lost_nodes_and_want_of_memory_are_waited_out(begun, error):
    times = iter(range(LOSSES))

    def probe(files, in_new):
        if next(times, None) is not None:
            raise error
        return files

    assert list(outlive(probe, [["a", "b"]], memory=1)) == [(["a", "b"], None)]
    assert begun == [(["a", "b"], False)] * (LOSSES + 1)


def test_nodes_that_die_for_ever_end_it_and_memory_names_the_file(begun):
    def node(files, in_new):
        raise NodeDiedError("gone")

    def memory(files, in_new):
        raise OutOfMemoryError("killed")

    with pytest.raises(NodeDiedError):
        list(outlive(node, [["a"]], memory=1))
    assert list(outlive(memory, [["a"]], memory=1)) == [(None, "a")]
