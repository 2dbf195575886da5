"""The estimate adds up, follows area, holes and workers, and comes near what is then measured."""

from __future__ import annotations

import time

import numpy as np
import pytest

from cssta.engine import crop_region
from pipelines.batch_estimate import Calibration, Surveyed, calibrate, estimate, typical

CPU = Calibration(complete=10.0, passing=0.5, device="cpu", cores=2, measured_at="64x64, a desk")
GPU = Calibration(complete=0.1, passing=0.5, device="cuda", cores=4, measured_at="64x64, a desk")
HD = Surveyed("a", 3600, 1000, 1000, 1.0)  # one megapixel, all hole


def test_hours_and_cost_by_hand():
    found = estimate([HD, HD], CPU, price_per_hour=0.5, workers=4)
    assert (found.videos, found.frames, found.hole_frames) == (2, 7200, 7200)
    assert found.cpu_hours == pytest.approx(2 * (10 + 0.5)) and found.gpu_hours == 0
    assert found.wall_hours == pytest.approx(21 / 4)
    assert found.cost == pytest.approx(10.5)  # more workers are no dearer, only sooner
    for words in ("2 videos, 7,200 frames", "about 21.0 h of CPU in all", "5.2 h on 4 workers",
                  "about 10.50 at 0.5 per worker and hour", "64x64, a desk"):  # fmt: skip
        assert words in found.text()


def test_cpus_beside_an_accelerator_may_be_what_takes_long():
    found = estimate([HD], GPU)
    assert (found.gpu_hours, found.cpu_hours) == (pytest.approx(0.1), pytest.approx(0.5))
    assert found.wall_hours == pytest.approx(0.5 / 4)
    assert found.cost is None and "per worker and hour" not in found.text()
    assert "6.0 min of GPU and 30 min of CPU" in found.text()


def test_only_the_surroundings_of_a_hole_are_worked_on():
    small = Surveyed("logo", 100, 1080, 1920, 0.001)
    whole = Surveyed("film", 100, 1080, 1920, 0.9)
    assert 0 < small.worked_pixels() < 0.2 * whole.worked_pixels()
    assert whole.worked_pixels() == 1080 * 1920
    box = (500, 540, 900, 960)
    y0, y1, x0, x1 = crop_region(box, 1080, 1920)
    assert small._replace(box=box).worked_pixels() == (y1 - y0) * (x1 - x0)
    # The same pixels in a tenth of the frames: fewer frames, a larger hole in each.
    seldom = small._replace(hole_frames=10)
    assert seldom.completed == 10 and seldom.worked_pixels() > small.worked_pixels()


def test_the_self_test_of_every_video_is_work_too():
    found = estimate([HD, HD._replace(hole_frames=2)], CPU, tested=36)
    completed = (3600 + 36) + (2 + 2)
    assert found.cpu_hours == pytest.approx(completed * 10 / 3600 + 2 * 0.5)


def test_a_video_without_hole_only_passes():
    found = estimate([("a", 3600, 1000, 1000, 0.0)], CPU)
    assert found.hole_frames == 0 and found.cpu_hours == pytest.approx(0.5)
    assert estimate([], CPU, price_per_hour=1.0).cost == 0
    with pytest.raises(ValueError, match="worker"):
        estimate([HD], CPU, workers=0)


def test_it_is_calibrated_where_the_work_is():
    rows = [("small", 10, 64, 64, 0.1)] * 50 + [("large", 3000, 1080, 1920, 0.1)]
    assert typical(rows).name == "large"
    assert typical([("a", 10, 64, 64, 0.0)]).name == "a"
    with pytest.raises(ValueError, match="no video"):
        typical([])


class Slow:
    """Takes 0.2 ms a frame for each thousand pixels around the hole, after a slow start."""

    def __init__(self) -> None:
        self.lengths = []

    def inpaint(self, frames: np.ndarray, masks: np.ndarray) -> np.ndarray:
        assert frames.dtype == np.uint8 and masks.any(axis=(1, 2)).all()
        time.sleep(len(frames) * 2e-7 * frames[0, ..., 0].size + 0.3 * (not self.lengths))
        self.lengths.append(len(frames))
        return frames


def test_calibration_measures_the_engine_without_its_start():
    engine = Slow()
    before = time.monotonic()
    found = calibrate(engine, 240, 320, 0.2, seconds=2.0)
    assert time.monotonic() - before < 4
    assert found.complete == pytest.approx(0.2, rel=0.5)
    assert 0 < found.passing < 5
    assert found.device == "cpu" and "320x240" in found.measured_at
    assert engine.lengths[0] == 2 and engine.lengths[-1] > 10  # as long a clip as time allows


def test_a_slow_engine_is_asked_for_few_frames():
    engine = Slow()
    found = calibrate(engine, 33, 31, 0.2, seconds=0.0)
    assert engine.lengths == [2, 2]
    assert found.complete > 0 and found.passing > 0
