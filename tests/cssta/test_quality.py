"""Completions that are as good as the truth score about 1; what jumps to the eye does not."""

from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from cssta.quality import BROKEN, LIMITS, SUMS, QualityMeter, judge, quality
from cssta.self_test import self_test
from cssta.video import read_frames, read_masks

FRAMES = 10


def panning(frames: int = FRAMES, height: int = 120, width: int = 160) -> np.ndarray:
    """A textured scene that passes by, with a little camera noise: uint8 (T, H, W, 3)."""
    rng = np.random.default_rng(0)
    scene = cv2.GaussianBlur(rng.uniform(0, 255, (height, width + 3 * frames, 3)), (0, 0), 3)
    scene = (scene - scene.mean()) * 4 + 128
    views = np.stack([scene[:, 3 * t : 3 * t + width] for t in range(frames)])
    return np.clip(views + rng.normal(0, 1.5, views.shape), 0, 255).round().astype(np.uint8)


def box(frames: np.ndarray) -> np.ndarray:
    masks = np.zeros(frames.shape[:3], bool)
    masks[:, 40:80, 60:110] = True
    return masks


def measured(truth: np.ndarray, masks: np.ndarray, result: np.ndarray, cuts=()) -> dict:
    """Quality with a new segment, and so a new meter, at each of `cuts`."""
    return quality([sums(truth, masks, result, *span) for span in spans(len(truth), cuts)])


def spans(frames: int, cuts) -> list[tuple[int, int]]:
    return list(zip([0, *cuts], [*cuts, frames], strict=True))


def sums(truth, masks, result, start: int, stop: int) -> dict[str, float]:
    meter = QualityMeter()
    for t in range(start, stop):
        meter.add(truth[t], masks[t], result[t] if masks[t].any() else None)
    return meter.sums()


def changed(frames: np.ndarray, masks: np.ndarray, change) -> np.ndarray:
    result = frames.copy()
    for t, mask in enumerate(masks):
        levels = np.broadcast_to(change(t, frames[t].astype(float)), frames[t].shape)
        result[t][mask] = np.clip(levels, 0, 255).round().astype(np.uint8)[mask]
    return result


RNG = np.random.default_rng(1)
DEFECTS = {  # what is wrong in the hole, and the figure that must tell
    "colour shift": ("seam", lambda t, x: x + np.array([16, -16, 16])),
    "hard seam": ("seam", lambda t, x: np.roll(x, (0, 40), (0, 1))),
    "grey": ("seam", lambda t, x: np.full_like(x, 128)),
    "flicker": ("warping", lambda t, x: x + (8 if t % 2 else -8)),
    "noise": ("warping", lambda t, x: x + RNG.normal(0, 24, x.shape)),
}


def test_the_truth_scores_about_1():
    frames = panning()
    found = measured(frames, box(frames), frames)
    assert found["seam"] == pytest.approx(1, abs=0.2)
    assert found["warping"] == pytest.approx(1, abs=0.2)
    assert judge(found, LIMITS) == []


@pytest.mark.parametrize("defect", DEFECTS)
def test_planted_defects_break_the_default_limits(defect: str):
    frames = panning()
    masks = box(frames)
    key, change = DEFECTS[defect]
    found = measured(frames, masks, changed(frames, masks, change))
    (words,) = [line for line in judge(found, LIMITS) if f"{key} " in line]
    assert f"{found[key]:.2f} is above {LIMITS[key]:g}" in words


@pytest.mark.parametrize("name", ["dog", "blackswan"])
def test_planted_defects_are_told_on_real_footage(shared_dir: Path, name: str):
    davis = shared_dir / "davis"
    frames = read_frames(davis / "JPEGImages" / "480p" / name)[10 : 10 + FRAMES]
    folder = davis / "Annotations" / "480p" / "cows"
    masks = read_masks(folder, len(list(folder.iterdir())), *frames.shape[1:3])[10 : 10 + FRAMES]
    small = (432, 240)
    frames = np.stack([cv2.resize(f, small, interpolation=cv2.INTER_AREA) for f in frames])
    masks = np.stack([cv2.resize(m.astype(np.uint8), small) > 0 for m in masks])
    truth = measured(frames, masks, frames)
    assert judge(truth, LIMITS) == []
    for key, change in DEFECTS.values():
        assert measured(frames, masks, changed(frames, masks, change))[key] > 1.5 * truth[key]
    later = np.roll(frames, -4, 0)
    for broken in (lambda t, x: 128.0, lambda t, x: np.roll(x, 48, 1), lambda t, x: later[t]):
        assert judge(measured(frames, masks, changed(frames, masks, broken)), BROKEN)


def test_sixteen_bits_score_as_eight():
    frames = panning(3)
    masks = box(frames)
    result = changed(frames, masks, DEFECTS["colour shift"][1])
    eight = measured(frames, masks, result)
    wide = measured(frames.astype(np.uint16) * 257, masks, result.astype(np.uint16) * 257)
    assert wide == pytest.approx(eight)


