"""What is counted, what is worst, and what a metric is called."""

from __future__ import annotations

import pytest

from pipelines.batch_summary import BatchSummary
from pipelines.batch_totals import Totals, severity, worst_of
from tests.pipelines.outcomes import MODEL, batch, outcome


def test_only_what_this_run_completed_counts_as_its_work():
    totals = Totals.of(batch(), 60)
    assert totals.videos == {"done": 2, "review": 1, "skipped": 1, "failed": 3}
    assert (totals.frames, totals.hole_frames) == (30, 24)
    assert totals.rate == 0.5
    assert list(totals.failures.items()) == [("mask-missing", 2), ("unreadable", 1)]
    assert totals.quality["self_test"] == [25.0, 20.0, 30.0]


def test_what_an_earlier_run_held_for_review_still_is():
    held = outcome("old.mp4", "skipped", review="the hole's edge shows")
    totals = Totals.of([held, outcome("older.mp4", "skipped")], 60)
    assert totals.videos == {"done": 0, "review": 1, "skipped": 1, "failed": 0}
    assert totals.frames == 0  # (not by this run)
    summary = BatchSummary((held,), "/out", "/out/batch-summary.json", MODEL, 60.0)
    assert "1 held for review" in summary.text()
    assert "review: old.mp4: the hole's edge shows" in summary.text()


def test_metrics_hold_the_worst_in_the_direction_of_each_figure():
    metrics = Totals.of(batch(), 60).metrics()
    assert metrics["videos_review"] == 1 and metrics["failed_mask-missing"] == 2
    assert (metrics["seam_median"], metrics["seam_worst"]) == (pytest.approx(1.4), 4.0)
    assert metrics["self_test_worst"] == 20.0
    assert all(isinstance(value, float) for value in metrics.values())


def test_an_empty_batch_has_no_figures():
    totals = Totals.of([], 0.0)
    assert totals.rate == 0 and totals.quality == {"seam": [], "warping": [], "self_test": []}
    assert not any("seam" in key for key in totals.metrics())


def test_the_worst_come_first_whichever_figure_says_so():
    limits = {"seam": 2.0, "warping": 2.0, "self_test": 15.0}
    videos = [
        outcome("calm.mp4", quality={"seam": 1.0}),
        outcome("not measured.mp4", quality={"seam": None}),
        outcome("seam.mp4", quality={"seam": 3.0, "self_test": 30.0}),
        outcome("lost.mp4", quality={"seam": 1.0, "self_test": 5.0}),
        outcome("failed.mp4", "failed", quality={"seam": 9.0}),
        outcome("at the limit.mp4", quality={"warping": 2.0}),
    ]
    assert [o.name for o in worst_of(videos, 3, limits)] == [
        "lost.mp4", "seam.mp4", "at the limit.mp4"
    ]  # fmt: skip
    assert severity(videos[-1], limits) == 1 and severity(videos[1], limits) == 0
    assert len(worst_of(videos, 99, limits)) == 4
