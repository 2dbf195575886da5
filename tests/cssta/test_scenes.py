from __future__ import annotations

import tracemalloc

import cv2
import numpy as np
import pytest

from cssta.scenes import CutDetector
from cssta.video import open_source
from tests.cssta.media import picture


def shot(frames: int, seed: int, speed: float = 2.0, height: int = 90, width: int = 160):
    """A pan over a smooth picture with fine detail, uint8 (T, H, W, 3)."""
    rng = np.random.default_rng(seed)
    large = picture(height, width + int(frames * speed) + 1, seed)
    large = np.clip(large + rng.normal(0, 25, large.shape), 0, 255).astype(np.uint8)
    starts = (np.arange(frames) * speed).astype(int)
    return np.stack([large[:, start : start + width] for start in starts])


def cuts(frames, masks=None) -> list[int]:
    detector = CutDetector()
    for number, frame in enumerate(frames):
        mask = np.zeros(frame.shape[:2], bool) if masks is None else masks[number]
        detector.add(frame, mask)
    return detector.cuts()


@pytest.mark.parametrize("lengths", [(9, 12, 7), (1, 5), (5, 1), (2, 2), (3, 4, 30), (40,)])
def test_cuts_are_where_shots_meet(lengths):
    frames = np.concatenate([shot(length, seed) for seed, length in enumerate(lengths)])
    assert cuts(frames) == list(np.cumsum(lengths)[:-1])


@pytest.mark.parametrize("speed", [0.0, 1.0, 12.0])
def test_camera_motion_is_no_cut(speed):
    assert cuts(shot(40, 3, speed)) == []


def test_one_frame_has_no_cut():
    assert cuts(shot(1, 0)) == [] and cuts([]) == []


@pytest.mark.parametrize("length", [1, 2])
def test_a_flash_is_no_cut(length):
    frames = shot(24, 5)
    frames[10 : 10 + length] = 250
    assert cuts(frames) == []


@pytest.mark.parametrize("repeat", [2, 3])
def test_repeated_frames_do_not_make_the_others_cuts(repeat):
    assert cuts(shot(20, 6, 8.0).repeat(repeat, axis=0)) == []


def test_brightness_that_drifts_is_no_cut():
    gain = np.linspace(0.3, 1.2, 40)[:, None, None, None]
    assert cuts(np.clip(shot(40, 7) * gain, 0, 255).astype(np.uint8)) == []


def test_what_is_in_a_hole_is_no_cut():
    frames, masks = shot(30, 8), np.zeros((30, 90, 160), bool)
    masks[:, 10:80, 20:140] = True
    frames[15:, 10:80, 20:140] = (255, 0, 0)
    assert cuts(frames, masks) == []
    assert cuts(frames) == [15]


def test_a_hole_that_appears_or_wanders_is_no_cut():
    frames, masks = shot(30, 9), np.zeros((30, 90, 160), bool)
    for number in range(12, 30):
        masks[number, 20:70, 4 * (number - 12) : 4 * (number - 12) + 60] = True
    frames[masks] = 255
    assert cuts(frames, masks) == []


def test_a_cut_beside_a_large_hole_is_found():
    frames = np.concatenate([shot(10, 1), shot(10, 2)])
    masks = np.zeros((20, 90, 160), bool)
    masks[:, :, :120] = True
    assert cuts(frames, masks) == [10]


def test_hours_of_video_take_few_bytes_a_frame():
    detector, frames = CutDetector(), shot(4, 1)
    mask = np.zeros(frames.shape[1:3], bool)

    def add(count: int) -> int:
        for number in range(count):
            detector.add(frames[number % 4], mask)
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before, after = add(100), add(400)
        tracemalloc.reset_peak()
        detector.cuts()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert after - before <= 24 * 400
    assert peak - after <= 64 * 500


def test_nothing_visible_is_no_cut():
    frames = np.concatenate([shot(5, 1), shot(5, 2)])
    assert cuts(frames, np.ones((10, 90, 160), bool)) == []


@pytest.fixture(scope="module")
def shots(shared_dir):
    """Thumbnails of real sequences, uint8 (T, h, w, 3) each, none with a cut."""
    paths = sorted((shared_dir / "davis" / "JPEGImages" / "480p").iterdir())[::2]
    paths += sorted((shared_dir / "clips").glob("*.mp4"))[10::27]
    sources = {path.name: open_source(path) for path in paths}
    return {
        name: [frame.thumbnail(128) for frame in source.frames(0, min(36, source.info.frames))]
        for name, source in sources.items()
    }


def test_real_shots_have_no_cut(shots):
    assert len(shots) >= 25
    for name, frames in shots.items():
        assert cuts(frames) == [], name


def test_spliced_real_shots_have_theirs(shots):
    rng = np.random.default_rng(0)
    names = sorted(shots)
    for _ in range(40):
        parts, lengths = [], []
        for name in rng.choice(names, 4, replace=False):
            length = int(rng.integers(3, 25))
            start = int(rng.integers(0, max(1, len(shots[name]) - length)))
            part = shots[name][start : start + length]
            parts += [cv2.resize(frame, (128, 72)) for frame in part]
            lengths.append(len(part))
        assert cuts(parts) == list(np.cumsum(lengths)[:-1])
