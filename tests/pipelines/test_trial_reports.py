"""A trial that reports waits for the driver's word (searches that prune: `test_tune`)."""

from __future__ import annotations

import logging
from contextlib import closing

import psutil
import pytest

from pipelines.trial_reports import Board, PrunedError, Score

pytestmark = pytest.mark.cluster


def test_every_report_is_answered(ray_cluster):
    def trial(report) -> int:
        for step in (1, 2, 3):
            report(step, 10.0 * step)
        return 3

    with closing(Board()) as board:
        task = ray_cluster.remote(num_cpus=0.5)(trial)
        good, bad = task.remote(board.reporter(0)), task.remote(board.reporter(1))
        seen = []
        while len(seen) < 5:
            for score in ray_cluster.get(board.take()):
                seen.append(score)
                board.answer(score, prune=score.trial == 1 and score.step == 2)
        assert ray_cluster.get(good) == 3
        with pytest.raises(PrunedError, match="pruned after 2 steps, at 20"):
            ray_cluster.get(bad)
    assert sorted(seen) == [
        *(Score(0, step, 10.0 * step) for step in (1, 2, 3)),
        *(Score(1, step, 10.0 * step) for step in (1, 2)),
    ]


def test_trials_go_on_when_what_answers_them_is_killed(ray_cluster, caplog):
    def trial(report) -> int:
        report(1, 10.0)
        report(2, 20.0)
        return 2

    with caplog.at_level(logging.WARNING, "pipelines.trial_reports"), closing(Board()) as board:
        task = ray_cluster.remote(num_cpus=0.5)(trial).remote(board.reporter(0))
        assert board.scores(board.take()) == [Score(0, 1, 10.0)]
        asked = board.take()
        holder = psutil.Process(ray_cluster.get(board._actor.pid.remote()))
        holder.kill()
        holder.wait(10)
        assert ray_cluster.get(task, timeout=60) == 2
        assert board.scores(asked) is None
    said = [r.getMessage() for r in caplog.records if r.name == "pipelines.trial_reports"]
    (message,) = said  # (Ray's own threads log as well)
    assert message.startswith("trials are not pruned: ")
