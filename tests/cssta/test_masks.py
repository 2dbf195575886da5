from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cssta.masks import dilate, freeform_masks, shuffled_object_masks

SIZES = [(96, 96), (72, 128), (128, 72)]


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def disc(frames: int = 5, height: int = 40, width: int = 60) -> np.ndarray:
    """An object that moves one row down per frame, left of the middle."""
    masks = np.zeros((frames, height, width), np.uint8)
    for frame in range(frames):
        cv2.circle(masks[frame], (15, 12 + frame), 8, 1, -1)
    return masks.astype(bool)


@given(
    seed=st.integers(0, 2**32),
    frames=st.integers(1, 5),
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    moving=st.sampled_from([True, False, None]),
)
@settings(max_examples=40, deadline=None)
def test_freeform_any_size_has_holes_and_repeats_by_seed(seed, frames, height, width, moving):
    masks = freeform_masks(generator(seed), frames, height, width, moving=moving)
    again = freeform_masks(generator(seed), frames, height, width, moving=moving)
    assert masks.shape == (frames, height, width)
    assert masks.dtype == bool
    assert masks.any(axis=(1, 2)).all()
    assert np.array_equal(masks, again)


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("ratio", [(0.05, 0.05), (0.05, 0.35), (0.3, 0.35), (0.65, 0.7)])
def test_freeform_hole_share_is_the_one_asked_for(height, width, ratio):
    shares = [
        freeform_masks(generator(seed), 4, height, width, ratio=ratio).mean() for seed in range(60)
    ]
    slack = 0.01 + 0.03 * ratio[1]
    assert min(shares) > ratio[0] - slack
    assert max(shares) < ratio[1] + slack
    assert abs(np.mean(shares) - np.mean(ratio)) < 0.25 * (ratio[1] - ratio[0]) + 0.005


def test_freeform_ratio_is_spread_over_its_bucket():
    shares = [
        freeform_masks(generator(seed), 2, 64, 64, ratio=(0.1, 0.5)).mean() for seed in range(200)
    ]
    counts, _ = np.histogram(shares, bins=4, range=(0.1, 0.5))
    assert counts.min() > 25  # 50 expected in each


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("moving", [True, False])
def test_freeform_covers_the_whole_frame_evenly(height, width, moving):
    frames, seeds = (3, 800) if moving else (1, 1600)
    coverage = np.zeros((height, width))
    for seed in range(seeds):
        rng = generator(seed)
        masks = freeform_masks(rng, frames, height, width, ratio=(0.2, 0.2), moving=moving)
        coverage += masks.mean(axis=0)
    coverage /= seeds
    rows = np.array_split(coverage, 3, axis=0)
    cells = np.array([[c.mean() for c in np.array_split(row, 3, axis=1)] for row in rows])
    assert np.abs(cells - 0.2).max() < 0.03  # the right third and the bottom included
    assert coverage[:, -1].mean() == pytest.approx(0.2, abs=0.04)
    assert coverage[-1, :].mean() == pytest.approx(0.2, abs=0.04)


def test_freeform_coverage_stays_even_late_in_a_long_clip():
    late = [
        freeform_masks(generator(s), 60, 48, 80, ratio=(0.2, 0.2), moving=True)[-1]
        for s in range(120)
    ]
    assert np.mean(late) == pytest.approx(0.2, abs=0.03)
    assert np.mean([mask[:, 53:].mean() for mask in late]) == pytest.approx(0.2, abs=0.04)


def test_freeform_about_half_of_the_clips_are_still():
    still = 0
    for seed in range(300):
        masks = freeform_masks(generator(seed), 3, 48, 48)
        still += bool((masks == masks[:1]).all())
    assert 120 < still < 180


def test_freeform_moving_masks_drift_coherently():
    overlaps, far = [], []
    for seed in range(40):
        masks = freeform_masks(generator(seed), 24, 96, 96, ratio=(0.15, 0.2), moving=True)
        assert not (masks[1:] == masks[:-1]).all(axis=(1, 2)).any()  # every frame differs
        overlaps.append(intersection_over_union(masks[10], masks[11]))
        far.append(intersection_over_union(masks[0], masks[-1]))
    assert np.mean(overlaps) > 0.6  # a hole does not jump from one frame to the next
    assert np.mean(far) < 0.5  # over a second it uncovers much of what it hid


def intersection_over_union(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / (first | second).sum())


def test_freeform_still_and_moving_on_request():
    still = freeform_masks(generator(1), 6, 64, 64, moving=False)
    assert (still == still[0]).all()
    moving = freeform_masks(generator(1), 6, 64, 64, moving=True)
    assert not np.array_equal(moving[0], moving[-1])


