"""A trial that reports waits for the driver's word (searches that prune: `test_tune`)."""

from __future__ import annotations

from contextlib import closing

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