def test_sums_are_json_and_add_up():
    frames = panning(6)
    masks = box(frames)
    masks[3] = False  # no flow across a frame without hole, nor from segment to segment
    whole, *parts = (
        sums(frames, masks, frames, start, stop) for start, stop in ((0, 6), (0, 3), (3, 6))
    )
    assert json.loads(json.dumps(whole)) == whole and set(whole) == set(SUMS)
    for key in SUMS:
        assert whole[key] == pytest.approx(parts[0][key] + parts[1][key])
    assert quality([whole]) == pytest.approx(quality(parts))


def test_a_video_is_as_good_as_its_worst_stretch():
    frames = np.concatenate([panning()] * 9)
    masks = box(frames)
    bad = frames.copy()
    bad[30:60] = changed(frames, masks, DEFECTS["colour shift"][1])[30:60]
    whole = measured(frames, masks, bad)["seam"]
    parts = measured(frames, masks, bad, (30, 60))["seam"]
    alone = measured(frames[30:60], masks[30:60], bad[30:60])["seam"]
    assert parts == pytest.approx(alone) and parts > 1.5 * whole > 1.5
    # (Segments of a few frames count together: one alone says little.)
    shorter = measured(frames, masks, bad, range(5, 90, 5))["seam"]
    assert whole < shorter <= alone


def test_where_nothing_can_be_measured_nothing_is_said():
    frames = panning(3)
    nothing = {"seam": None, "warping": None}
    assert quality([]) == nothing
    assert measured(frames, np.zeros_like(box(frames)), frames) == nothing
    assert measured(frames, np.ones_like(box(frames)), frames) == nothing  # no surroundings
    one = measured(frames[:1], box(frames)[:1], frames[:1])
    assert one["seam"] is not None and one["warping"] is None
    assert judge(nothing | {"self_test": None}, LIMITS) == []


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (200, 3), (17, 9)])
@pytest.mark.parametrize("hole", ["pixel", "corner", "half"])
def test_odd_sizes_and_holes(shape: tuple[int, int], hole: str):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (3, *shape, 3), np.uint8)
    masks = np.zeros(frames.shape[:3], bool)
    masks[(slice(None), *{"pixel": (-1, -1), "corner": (slice(2), slice(2))}.get(hole, (slice(
        (shape[0] + 1) // 2),)))] = True  # fmt: skip
    for value in measured(frames, masks, frames).values():
        assert value is None or math.isfinite(value)


class Knows:
    """A model that knows the truth but for `error` levels; it notes what it was asked."""

    def __init__(self, truth: np.ndarray, error: int) -> None:
        self.truth, self.error, self.asked = truth, error, []

    def inpaint(self, frames: np.ndarray, masks: np.ndarray) -> np.ndarray:
        self.asked.append(masks)
        return np.where(masks[..., None], self.truth + self.error, frames).astype(frames.dtype)


def test_the_self_test_measures_a_hole_like_the_true_one_elsewhere():
    frames = np.minimum(panning(4), 250)
    masks = box(frames)
    model = Knows(frames, 5)
    assert self_test(model, frames, masks, 3) == pytest.approx(20 * math.log10(255 / 5), abs=1e-4)
    assert self_test(Knows(frames, 0), frames, masks, 3) == pytest.approx(98.1, abs=0.1)
    (asked,) = model.asked
    moved = asked & ~masks
    assert (asked | ~masks).all()  # what is no truth stays a hole
    assert moved.sum() > 0.9 * masks.sum()
    # Again the same by the same seed, another by another.
    again, other = Knows(frames, 5), Knows(frames, 5)
    self_test(again, frames, masks, 3)
    self_test(other, frames, masks, 4)
    assert np.array_equal(again.asked[0], asked) and not np.array_equal(other.asked[0], asked)
    wide = frames.astype(np.uint16) * 257
    assert self_test(Knows(wide, 5 * 257), wide, masks, 3) == pytest.approx(34.15, abs=0.01)


def test_without_hole_or_without_room_there_is_no_self_test():
    frames = panning(2)
    model = Knows(frames, 5)
    assert self_test(model, frames, np.zeros_like(box(frames)), 0) is None
    assert self_test(model, frames, np.ones_like(box(frames)), 0) is None
    assert model.asked == []


def test_judging_in_words():
    found = {"seam": 2.5, "warping": 1.0, "self_test": 9.0}
    seam, test = judge(found, {"seam": 2, "warping": 2, "self_test": 12})
    assert seam == "the hole's edge shows: seam 2.50 is above 2"
    assert test == "a hole made for a test was not found again: self_test 9.00 dB is below 12 dB"
    assert judge(found, {"warping": 1.0, "seam": None}) == []
    assert judge({"seam": math.nan}, {"seam": 2}) and judge({"self_test": math.nan}, LIMITS)
    with pytest.raises(ValueError, match=r"'sharpness'.*seam, warping, self_test"):
        judge(found, {"sharpness": 1})


def test_a_segment_that_was_not_measured_leaves_the_video_without_figures():
    assert quality([QualityMeter().sums(), None]) == {}