def test_freeform_seeds_differ():
    first, second = (freeform_masks(generator(seed), 2, 64, 64) for seed in (1, 2))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("ratio", [(0.0, 0.2), (0.3, 0.2), (0.5, 1.0), (-0.1, 0.1)])
def test_freeform_refuses_an_impossible_ratio(ratio):
    with pytest.raises(ValueError, match="ratio"):
        freeform_masks(generator(), 2, 32, 32, ratio=ratio)


@pytest.mark.parametrize("size", [(0, 8, 8), (1, 0, 8), (1, 8, 0)])
def test_freeform_refuses_an_empty_clip(size):
    with pytest.raises(ValueError, match="no pixels"):
        freeform_masks(generator(), *size)


def test_object_masks_loop_back_and_forth():
    source = disc(frames=4)
    masks = shuffled_object_masks(generator(3), source, 20, 40, 60, grow=0)
    if not masks[:, :, :30].any():
        masks = masks[:, :, ::-1]  # this seed mirrors
    rows = [int(np.flatnonzero(mask.any(axis=1))[0]) - 4 for mask in masks]
    assert set(rows) == {0, 1, 2, 3}
    assert np.abs(np.diff(rows)).tolist() == [1] * 19  # no jump where the sequence ends
    for mask, index in zip(masks, rows, strict=True):
        assert np.array_equal(mask, source[index])


def test_object_masks_are_mirrored_for_about_half():
    left = sum(
        bool(shuffled_object_masks(generator(seed), disc(), 1, 40, 60)[0, :, :30].any())
        for seed in range(200)
    )
    assert 70 < left < 130


def test_object_masks_are_scaled_to_the_frame():
    masks = shuffled_object_masks(generator(0), disc(), 2, 80, 240, grow=0)
    assert masks.shape == (2, 80, 240)
    assert masks.dtype == bool
    assert masks.mean() == pytest.approx(disc().mean(), rel=0.05)


def test_object_masks_grow():
    small = shuffled_object_masks(generator(5), disc(), 3, 40, 60, grow=0)
    grown = shuffled_object_masks(generator(5), disc(), 3, 40, 60, grow=3)
    assert np.array_equal(grown, dilate(small, 3))


def test_object_masks_start_where_the_object_is_seen():
    source = disc(frames=12)
    source[2:] = False
    for seed in range(20):
        assert shuffled_object_masks(generator(seed), source, 3, 20, 30)[0].any()


def test_object_masks_of_one_frame_hold_still():
    masks = shuffled_object_masks(generator(0), disc(frames=1), 4, 40, 60)
    assert (masks == masks[0]).all()
    assert masks.any()


def test_object_masks_without_an_object_are_refused():
    with pytest.raises(ValueError, match="no object"):
        shuffled_object_masks(generator(0), np.zeros((3, 8, 8), bool), 2, 8, 8)
    with pytest.raises(ValueError, match="shape"):
        shuffled_object_masks(generator(0), np.ones((8, 8), bool), 2, 8, 8)


def test_object_masks_from_annotations(shared_dir):
    folder = sorted((shared_dir / "davis" / "Annotations" / "480p").iterdir())[0]
    pictures = [cv2.imread(str(f), cv2.IMREAD_GRAYSCALE) for f in sorted(folder.glob("*.png"))]
    source = np.stack(pictures) > 0
    masks = shuffled_object_masks(generator(0), source, 7, 256, 256)
    assert masks.any(axis=(1, 2)).all()
    assert 0.5 * source.mean() < masks.mean() < 3 * source.mean() + 0.05


def test_dilate_grows_by_a_cross():
    masks = np.zeros((2, 9, 9), bool)
    masks[0, 4, 4] = True
    rows, columns = np.mgrid[:9, :9]
    diamond = np.abs(rows - 4) + np.abs(columns - 4) <= 2
    grown = dilate(masks, 2)
    assert np.array_equal(grown[0], diamond)
    assert not grown[1].any()
    assert grown.dtype == bool


def test_dilate_by_nothing_is_a_copy():
    masks = disc()
    same = dilate(masks, 0)
    assert np.array_equal(same, masks)
    assert not np.shares_memory(same, masks)
    assert dilate(np.zeros((0, 4, 4), bool), 2).shape == (0, 4, 4)


def test_dilate_refuses_a_negative_number():
    with pytest.raises(ValueError, match="-1"):
        dilate(disc(), -1)
